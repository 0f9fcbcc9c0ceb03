//! Head maps to detections: peaks, boxes, filters, suppression.

use crate::geometry::Box3d;

/// One detected object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Metres and radians, in the cloud's frame.
    pub box3d: Box3d,
    /// In (0, 1).
    pub score: f32,
    /// Index into the spec's `classes`, from 0.
    pub class_idx: usize,
}
