//! Knowledge distillation between anchor heads: class logits at chosen cells of the map, boxes at the anchors that are to find an
//! object. Directions are not distilled.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::geometry::Box3d;
use crate::model::anchor_head::{AnchorMaps, at_anchors};
use crate::train::anchor_loss::box_loss;
use crate::train::anchor_targets::{AnchorTargets, BACKGROUND};
use crate::train::loss::probabilities;
use crate::train::targets::TrueBox;
use crate::train::{SettingError, rule};
use crate::voxel::Grid;

/// Keeps the division by an empty mask finite.
const MASS_EPS: f64 = 1e-6;

/// Distillation of an anchor head. The defaults are the author's for SECOND on KITTI: squared difference of probabilities at cells of
/// anchors that are to find an object, and boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnchorKd {
    /// Of the classes' term in the total loss; 15.
    pub weight: f64,
    /// What is done with a pair of values; `mse`.
    pub loss: AnchorKdLoss,
    /// Whether probabilities are compared rather than logits; true.
    pub probabilities: bool,
    /// How the true boxes choose cells; `positive`.
    pub truth: AnchorTruth,
    /// Cells where no class of any anchor of the teacher's exceeds this are left out; absent keeps all.
    pub min_confidence: Option<f64>,
    /// Whether a cell counts by the teacher's highest value there, once for each of the two choices above that is made; false.
    pub confidence_weight: bool,
    /// Of the boxes' term in the total loss; 0.2.
    pub regression_weight: f64,
}

impl Default for AnchorKd {
    fn default() -> Self {
        Self {
            weight: 15.0,
            loss: AnchorKdLoss::Mse,
            probabilities: true,
            truth: AnchorTruth::Positive,
            min_confidence: None,
            confidence_weight: false,
            regression_weight: 0.2,
        }
    }
}

/// What is done with a pair of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorKdLoss {
    /// Squared difference.
    Mse,
    /// Half of it below a difference of 1, linear beyond.
    SmoothL1,
}

/// How the true boxes choose cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnchorTruth {
    /// Not at all.
    Off,
    /// Cells with an anchor that is to find an object.
    Positive,
    /// Cells with an anchor that is not background: those that count nothing in the detection loss too.
    NotBackground,
    /// Cells inside a box, seen from above, where the teacher has features.
    InBox,
}

impl AnchorKd {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        for (key, weight) in [("anchor.weight", self.weight), ("anchor.regression_weight", self.regression_weight)] {
            rule(weight.is_finite() && weight >= 0.0, key, &weight, "must be 0 or more and finite")?;
        }
        let known = self.min_confidence.is_none_or(|confidence| confidence.is_finite());
        rule(known, "anchor.min_confidence", &self.min_confidence, "must be finite, or absent to keep all cells")
    }
}

/// The terms of distillation, each a scalar with its weight applied.
#[derive(Debug)]
pub struct AnchorKdTerms {
    /// Classes.
    pub classification: Tensor,
    /// Boxes.
    pub regression: Tensor,
}

impl AnchorKdTerms {
    /// Their sum: what distillation adds to the detection loss.
    pub fn total(&self) -> Tensor {
        &self.classification + &self.regression
    }
}

/// Distillation terms of a batch.
///
/// `targets` say which anchors are to find an object. `in_box` makes the mask `[B, H, W]` of [`AnchorTruth::InBox`] (see
/// [`cells_in_boxes`] and [`occupied_cells`]) and is called for that setting only.
///
/// # Shapes
/// - of the classes' term: the loss of each cell, summed over its anchors and classes, averaged over cells by their mask
/// - of the boxes' term: summed over the values of a box, averaged over a frame's anchors that are to find an object, then over frames
///
/// # Panics
/// As all tensor operations do, when shapes do not go together: teacher and student need maps of one size.
///
/// # Source
/// sparsekd-spec section 3.6.
pub fn anchor_kd(
    kd: &AnchorKd,
    student: &AnchorMaps,
    teacher: &AnchorMaps,
    targets: &AnchorTargets,
    in_box: &dyn Fn() -> Tensor,
) -> AnchorKdTerms {
    let of = |map: &Tensor| {
        let map = map.to_kind(Kind::Float);
        if kd.probabilities { probabilities(&map) } else { map }
    };
    let (of_student, of_teacher) = (of(&student.cls), of(&teacher.cls).detach());
    let loss = match kd.loss {
        AnchorKdLoss::Mse => (&of_student - &of_teacher).square(),
        AnchorKdLoss::SmoothL1 => of_student.smooth_l1_loss(&of_teacher, Reduction::None, 1.0),
    };
    let mask = cell_mask(kd, &of_teacher, targets, in_box); // [B, H, W]
    let classification = (loss * mask.unsqueeze(1)).sum(Kind::Float) / (mask.sum(Kind::Float) + MASS_EPS);

    let (b, _, h, w) = student.boxes.size4().unwrap_or_default();
    let anchors_per_cell = anchors_per_cell(targets, h * w);
    let at = |map: &Tensor| at_anchors(&map.to_kind(Kind::Float), anchors_per_cell as usize, &targets.positive);
    let of_boxes = box_loss(&at(&student.boxes), &at(&teacher.boxes).detach());
    let regression = (of_boxes * targets.weights.unsqueeze(1)).sum(Kind::Float) / b.max(1) as f64;
    AnchorKdTerms { classification: classification * kd.weight, regression: regression * kd.regression_weight }
}

/// How much each cell counts, `[B, H, W]`.
fn cell_mask(kd: &AnchorKd, teacher: &Tensor, targets: &AnchorTargets, in_box: &dyn Fn() -> Tensor) -> Tensor {
    let (b, _, h, w) = teacher.size4().unwrap_or_default();
    let confidence = teacher.amax([1], false);
    let labels = || targets.labels.reshape([b, h, w, -1]);
    let truth = match kd.truth {
        AnchorTruth::Off => None,
        AnchorTruth::Positive => Some(labels().gt(i64::from(BACKGROUND)).any_dim(3, false)),
        AnchorTruth::NotBackground => Some(labels().ne(i64::from(BACKGROUND)).any_dim(3, false)),
        AnchorTruth::InBox => Some(in_box()),
    };
    let confident = kd.min_confidence.map(|least| confidence.gt(least));
    let mut mask = confidence.ones_like();
    for chosen in [truth, confident].into_iter().flatten() {
        mask *= chosen.to_kind(Kind::Float);
        if kd.confidence_weight {
            mask *= &confidence;
        }
    }
    mask
}

fn anchors_per_cell(targets: &AnchorTargets, n_cells: i64) -> i64 {
    targets.labels.size().get(1).map_or(0, |n_anchors| n_anchors / n_cells.max(1))
}

/// Cells inside a box of their frame, seen from above, `[B, H, W]` bool on the CPU. A cell is where the middle of its first voxel is.
///
/// `stride` is the number of cells of the grid along one edge of a cell of the map.
pub fn cells_in_boxes(boxes: &[Vec<TrueBox>], grid: &Grid, stride: usize) -> Tensor {
    let stride = stride.max(1);
    let [w, h] = [grid.shape[0] / stride, grid.shape[1] / stride];
    let middle = |axis: usize, cell: usize| {
        let voxels = (cell * stride) as f64 + 0.5;
        voxels * f64::from(grid.voxel_size[axis]) + f64::from(grid.range_min[axis])
    };
    let middles: [Vec<f64>; 2] = [(0, w), (1, h)].map(|(axis, n)| (0..n).map(|cell| middle(axis, cell)).collect());
    let mut inside = vec![false; boxes.len() * h * w];
    for (cells, frame) in inside.chunks_exact_mut((h * w).max(1)).zip(boxes) {
        for true_box in frame {
            let box3d = Box3d::from_row(true_box.row.map(f64::from));
            let reach = box3d.size[0].hypot(box3d.size[1]) / 2.0;
            let near = |axis: usize| {
                let (low, high) = (box3d.center[axis] - reach, box3d.center[axis] + reach);
                let first = middles[axis].partition_point(|middle| *middle < low);
                first..middles[axis].partition_point(|middle| *middle <= high).max(first)
            };
            for row in near(1) {
                for col in near(0) {
                    cells[row * w + col] |= box3d.contains([middles[0][col], middles[1][row], box3d.center[2]]);
                }
            }
        }
    }
    Tensor::from_slice(&inside).view([boxes.len() as i64, h as i64, w as i64])
}

/// Cells of a map that hold a voxel, `[B, H, W]` bool.
///
/// # Shapes
/// - `coords`: `[P, 4]` i64 batch, z, y, x in cells of the grid; `map_size`: B, H, W
pub fn occupied_cells(coords: &Tensor, stride: usize, map_size: [i64; 3]) -> Tensor {
    let [_, h, w] = map_size;
    let cell = |column: i64| coords.select(1, column).divide_scalar_mode(stride.max(1) as i64, "floor");
    let flat = (coords.select(1, 0) * h + cell(2)) * w + cell(3);
    let occupied = Tensor::zeros([map_size.iter().product()], (Kind::Bool, coords.device()));
    occupied.index_fill(0, &flat, 1).view(map_size)
}
