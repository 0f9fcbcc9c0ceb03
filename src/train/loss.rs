//! How far the head's maps are from their targets (sparsekd-spec section 2.6).

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::targets::Targets;
use super::{SettingError, rule};

/// Probabilities are kept this far from 0 and 1, so that their logarithms stay small.
const PROBABILITY_MARGIN: f64 = 1e-4;

/// Heat map probabilities as every loss takes them: kept off 0 and 1 (decoding takes the plain sigmoid).
pub fn probabilities(logits: &Tensor) -> Tensor {
    logits.sigmoid().clamp(PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN)
}

/// Both parts of the detection loss, unweighted scalars.
#[derive(Debug)]
pub struct DetectionLoss {
    /// Focal loss of the heat map.
    pub heat_map: Tensor,
    /// L1 of the boxes, summed over the eight values of a box.
    pub regression: Tensor,
}

/// Weights of the parts in the sum that is minimised. The defaults are those of every published configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// Of the heat map; 1.
    pub heat_map: f64,
    /// Of the boxes; 2.
    pub regression: f64,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self { heat_map: 1.0, regression: 2.0 }
    }
}

impl LossWeights {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        for (key, weight) in [("heat_map", self.heat_map), ("regression", self.regression)] {
            rule(weight.is_finite() && weight >= 0.0, key, &weight, "must be 0 or more and finite")?;
        }
        Ok(())
    }
}

impl DetectionLoss {
    /// The weighted sum, a scalar.
    pub fn total(&self, weights: &LossWeights) -> Tensor {
        &self.heat_map * weights.heat_map + &self.regression * weights.regression
    }
}

/// The detection loss of a batch.
///
/// # Shapes
/// - `probabilities`: `[B, K, H, W]` of [`probabilities`]; `regression`: `[B, 8, H, W]`
pub fn detection_loss(probabilities: &Tensor, regression: &Tensor, targets: &Targets) -> DetectionLoss {
    DetectionLoss {
        heat_map: focal_loss(probabilities, &targets.heat_map),
        regression: box_loss(regression, &targets.boxes, &targets.index, &targets.mask).sum(regression.kind()),
    }
}

/// Focal loss of a heat map over the number of objects' cells in the batch; undivided when there is none.
///
/// Cells of objects count (1 - p)^2 log p; all others count (1 - target)^4 p^2 log(1 - p), so that those near an object cost less.
///
/// # Shapes
/// - `probabilities`, `target`: `[B, K, H, W]`, probabilities inside (0, 1)
/// - out: scalar
pub fn focal_loss(probabilities: &Tensor, target: &Tensor) -> Tensor {
    let kind = probabilities.kind();
    let at_object = target.eq(1.0).to_kind(kind);
    let missed: Tensor = 1.0 - probabilities;
    let positive = probabilities.log() * missed.square() * &at_object;
    // (1 - target)^4 is zero at the objects themselves.
    let negative = missed.log() * probabilities.square() * (target - 1.0).square().square();
    let n_objects = at_object.sum(kind).clamp_min(1.0);
    -(positive + negative).sum(kind) / n_objects
}

/// L1 distance of predicted from true boxes at the objects' cells, over the number of objects in the batch.
///
/// Targets that are not a number count nothing.
///
/// # Shapes
/// - `map`: `[B, C, H, W]`; `boxes`: `[B, M, C]`; `index`: `[B, M]` i64 into H W; `mask`: `[B, M]`
/// - out: `[C]`
pub fn box_loss(map: &Tensor, boxes: &Tensor, index: &Tensor, mask: &Tensor) -> Tensor {
    let kind = map.kind();
    let mask = mask.to_kind(kind);
    let n_objects = mask.sum(kind).clamp_min(1.0);
    let difference = (at_cells(map, index) - boxes).abs() * mask.unsqueeze(2);
    difference.masked_fill(&boxes.isnan(), 0.0).sum_dim_intlist([0, 1].as_slice(), false, kind) / n_objects
}

/// Values of a map at some cells.
///
/// # Shapes
/// - `map`: `[B, C, H, W]`; `index`: `[B, M]` i64 into H W
/// - out: `[B, M, C]`
pub fn at_cells(map: &Tensor, index: &Tensor) -> Tensor {
    let channels = map.size().get(1).copied().unwrap_or(0);
    let index = index.unsqueeze(1).expand([-1, channels, -1], false);
    map.flatten(2, 3).gather(2, &index, false).transpose(1, 2)
}
