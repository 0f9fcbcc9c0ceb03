//! How far an anchor head's maps are from their targets (sparsekd-spec section 2.8).

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::anchor_targets::AnchorTargets;
use super::{SettingError, rule};
use crate::model::anchor_head::{AnchorMaps, at_anchors};

/// Share of what an anchor that is to find an object counts in the focal loss; background counts the rest.
const OBJECT_SHARE: f64 = 0.25;
/// Difference of box values from which on the loss grows linearly.
const LINEAR_FROM: f64 = 1.0 / 9.0;

/// The parts of the detection loss, unweighted scalars.
#[derive(Debug)]
pub struct AnchorLoss {
    /// Focal loss of the classes.
    pub classification: Tensor,
    /// Smooth L1 of the boxes.
    pub regression: Tensor,
    /// Cross-entropy of the directions.
    pub direction: Tensor,
}

/// Weights of the parts in the sum that is minimised. The defaults are those of every published configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnchorLossWeights {
    /// Of the classes; 1.
    pub classification: f64,
    /// Of the boxes; 2.
    pub regression: f64,
    /// Of the directions; 0.2.
    pub direction: f64,
}

impl Default for AnchorLossWeights {
    fn default() -> Self {
        Self { classification: 1.0, regression: 2.0, direction: 0.2 }
    }
}

impl AnchorLossWeights {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let Self { classification, regression, direction } = *self;
        for (key, weight) in [("classification", classification), ("regression", regression), ("direction", direction)] {
            rule(weight.is_finite() && weight >= 0.0, key, &weight, "must be 0 or more and finite")?;
        }
        Ok(())
    }
}

impl AnchorLoss {
    /// The weighted sum, a scalar.
    pub fn total(&self, weights: &AnchorLossWeights) -> Tensor {
        &self.classification * weights.classification
            + &self.regression * weights.regression
            + &self.direction * weights.direction
    }
}

/// The detection loss of a batch: each part summed over a frame's anchors, divided by the number of those that are to find an object,
/// and averaged over the frames.
///
/// # Panics
/// As all tensor operations do, when shapes do not go together.
pub fn anchor_loss(maps: &AnchorMaps, targets: &AnchorTargets, n_classes: usize) -> AnchorLoss {
    let (b, channels, h, w) = maps.cls.size4().unwrap_or_default();
    let k = n_classes as i64;
    let a = channels / k;
    // The labels are brought into the order of the map, not the map into that of the labels: they are many times smaller.
    let logits = maps.cls.to_kind(Kind::Float).reshape([b, a, k, h, w]);
    let labels = targets.labels.reshape([b, h, w, a]).permute([0, 3, 1, 2]).unsqueeze(2); // [B, A, 1, H, W]
    let classes = Tensor::arange_start(1, k + 1, (labels.kind(), labels.device())).view([1, 1, k, 1, 1]);
    let counts = labels.ge(0).to_kind(Kind::Float) * targets.frame_weights.view([b, 1, 1, 1, 1]);
    let classification = (focal_loss(&logits, &labels.eq_tensor(&classes)) * counts).sum(Kind::Float);

    let at = |map: &Tensor| at_anchors(&map.to_kind(Kind::Float), a as usize, &targets.positive);
    let of_boxes = box_loss(&at(&maps.boxes), &targets.boxes).sum_dim_intlist([1].as_slice(), false, Kind::Float); // [n]
    let of_directions = direction_loss(&at(&maps.direction), &targets.direction); // [n]
    let mean = |sum: Tensor| sum / b.max(1) as f64;
    AnchorLoss {
        classification: mean(classification),
        regression: mean((of_boxes * &targets.weights).sum(Kind::Float)),
        direction: mean((of_directions * &targets.weights).sum(Kind::Float)),
    }
}

/// Focal loss of logits, entry by entry: share * (1 - q)^2 * -log q, where q is the probability given to the truth.
///
/// # Shapes
/// - `logits`: any; `is_object`: the same, true where the class is there
pub fn focal_loss(logits: &Tensor, is_object: &Tensor) -> Tensor {
    let truth = is_object.to_kind(Kind::Float);
    let share = &truth * (2.0 * OBJECT_SHARE - 1.0) + (1.0 - OBJECT_SHARE);
    let against = logits * (truth * -2.0 + 1.0); // the logit of what is not true
    against.sigmoid().square() * against.softplus() * share
}

/// Smooth L1 of box values, entry by entry. Headings differ by the sine of their difference: half a turn is the direction's part.
/// Targets that are not a number count nothing.
///
/// # Shapes
/// - `boxes`, `target`: `[n, 7]`
pub fn box_loss(boxes: &Tensor, target: &Tensor) -> Tensor {
    let difference = boxes - target;
    let parts = [difference.narrow(1, 0, 6), difference.narrow(1, 6, 1).sin()];
    smooth_l1(&Tensor::cat(&parts, 1), &target.isnan())
}

/// Smooth L1 of differences, entry by entry; 0 where `is_left_out`, which has the shape of `difference`.
pub fn smooth_l1(difference: &Tensor, is_left_out: &Tensor) -> Tensor {
    let kept = difference.masked_fill(is_left_out, 0.0);
    kept.smooth_l1_loss(&kept.zeros_like(), Reduction::None, LINEAR_FROM)
}

/// Cross-entropy of logits, one value each.
///
/// # Shapes
/// - `logits`: `[n, D]`; `direction`: `[n]` i64
/// - out: `[n]`
pub fn direction_loss(logits: &Tensor, direction: &Tensor) -> Tensor {
    logits.cross_entropy_loss(direction, None::<&Tensor>, Reduction::None, -100, 0.0)
}
