//! The voxeliser made of tensor operations.
/// Stub.
pub struct PillarTensors;
/// Stub.
pub fn pillarize_on_device() {}
