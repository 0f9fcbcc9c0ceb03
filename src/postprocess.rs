//! Head maps to detections: peaks, boxes, filters, suppression.
//!
//! [`top_peaks`] picks the best cells of the heat map, the caller gathers the regression maps there, [`decode_boxes`] turns
//! both into boxes and applies the thresholds, [`suppress`] drops those that a better box covers. Anchor heads have no peaks:
//! [`decode_anchors`] takes their maps to boxes over the thresholds.

mod anchors;
mod boxes;
mod nms;
mod peaks;

pub use anchors::decode_anchors;
pub use boxes::{Decoded, decode_boxes};
pub use nms::suppress;
pub use peaks::{Peaks, top_peaks};

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

/// Why maps could not be turned into detections.
#[derive(Debug, thiserror::Error)]
pub enum PostprocessError {
    /// A tensor does not have the shape the stage takes.
    #[error("{tensor} has shape {got:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        tensor: &'static str,
        /// The shape in words.
        expected: String,
        /// The shape found.
        got: Vec<i64>,
    },
    /// A peak names a class that the spec does not have.
    #[error("a peak is of class {got}, the spec has {expected} classes")]
    Class {
        /// Number of classes of the spec.
        expected: usize,
        /// Class index of the peak.
        got: i64,
    },
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}
