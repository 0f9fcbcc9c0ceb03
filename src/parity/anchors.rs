//! Anchor heads: what a model's golden file holds of them, and their parts on inputs of their own.

use tch::{Kind, Tensor};

use super::compare::{Limit, StageResult, compare};
use super::golden::{Companion, Golden};
use super::losses::{GRADIENT, LOSS, collecting};
use super::models::{GoldenBox, same_set};
use super::{Case, ParityError};
use crate::model::anchors::{Anchors, BOX_VALUES, Directions, decode, encode, limit_period};
use crate::postprocess::Detection;
use crate::train::anchor_loss::{AnchorLoss, AnchorLossWeights, direction_loss, focal_loss, smooth_l1};
use crate::train::anchor_targets::{AnchorTargets, match_anchors};
use crate::train::targets::TrueBox;

/// Where the first direction begins in every published configuration, to its own five digits.
#[allow(clippy::approx_constant)]
pub const DIRECTION_OFFSET_RAD: f32 = 0.785_39;
/// Of anchors in metres.
const ANCHORS: Limit = Limit::Abs(1e-5);
/// Of boxes relative to anchors.
const CODES: Limit = Limit::Abs(2e-5);
/// Of boxes made from them.
const BOXES: Limit = Limit::Each { relative: 1e-5, absolute: 1e-5 };
/// Of angles: one rounding of an angle of a few turns.
const ANGLES: Limit = Limit::Abs(1e-5);

/// `head/anchors`.
pub fn anchor_stage(golden: &Golden, anchors: &Anchors, case: &mut Case) -> Result<(), ParityError> {
    case.stages.push(golden.compare_stage("head/anchors", &anchors.to_tensor(), 1, ANCHORS)?);
    Ok(())
}

/// `eval/decode.{batch_idx}.*` against the detections of that cloud before suppression, scores to within `score_limit`.
pub fn decode_stages(
    golden: &Golden,
    batch_idx: usize,
    label: &str,
    found: &[Detection],
    score_limit: f64,
    case: &mut Case,
) -> Result<(), ParityError> {
    let key = format!("eval/decode.{batch_idx}");
    let part = |name: &str| golden.get(&format!("{key}.{name}"));
    let logits = part("cls_logits")?;
    let (best, class) = logits.max_dim(1, false);
    let scores = Vec::<f32>::try_from(best.to_kind(Kind::Double).sigmoid().to_kind(Kind::Float))?;
    let rows = Vec::<f64>::try_from(part("pred_boxes")?.to_kind(Kind::Double).reshape([-1]))?;
    let (rows, _) = rows.as_chunks::<BOX_VALUES>();
    let boxes = rows.iter().zip(scores).zip(Vec::<i64>::try_from(class)?);
    let boxes: Vec<_> = boxes.map(|((row, score), class)| GoldenBox { row: *row, score, label: class + 1 }).collect();
    case.stages.push(same_set(&format!("{label}/decode.{batch_idx}"), found, &boxes, score_limit));
    Ok(())
}

/// `targets/*` against those of the true boxes of each cloud, which it gives back.
pub fn target_stages(
    golden: &Golden,
    companion: &Companion,
    boxes: &[Vec<TrueBox>],
    anchors: &Anchors,
    case: &mut Case,
) -> Result<AnchorTargets, ParityError> {
    let targets = match_anchors(boxes, anchors);
    let name = "targets/box_cls_labels";
    let labels = golden.get(name)?;
    if labels.size() != targets.labels.size() {
        case.stages.push(compare(name, &targets.labels, labels, Limit::Exact));
        return Ok(targets);
    }
    // Anchors that rounding decides may differ: as many as the reference itself found close to a decision.
    let margins: std::collections::BTreeMap<String, i64> = companion.get(&["assign_margins"])?;
    let allowed: i64 = margins.values().sum();
    let equal = targets.labels.eq_tensor(labels);
    let n_other = equal.logical_not().sum(Kind::Int64).int64_value(&[]);
    let stage = compare(name, &targets.labels, labels, Limit::Exact);
    let limit = format!("exact but {allowed} anchors");
    case.stages.push(StageResult { within: n_other <= allowed, limit, ..stage });

    let n_anchors = anchors.len() as i64;
    let index = golden.get("targets/pos_index")?.to_kind(Kind::Int64);
    let index = index.select(1, 0) * n_anchors + index.select(1, 1);
    let dense = |index: &Tensor, boxes: &Tensor, weights: &Tensor| {
        let rows = Tensor::cat(&[boxes.shallow_clone(), weights.unsqueeze(1)], 1);
        let all = Tensor::zeros([equal.numel() as i64, BOX_VALUES as i64 + 1], (Kind::Float, rows.device()));
        all.index_copy(0, index, &rows) * equal.reshape([-1, 1])
    };
    let is_positive = targets.weights.gt(0.0).to_kind(Kind::Float);
    let ours = dense(&targets.positive, &targets.boxes, &is_positive);
    let theirs = dense(&index, golden.get("targets/pos_box_reg_targets")?, golden.get("targets/pos_reg_weights")?);
    let (first, last) = (|t: &Tensor| t.narrow(1, 0, BOX_VALUES as i64), |t: &Tensor| t.narrow(1, BOX_VALUES as i64, 1));
    case.stages.push(compare("targets/pos_box_reg_targets", &first(&ours), &first(&theirs), CODES));
    case.stages.push(compare("targets/pos_reg_weights", &last(&ours), &last(&theirs), Limit::Exact));
    Ok(targets)
}

/// `{prefix}_losses` of the companion, `train` or `train_frozenbn`, to within `relative`.
pub fn loss_stages(
    companion: &Companion,
    prefix: &str,
    loss: &AnchorLoss,
    relative: f64,
    case: &mut Case,
) -> Result<(), ParityError> {
    let weights = AnchorLossWeights::default();
    let name = format!("{prefix}_losses");
    for (key, ours) in [
        ("rpn_loss_cls", &loss.classification * weights.classification),
        ("rpn_loss_loc", &loss.regression * weights.regression),
        ("rpn_loss_dir", &loss.direction * weights.direction),
        ("loss", loss.total(&weights)),
    ] {
        let golden: f64 = companion.get(&[&name, key])?;
        let limit = Limit::Each { relative, absolute: 0.0 };
        case.stages.push(compare(&format!("{name}/{key}"), &ours.detach(), &Tensor::from(golden), limit));
    }
    Ok(())
}

/// `components/heads_losses`: boxes relative to anchors, directions, and each loss with its gradient.
pub fn component_stages(golden: &Golden, case: &mut Case) -> Result<(), ParityError> {
    coder(golden, case)?;
    for (name, offset, period) in
        [("offset0_period_2pi", 0.0, std::f32::consts::TAU), ("offset0.5_period_pi", 0.5, std::f32::consts::PI)]
    {
        let name = format!("limit_period/{name}");
        let values = Vec::<f32>::try_from(golden.get("limit_period/val")?)?;
        let ours: Vec<f32> = values.iter().map(|value| limit_period(*value, offset, period)).collect();
        case.stages.push(compare(&name, &Tensor::from_slice(&ours), golden.get(&name)?, ANGLES));
    }

    // The reference's classes weigh each anchor in all three losses.
    let weights = golden.get("sigmoid_focal/weights")?; // [B, N]
    let of_class = golden.get("sigmoid_focal/target")?.gt(0.5);
    weighted(golden, "sigmoid_focal", "logits", &weights.unsqueeze(2), |logits| focal_loss(logits, &of_class), case)?;
    let target = golden.get("smooth_l1/target")?;
    // These golden numbers alone were made with a heading that weighs twice.
    let code_weights = Tensor::from_slice(&[1f32, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
    let of_boxes = |boxes: &Tensor| smooth_l1(&((boxes - target) * &code_weights), &target.isnan());
    weighted(golden, "smooth_l1", "pred", &weights.unsqueeze(2), of_boxes, case)?;
    let direction = golden.get("dir/target")?.argmax(2, false);
    let of_directions = |logits: &Tensor| direction_loss(&logits.flatten(0, 1), &direction.flatten(0, 1));
    weighted(golden, "dir", "logits", &weights.flatten(0, 1), of_directions, case)
}

/// `coder/*` and the directions of its boxes.
fn coder(golden: &Golden, case: &mut Case) -> Result<(), ParityError> {
    let directions = Directions { n_bins: 2, offset_rad: DIRECTION_OFFSET_RAD };
    let rows = |name: &str| Ok::<_, ParityError>(Vec::<f32>::try_from(golden.get(name)?.reshape([-1]))?);
    let (anchors, boxes, codes) = (rows("coder/anchors")?, rows("coder/boxes")?, rows("coder/encoded")?);
    type Code = fn(&[f32; BOX_VALUES], &[f32; BOX_VALUES]) -> [f32; BOX_VALUES];
    let pairs = |of: &[f32], with: Code| {
        let (of, anchors) = (of.as_chunks::<BOX_VALUES>().0, anchors.as_chunks::<BOX_VALUES>().0);
        let rows: Vec<f32> = of.iter().zip(anchors).flat_map(|(row, anchor)| with(row, anchor)).collect();
        Tensor::from_slice(&rows).view([-1, BOX_VALUES as i64])
    };
    case.stages.push(compare("coder/encoded", &pairs(&boxes, encode), golden.get("coder/encoded")?, CODES));
    case.stages.push(compare("coder/decoded", &pairs(&codes, decode), golden.get("coder/decoded")?, BOXES));
    let bins = codes.as_chunks::<BOX_VALUES>().0.iter().zip(anchors.as_chunks::<BOX_VALUES>().0);
    let bins: Vec<i64> = bins.map(|(code, anchor)| directions.bin_of(code[6] + anchor[6]) as i64).collect();
    case.stages.push(compare("dir_target", &Tensor::from_slice(&bins).view([1, -1]), golden.get("dir_target")?, Limit::Exact));
    Ok(())
}

/// `{name}/loss` entry by entry, each times its weight, and the gradient of their sum.
fn weighted(
    golden: &Golden,
    name: &str,
    input: &str,
    weights: &Tensor,
    loss: impl Fn(&Tensor) -> Tensor,
    case: &mut Case,
) -> Result<(), ParityError> {
    let input = collecting(golden.get(&format!("{name}/{input}"))?);
    let loss = loss(&input) * weights;
    loss.sum(Kind::Float).backward();
    let key = format!("{name}/loss");
    case.stages.push(compare(&key, &loss.detach().flatten(0, -1), golden.get(&key)?, LOSS));
    let key = format!("{name}/grad0");
    case.stages.push(compare(&key, &input.grad(), golden.get(&key)?, GRADIENT));
    Ok(())
}
