//! Knowledge distillation on heat maps: where the student's probabilities are drawn towards the teacher's.
//!
//! Everything here takes probabilities, not logits, and differentiates through the student's map only.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::train::{SettingError, rule};

/// Keeps the division by an empty mask finite.
const MASS_EPS: f64 = 1e-6;

/// Distillation of the heat map. The defaults are the released ones for pillars: squared difference, weighted by the teacher's
/// confidence times the Gaussians of the true boxes, at the teacher's resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogitKd {
    /// Of the term in the total loss; 7, and 10 to 15 in the paper's voxel pairs.
    pub weight: f64,
    /// What is done with a pair of probabilities; `mse`.
    pub loss: HeatMapLoss,
    /// Positions where no class of the teacher exceeds this probability are left out; 0 keeps all.
    pub min_confidence: f64,
    /// Whether a position counts by the teacher's highest probability there; true.
    pub confidence_weight: bool,
    /// How the true boxes choose positions; `gaussian`.
    pub truth: TruthMask,
    /// Only the positions of the teacher's best so many entries of a sample, over all classes; absent for all positions.
    pub rank: Option<usize>,
    /// Which map is resized when the two differ in resolution.
    pub align: Align,
    /// A second term over the teacher's best entries; absent, as in the released runs.
    pub sort: Option<SortKd>,
}

impl Default for LogitKd {
    fn default() -> Self {
        Self {
            weight: 7.0,
            loss: HeatMapLoss::Mse,
            min_confidence: 0.0,
            confidence_weight: true,
            truth: TruthMask::Gaussian,
            rank: None,
            align: Align::default(),
            sort: None,
        }
    }
}

/// What is done with a pair of probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HeatMapLoss {
    /// Squared difference.
    Mse,
    /// Squared below a difference of 1, which probabilities never reach: half of `mse`.
    SmoothL1,
    /// The detection loss's focal form with the teacher as the target. It looks at all positions: no mask applies.
    Focal {
        /// The teacher's probability from which an entry is positive.
        positive_from: f64,
        /// Whether student and teacher change places.
        #[serde(default)]
        inverse: bool,
    },
}

/// How the true boxes choose positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruthMask {
    /// Not at all.
    Off,
    /// Positions inside any Gaussian count fully.
    Hard,
    /// Positions count by the highest Gaussian there.
    Gaussian,
}

/// Which map is resized when teacher and student differ in resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Align {
    /// The size that both have afterwards; `teacher`. The true boxes' heat map is drawn at this size.
    pub to: AlignTo,
    /// How; `bilinear`.
    pub mode: Interpolation,
}

impl Default for Align {
    fn default() -> Self {
        Self { to: AlignTo::Teacher, mode: Interpolation::Bilinear }
    }
}

/// Whose size is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlignTo {
    /// The student's map is resized.
    Teacher,
    /// The teacher's map is resized.
    Student,
}

/// Ways of resizing. Cells are areas, not points: source = (target + 0.5) * scale - 0.5 (`align_corners` false). The paper's
/// configurations ask for aligned corners, but its code never passes that on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Of the four nearest cells.
    Bilinear,
    /// The cell that contains the target's upper left corner.
    Nearest,
    /// Of 16 cells; overshoots.
    Bicubic,
    /// Mean over the cells that the target covers.
    Area,
}

/// Cross-entropy between the normalised probabilities at the teacher's best entries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKd {
    /// Of the term in the total loss.
    pub weight: f64,
    /// Entries of each sample, over all classes.
    pub rank: usize,
}

impl LogitKd {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let is_weight = |weight: f64| weight.is_finite() && weight >= 0.0;
        rule(is_weight(self.weight), "logit.weight", &self.weight, "must be 0 or more and finite")?;
        rule((0.0..1.0).contains(&self.min_confidence), "logit.min_confidence", &self.min_confidence, "must be in [0, 1)")?;
        if let HeatMapLoss::Focal { positive_from, .. } = self.loss {
            let inside = positive_from > 0.0 && positive_from < 1.0;
            rule(inside, "logit.loss.focal.positive_from", &positive_from, "must be in (0, 1)")?;
        }
        rule(self.rank != Some(0), "logit.rank", &self.rank, "must be at least 1, or absent for all positions")?;
        if let Some(SortKd { weight, rank }) = self.sort {
            rule(is_weight(weight), "logit.sort.weight", &weight, "must be 0 or more and finite")?;
            rule(rank > 0, "logit.sort.rank", &rank, "must be at least 1")?;
        }
        Ok(())
    }
}

/// The distillation term of the heat map, without its weight: the loss of each position, summed over classes, averaged over
/// positions by their mask. The mass of the mask divides, not the number of classes.
///
/// # Shapes
/// - `student`: `[B, K, H, W]`, `teacher`: `[B, K, H', W']`, probabilities
/// - `truth`: `[B, K, ..]` target heat map at the size that `align` keeps
/// - out: a scalar
///
/// # Source
/// sparsekd-spec section 3.2.
pub fn heat_map_kd(student: &Tensor, teacher: &Tensor, truth: &Tensor, kd: &LogitKd) -> Tensor {
    let (student, teacher) = aligned(student, teacher, kd.align);
    let loss = match kd.loss {
        HeatMapLoss::Mse => (&student - &teacher).square(),
        HeatMapLoss::SmoothL1 => student.smooth_l1_loss(&teacher, Reduction::None, 1.0),
        HeatMapLoss::Focal { positive_from, inverse: false } => return focal(&student, &teacher, positive_from),
        HeatMapLoss::Focal { positive_from, inverse: true } => return focal(&teacher, &student, positive_from),
    };
    let mask = position_mask(&teacher, truth, kd); // [B, H, W]
    (loss * mask.unsqueeze(1)).sum(Kind::Float) / (mask.sum(Kind::Float) + MASS_EPS)
}

/// Draws the student's distribution over the teacher's best entries towards the teacher's, without its weight.
///
/// # Shapes
/// As [`heat_map_kd`].
///
/// # Source
/// sparsekd-spec section 3.2, `HM_SORT_LOSS`.
pub fn sort_kd(student: &Tensor, teacher: &Tensor, align: Align, kd: &SortKd) -> Tensor {
    let (student, teacher) = aligned(student, teacher, align);
    let (best, entry) = best_entries(&teacher, kd.rank); // [B, rank] each
    let of_student = student.flatten(1, -1).gather(1, &entry, false);
    let share = |values: &Tensor| values / (values.sum_dim_intlist([1].as_slice(), true, Kind::Float) + MASS_EPS);
    -(share(&best) * share(&of_student).log()).mean(Kind::Float)
}

/// Both maps at the size that `align` keeps.
pub fn aligned(student: &Tensor, teacher: &Tensor, align: Align) -> (Tensor, Tensor) {
    match align.to {
        AlignTo::Teacher => (resized(student, teacher, align.mode), teacher.shallow_clone()),
        AlignTo::Student => (student.shallow_clone(), resized(teacher, student, align.mode)),
    }
}

/// `map` with the rows and columns of `like`.
fn resized(map: &Tensor, like: &Tensor, mode: Interpolation) -> Tensor {
    let size = &like.size()[2..];
    if map.size()[2..] == *size {
        return map.shallow_clone();
    }
    match mode {
        Interpolation::Bilinear => map.upsample_bilinear2d(size, false, None, None),
        Interpolation::Nearest => map.upsample_nearest2d(size, None, None),
        Interpolation::Bicubic => map.upsample_bicubic2d(size, false, None, None),
        Interpolation::Area => map.adaptive_avg_pool2d(size),
    }
}

/// How much each position counts, `[B, H, W]`: the product of all factors that are switched on.
fn position_mask(teacher: &Tensor, truth: &Tensor, kd: &LogitKd) -> Tensor {
    let confidence = teacher.amax([1], false);
    let mut mask = confidence.gt(kd.min_confidence).to_kind(Kind::Float);
    if kd.confidence_weight {
        mask *= &confidence;
    }
    match kd.truth {
        TruthMask::Off => {}
        TruthMask::Hard => mask *= truth.amax([1], false).gt(0.0).to_kind(Kind::Float),
        TruthMask::Gaussian => mask *= truth.amax([1], false),
    }
    match kd.rank {
        Some(rank) => mask * rank_mask(teacher, rank),
        None => mask,
    }
}

/// 1 at the positions of the best entries of each sample, `[B, H, W]`.
pub fn rank_mask(teacher: &Tensor, rank: usize) -> Tensor {
    let (b, _, h, w) = teacher.size4().unwrap_or_default();
    let (_, entry) = best_entries(teacher, rank);
    let position = entry.remainder(h * w);
    Tensor::zeros([b, h * w], (Kind::Float, teacher.device())).scatter_value(1, &position, 1.0).view([b, h, w])
}

/// Values and flat indices (class-major) of the best entries of each sample, `[B, rank]`. The paper takes the best of each class
/// and then the best of those; the overall best are the same set.
fn best_entries(map: &Tensor, rank: usize) -> (Tensor, Tensor) {
    let flat = map.flatten(1, -1);
    let n = (rank as i64).min(flat.size()[1]);
    flat.topk(n, 1, true, true)
}

/// The focal loss of centre heads with a soft target, averaged over the positives; only summed when there is none.
fn focal(predicted: &Tensor, target: &Tensor, positive_from: f64) -> Tensor {
    let positive = target.ge(positive_from).to_kind(Kind::Float);
    let negative: Tensor = 1.0 - &positive;
    let missed: Tensor = 1.0 - predicted;
    let far: Tensor = 1.0 - target;
    let of_positives = predicted.log() * missed.square() * &positive;
    let of_negatives = missed.log() * predicted.square() * far.square().square() * negative;
    let count = positive.sum(Kind::Float).clamp_min(1.0);
    -(of_positives.sum(Kind::Float) + of_negatives.sum(Kind::Float)) / count
}
