//! The plain voxeliser.
/// Stub.
pub struct Pillarizer;
/// Stub.
pub struct Pillars;
