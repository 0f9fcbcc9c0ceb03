//! Boxes and their overlaps. Plain Rust, f64 inside, no tensors.

mod box3d;
pub mod iou;

pub use box3d::{Box3d, wrap_angle};
