//! What an anchor head should say about a frame: which anchors are to find which object, and the object's box relative to them
//! (sparsekd-spec section 2.8).
//!
//! Anchors and boxes are compared from above, each box turned onto the nearer axis. Only anchors that touch a box are looked at.

use std::f32::consts::{FRAC_PI_4, PI};
use std::ops::Range;

use tch::{Device, Tensor};

use super::targets::TrueBox;
use crate::model::anchors::{Anchors, BOX_VALUES, encode, limit_period};

/// Label of an anchor that counts nothing.
pub const IGNORED: i8 = -1;
/// Label of an anchor that stands on background. Class k has label k + 1.
pub const BACKGROUND: i8 = 0;

/// Joint areas below this, in square metres, are taken as this.
const MIN_UNION_M2: f32 = 1e-6;

/// Targets of a batch of B frames with N anchors each; n anchors in all are to find an object.
#[derive(Debug)]
pub struct AnchorTargets {
    /// `[B, N]` i8: [`IGNORED`], [`BACKGROUND`], or class + 1. Anchors are numbered as [`Anchors`] says.
    pub labels: Tensor,
    /// `[B]` f32: one over the number of each frame's anchors that are to find an object, at most 1.
    pub frame_weights: Tensor,
    /// `[n]` i64, ascending: those anchors, into B N.
    pub positive: Tensor,
    /// `[n, 7]` f32: the object's box, as [`encode`] writes it.
    pub boxes: Tensor,
    /// `[n]` i64: the sector of the object's heading.
    pub direction: Tensor,
    /// `[n]` f32: `frame_weights` of its frame.
    pub weights: Tensor,
}

impl AnchorTargets {
    /// The same on a device.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            labels: self.labels.to_device(device),
            frame_weights: self.frame_weights.to_device(device),
            positive: self.positive.to_device(device),
            boxes: self.boxes.to_device(device),
            direction: self.direction.to_device(device),
            weights: self.weights.to_device(device),
        }
    }
}

/// Matches anchors with the boxes of each frame, on the CPU.
///
/// An anchor belongs to the box of its class that it overlaps most, the first of equal ones. It is to find it where the overlap
/// reaches `matched_iou`, and also, however small the overlap is, where no anchor of the class overlaps some box more. Boxes with a
/// value that is not finite, or without a positive length and width, match nothing.
///
/// # Panics
/// When a box has a class that no anchor has.
pub fn match_anchors(boxes: &[Vec<TrueBox>], anchors: &Anchors) -> AnchorTargets {
    let n_anchors = anchors.len();
    let mut labels = vec![BACKGROUND; boxes.len() * n_anchors];
    let (mut frame_weights, mut weights) = (Vec::new(), Vec::new());
    let (mut positive, mut codes, mut direction) = (Vec::new(), Vec::new(), Vec::new());
    for (frame_idx, frame) in boxes.iter().enumerate() {
        let start = frame_idx * n_anchors;
        let matches = match_frame(frame, anchors);
        for ignored in &matches.ignored {
            labels[start + ignored] = IGNORED;
        }
        let weight = 1.0 / matches.positive.len().max(1) as f32;
        frame_weights.push(weight);
        for (anchor, true_box) in matches.positive {
            labels[start + anchor] = true_box.class_idx as i8 + 1;
            positive.push((start + anchor) as i64);
            let row = anchors.row(anchor);
            let code = encode(&true_box.row, &row);
            codes.extend(code);
            direction.push(anchors.directions.bin_of(code[6] + row[6]) as i64);
            weights.push(weight);
        }
    }
    AnchorTargets {
        labels: Tensor::from_slice(&labels).view([boxes.len() as i64, n_anchors as i64]),
        frame_weights: Tensor::from_slice(&frame_weights),
        positive: Tensor::from_slice(&positive),
        boxes: Tensor::from_slice(&codes).view([-1, BOX_VALUES as i64]),
        direction: Tensor::from_slice(&direction),
        weights: Tensor::from_slice(&weights),
    }
}

/// What is not background in a frame.
struct Matches<'a> {
    /// Ascending.
    positive: Vec<(usize, &'a TrueBox)>,
    ignored: Vec<usize>,
}

fn match_frame<'a>(frame: &'a [TrueBox], anchors: &Anchors) -> Matches<'a> {
    let mut matches = Matches { positive: Vec::new(), ignored: Vec::new() };
    let n_classes = anchors.kinds.iter().map(|kind| kind.class_idx + 1).max().unwrap_or(0);
    let unknown = frame.iter().map(|true_box| true_box.class_idx).find(|class_idx| *class_idx >= n_classes);
    assert!(unknown.is_none(), "class {unknown:?} of {n_classes}");
    for class_idx in 0..n_classes {
        let of_class = frame.iter().filter(|true_box| true_box.class_idx == class_idx);
        let known: Vec<(&TrueBox, Flat)> = of_class.filter_map(|b| Some((b, Flat::of(&b.row)?))).collect();
        for (anchor, is_best) in candidates(&known, anchors, class_idx) {
            let Some(flat) = Flat::of(&anchors.row(anchor)) else { continue };
            let kind = &anchors.kinds[anchor % anchors.kinds.len()];
            let Some((iou, true_box)) = most_overlapped(&flat, &known) else { continue };
            if is_best || iou >= kind.matched_iou {
                matches.positive.push((anchor, true_box));
            } else {
                matches.ignored.push(anchor);
            }
        }
    }
    matches.positive.sort_unstable_by_key(|(anchor, _)| *anchor);
    matches
}

/// The box that an anchor overlaps most, and by how much; the first of equal ones.
fn most_overlapped<'a>(anchor: &Flat, boxes: &[(&'a TrueBox, Flat)]) -> Option<(f32, &'a TrueBox)> {
    let ious = boxes.iter().map(|(true_box, flat)| (anchor.iou(flat), *true_box));
    ious.reduce(|best, other| if other.0 > best.0 { other } else { best })
}

/// Anchors of a class that are not background, ascending, and whether no other overlaps some box more.
fn candidates(boxes: &[(&TrueBox, Flat)], anchors: &Anchors, class_idx: usize) -> Vec<(usize, bool)> {
    let mut found: Vec<(usize, bool)> = Vec::new();
    let mut near: Vec<(usize, f32)> = Vec::new();
    for (_, flat) in boxes {
        near.clear();
        overlapping(flat, anchors, class_idx, &mut near);
        let highest = near.iter().map(|(_, iou)| *iou).fold(0.0, f32::max);
        let unmatched = |anchor: usize| anchors.kinds[anchor % anchors.kinds.len()].unmatched_iou;
        found.extend(near.iter().filter_map(|&(anchor, iou)| {
            let is_best = iou > 0.0 && iou == highest;
            (is_best || iou >= unmatched(anchor)).then_some((anchor, is_best))
        }));
    }
    // Of an anchor that several boxes named, one that it is best for comes first.
    found.sort_unstable_by_key(|&(anchor, is_best)| (anchor, !is_best));
    found.dedup_by_key(|(anchor, _)| *anchor);
    found
}

/// Anchors of a class whose rectangle meets that of a box, with the overlap.
fn overlapping(flat: &Flat, anchors: &Anchors, class_idx: usize, near: &mut Vec<(usize, f32)>) {
    let n_kinds = anchors.kinds.len();
    for (kind_idx, kind) in anchors.kinds.iter().enumerate().filter(|(_, kind)| kind.class_idx == class_idx) {
        let extent = extent_of(kind.size_m[0], kind.size_m[1], kind.heading_rad);
        let cols = meeting(&anchors.xs, extent[0], flat.low[0], flat.high[0]);
        for row in meeting(&anchors.ys, extent[1], flat.low[1], flat.high[1]) {
            near.extend(cols.clone().map(|col| {
                let anchor = Flat::upright([anchors.xs[col], anchors.ys[row]], extent);
                ((row * anchors.xs.len() + col) * n_kinds + kind_idx, anchor.iou(flat))
            }));
        }
    }
}

/// Positions of the ascending middles whose span of that extent meets [low, high].
fn meeting(middles: &[f32], extent: f32, low: f32, high: f32) -> Range<usize> {
    let first = middles.partition_point(|middle| middle + extent / 2.0 < low);
    let end = middles.partition_point(|middle| middle - extent / 2.0 <= high);
    first..end.max(first)
}

/// A rectangle along the axes.
#[derive(Debug, Clone, Copy)]
struct Flat {
    low: [f32; 2],
    high: [f32; 2],
    area: f32,
}

impl Flat {
    /// Of a box seen from above and turned onto the nearer axis; `None` when it has no area or is nowhere.
    fn of(row: &[f32; BOX_VALUES]) -> Option<Self> {
        let real = row.iter().all(|value| value.is_finite()) && row[3] > 0.0 && row[4] > 0.0;
        real.then(|| Self::upright([row[0], row[1]], extent_of(row[3], row[4], row[6])))
    }

    fn upright(middle: [f32; 2], extent: [f32; 2]) -> Self {
        let [low, high] = [-0.5, 0.5].map(|half| [0, 1].map(|axis| middle[axis] + half * extent[axis]));
        Self { low, high, area: (high[0] - low[0]) * (high[1] - low[1]) }
    }

    /// Shared over joint area, in f32 and in the reference's order of operations.
    fn iou(&self, other: &Self) -> f32 {
        let [width, height] =
            [0, 1].map(|axis| (self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis])).max(0.0));
        let shared = width * height;
        shared / (self.area + other.area - shared).max(MIN_UNION_M2)
    }
}

/// Extents along x and y of a rectangle turned onto the nearer axis.
fn extent_of(length: f32, width: f32, heading_rad: f32) -> [f32; 2] {
    if limit_period(heading_rad, 0.5, PI).abs() < FRAC_PI_4 { [length, width] } else { [width, length] }
}

/// Overlap of two boxes `[x, y, z, dx, dy, dz, heading]` seen from above, each turned onto the nearer axis; 0 for boxes without area.
pub fn nearest_bev_iou(a: &[f32; BOX_VALUES], b: &[f32; BOX_VALUES]) -> f32 {
    match (Flat::of(a), Flat::of(b)) {
        (Some(a), Some(b)) => a.iou(&b),
        _ => 0.0,
    }
}
