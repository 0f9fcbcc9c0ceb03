//! Intersection over union as the metric has it: exact geometry, with boxes of absurd size overlapping nothing.

use crate::geometry::Box3d;
use crate::geometry::iou::{Footprint, footprint_overlap};

use super::config::BoxType;

/// Boxes with a side up to this overlap nothing, in metres.
const MIN_SIDE_M: f64 = 1e-2;
/// Boxes with a side from this on overlap nothing, in metres.
const MAX_SIDE_M: f64 = 1e6;
/// A joint area or volume up to this is none.
const MIN_UNION: f64 = 1e-6;

/// A box with its footprint and heights, prepared once for many comparisons.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    box3d: Box3d,
    footprint: Footprint,
    is_measurable: bool,
    /// Volume or area.
    content: f64,
}

impl Extent {
    /// Of a box that is measured as `box_type` says.
    pub fn new(box3d: &Box3d, box_type: BoxType) -> Self {
        let box3d = if box_type == BoxType::AxisAligned2d { Box3d { yaw: 0.0, ..*box3d } } else { *box3d };
        let sides = if box_type == BoxType::Upright3d { &box3d.size[..] } else { &box3d.size[..2] };
        Self {
            box3d,
            footprint: Footprint::new(&box3d),
            is_measurable: sides.iter().all(|&s| s > MIN_SIDE_M) && box3d.size.iter().all(|&s| s < MAX_SIDE_M),
            content: sides.iter().product(),
        }
    }
}

/// Shared volume over joint volume, or the same of areas, in [0, 1].
pub fn iou(a: &Extent, b: &Extent, box_type: BoxType) -> f64 {
    if !a.is_measurable || !b.is_measurable {
        return 0.0;
    }
    let height = if box_type == BoxType::Upright3d { shared_height(&a.box3d, &b.box3d) } else { 1.0 };
    if height <= 0.0 {
        return 0.0;
    }
    let shared = footprint_overlap(&a.footprint, &b.footprint) * height;
    let union = a.content + b.content - shared;
    if union <= MIN_UNION { 0.0 } else { (shared / union).clamp(0.0, 1.0) }
}

/// Written by the ends of the intervals, as the official tool does: of heights that touch, rounding decides as it does there.
fn shared_height(a: &Box3d, b: &Box3d) -> f64 {
    let ends = |b: &Box3d| (b.center[2] - b.size[2] * 0.5, b.center[2] + b.size[2] * 0.5);
    let ((low_a, high_a), (low_b, high_b)) = (ends(a), ends(b));
    high_a.min(high_b) - low_a.max(low_b)
}
