//! The boxes that an anchor head starts from: where they stand, how another box is written relative to one, and the sectors of the
//! direction classifier. All in f32 and in the reference's order of operations.

use std::f32::consts::TAU;

use tch::Tensor;

use super::spec::AnchorHeadSpec;
use crate::voxel::Grid;

/// Values of a box: x, y, z of its middle, length, width, height, heading.
pub const BOX_VALUES: usize = 7;

/// Sizes below this are taken as this when they divide.
const MIN_SIZE_M: f32 = 1e-5;

/// The anchors of a head's map.
///
/// They are numbered row by row (y), in a row column by column (x), in a cell by class, then by heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchors {
    /// x of every column in metres, ascending (W).
    pub xs: Vec<f32>,
    /// y of every row in metres, ascending (H).
    pub ys: Vec<f32>,
    /// What stands at each cell (A).
    pub kinds: Vec<AnchorKind>,
    /// Of the direction classifier.
    pub directions: Directions,
}

/// One of the anchors that stand at each cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnchorKind {
    /// Index into the spec's classes.
    pub class_idx: usize,
    /// z of the middle in metres.
    pub z_m: f32,
    /// Length, width, height in metres.
    pub size_m: [f32; 3],
    /// From +x.
    pub heading_rad: f32,
    /// See [`super::spec::AnchorSpec::matched_iou`].
    pub matched_iou: f32,
    /// See [`super::spec::AnchorSpec::unmatched_iou`].
    pub unmatched_iou: f32,
}

impl Anchors {
    /// Lays the anchors of a head over a range: the first column stands on its lower border, the last on its upper one, and so the
    /// rows. `map_size` counts columns and rows (W, H).
    ///
    /// # Panics
    /// When `spec` names a class that is not among `classes`, which its check refuses.
    pub fn new(grid: &Grid, map_size: [usize; 2], spec: &AnchorHeadSpec, classes: &[String]) -> Self {
        let kinds = spec.anchors.iter().flat_map(|anchor| {
            let class_idx = classes.iter().position(|class| *class == anchor.class);
            let class_idx = class_idx.unwrap_or_else(|| panic!("`{}` is not one of {classes:?}", anchor.class));
            spec.rotations_rad.iter().map(move |heading| AnchorKind {
                class_idx,
                z_m: anchor.bottom_z_m + anchor.size_m[2] / 2.0,
                size_m: anchor.size_m,
                heading_rad: *heading,
                matched_iou: anchor.matched_iou,
                unmatched_iou: anchor.unmatched_iou,
            })
        });
        let directions = Directions { n_bins: spec.direction_bins, offset_rad: spec.direction_offset_rad };
        let [xs, ys] = [0, 1].map(|axis| evenly(grid.range_min[axis], grid.range_max[axis], map_size[axis]));
        Self { xs, ys, kinds: kinds.collect(), directions }
    }

    /// Number of all anchors: H W A.
    pub fn len(&self) -> usize {
        self.xs.len() * self.ys.len() * self.kinds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The box of an anchor.
    ///
    /// # Panics
    /// When there is no anchor of that number.
    pub fn row(&self, anchor: usize) -> [f32; BOX_VALUES] {
        let (cell, kind) = (anchor / self.kinds.len(), self.kinds[anchor % self.kinds.len()]);
        let (x, y) = (self.xs[cell % self.xs.len()], self.ys[cell / self.xs.len()]);
        let [length, width, height] = kind.size_m;
        [x, y, kind.z_m, length, width, height, kind.heading_rad]
    }

    /// All boxes, `[H, W, A, 7]`.
    pub fn to_tensor(&self) -> Tensor {
        let values: Vec<f32> = (0..self.len()).flat_map(|anchor| self.row(anchor)).collect();
        let [h, w, a] = [self.ys.len(), self.xs.len(), self.kinds.len()].map(|n| n as i64);
        Tensor::from_slice(&values).view([h, w, a, BOX_VALUES as i64])
    }
}

/// `n` values from `first` to `last`, as PyTorch's `arange` rounds them on a CPU: of each sixteen, eight follow a first one that is
/// rounded before; those left over are rounded once. Which of several anchors overlaps a box most is often a matter of the last bit.
fn evenly(first: f32, last: f32, n: usize) -> Vec<f32> {
    const LANES: usize = 8;
    let step = f64::from(last - first) / n.saturating_sub(1).max(1) as f64;
    let exact = |idx: usize| f64::from(first) + step * idx as f64;
    let n_in_lanes = n - n % (2 * LANES);
    let in_lanes = |idx: usize| f64::from(exact(idx - idx % LANES) as f32) + (idx % LANES) as f64 * step;
    (0..n).map(|idx| if idx < n_in_lanes { in_lanes(idx) } else { exact(idx) } as f32).collect()
}

/// A box relative to an anchor: shift of the middle in diagonals of the anchor (x, y) and in its heights (z), logarithms of the sizes'
/// ratios, difference of the headings.
pub fn encode(row: &[f32; BOX_VALUES], anchor: &[f32; BOX_VALUES]) -> [f32; BOX_VALUES] {
    let size = |of: &[f32; BOX_VALUES], axis: usize| of[3 + axis].max(MIN_SIZE_M);
    let diagonal = diagonal_of(size(anchor, 0), size(anchor, 1));
    let ratio = |axis: usize| (size(row, axis) / size(anchor, axis)).ln();
    [
        (row[0] - anchor[0]) / diagonal,
        (row[1] - anchor[1]) / diagonal,
        (row[2] - anchor[2]) / size(anchor, 2),
        ratio(0),
        ratio(1),
        ratio(2),
        row[6] - anchor[6],
    ]
}

/// The box that [`encode`] wrote.
pub fn decode(code: &[f32; BOX_VALUES], anchor: &[f32; BOX_VALUES]) -> [f32; BOX_VALUES] {
    let diagonal = diagonal_of(anchor[3], anchor[4]);
    [
        code[0] * diagonal + anchor[0],
        code[1] * diagonal + anchor[1],
        code[2] * anchor[5] + anchor[2],
        code[3].exp() * anchor[3],
        code[4].exp() * anchor[4],
        code[5].exp() * anchor[5],
        code[6] + anchor[6],
    ]
}

/// Not `hypot`, which rounds elsewhere.
fn diagonal_of(length: f32, width: f32) -> f32 {
    (length * length + width * width).sqrt()
}

/// The sectors of the direction classifier. The box's own heading is learnt up to a half turn; the sector says which half.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Directions {
    /// Sectors of the circle.
    pub n_bins: usize,
    /// Heading at which the first one begins, from +x.
    pub offset_rad: f32,
}

impl Directions {
    /// The sector of a heading.
    pub fn bin_of(&self, heading_rad: f32) -> usize {
        let turned = limit_period(heading_rad - self.offset_rad, 0.0, TAU);
        ((turned / self.sector_rad()).floor() as usize).min(self.n_bins.saturating_sub(1))
    }

    /// The heading inside a sector that differs from the given one by whole sectors.
    pub fn heading_in(&self, bin: usize, heading_rad: f32) -> f32 {
        let sector = self.sector_rad();
        limit_period(heading_rad - self.offset_rad, 0.0, sector) + self.offset_rad + sector * bin as f32
    }

    fn sector_rad(&self) -> f32 {
        (std::f64::consts::TAU / self.n_bins.max(1) as f64) as f32
    }
}

/// The value moved by whole periods into [-offset, 1 - offset) periods.
pub fn limit_period(value: f32, offset: f32, period: f32) -> f32 {
    value - (value / period + offset).floor() * period
}
