//! Targets, losses and gradients of a training step, with batch statistics and with all norms in evaluation mode.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::compare::{Limit, StageResult, compare, exact, worst};
use super::golden::{Companion, Golden};
use super::{Case, ParityError};
use crate::model::center_head::HeadMaps;
use crate::model::layers::Mode;
use crate::model::spec::ModelSpec;
use crate::train::loss::{LossWeights, detection_loss, probabilities};
use crate::train::targets::{TargetSettings, Targets, TrueBox, draw_targets};

/// What a step in one mode may be off by.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Of its batch norms.
    pub mode: Mode,
    /// Of the name of every tensor and key.
    prefix: &'static str,
    /// Of losses, relative.
    loss: f64,
    /// Of each gradient, relative, by Euclidean length.
    gradient: f64,
    /// Of the lengths of gradients, relative.
    length: f64,
    /// Of the median over the gradients that are stored whole.
    median: f64,
}

pub const FROZEN: Limits =
    Limits { mode: Mode::Eval, prefix: "train_frozenbn", loss: 1e-5, gradient: 2e-2, length: 2e-2, median: 1e-4 };
/// The fast pass sums in another order, so a few more ReLUs flip where an activation is within rounding of zero.
pub const FAST_FROZEN: Limits = Limits { median: 1e-3, ..FROZEN };
pub const TRAIN: Limits = Limits { mode: Mode::Train, prefix: "train", loss: 2e-4, gradient: 0.15, length: 0.05, median: 0.15 };
/// Of the gradient of a bias in front of a norm with batch statistics, of the length over all weights: truly it is zero.
const BIAS_BEFORE_NORM: f64 = 1e-5;
/// Gradients shorter than this share of the length over all weights are held to that length: some are sums that cancel.
const NEGLIGIBLE: f64 = 1e-6;
const HEAT_MAP: Limit = Limit::Abs(1e-6);
const TARGET_BOXES: Limit = Limit::Abs(2e-5);

/// Boxes of a batch from rows `[x, y, z, dx, dy, dz, heading, class]` padded with zeros; classes count from 1.
pub fn true_boxes(golden: &Golden, name: &str) -> Result<Vec<Vec<TrueBox>>, ParityError> {
    let rows = golden.get(name)?;
    let &[n_frames, _, 8] = rows.size().as_slice() else {
        return Err(golden.content_error(name, "is not of shape [B, M, 8]"));
    };
    let to_boxes = |frame_idx| {
        let rows = Vec::<f32>::try_from(rows.select(0, frame_idx).to_kind(Kind::Float).reshape([-1]))?;
        let (rows, _) = rows.as_chunks::<8>();
        let real = rows.iter().filter(|row| row[7] >= 1.0);
        Ok(real
            .map(|&[x, y, z, dx, dy, dz, yaw, class]| TrueBox { row: [x, y, z, dx, dy, dz, yaw], class_idx: class as usize - 1 })
            .collect())
    };
    (0..n_frames).map(to_boxes).collect()
}

/// Targets for the boxes of a file, none of a class the spec lacks.
pub fn draw(golden: &Golden, boxes: &str, spec: &ModelSpec) -> Result<Targets, ParityError> {
    let frames = true_boxes(golden, boxes)?;
    let n_classes = spec.classes.len();
    if frames.iter().flatten().any(|true_box| true_box.class_idx >= n_classes) {
        return Err(golden.content_error(boxes, "holds a class the model does not have"));
    }
    Ok(draw_targets(&frames, &spec.grid(), spec.network.stride(), n_classes, &TargetSettings::default()))
}

/// Compares targets with `{prefix}heatmaps`, `target_boxes`, `inds`, `masks`.
pub fn target_stages(golden: &Golden, targets: &Targets, case: &mut Case) -> Result<(), ParityError> {
    case.stages.push(compare("targets/heatmaps", &targets.heat_map, golden.get("targets/heatmaps")?, HEAT_MAP));
    for (name, ours, limit) in [
        ("targets/target_boxes", &targets.boxes, TARGET_BOXES),
        ("targets/inds", &targets.index, Limit::Exact),
        ("targets/masks", &targets.mask, Limit::Exact),
    ] {
        let golden = golden.get(name)?;
        let n_rows = golden.size().get(1).copied().unwrap_or(0);
        case.stages.push(compare(name, &first_rows(ours, n_rows), golden, limit));
    }
    Ok(())
}

/// The first rows of axis 1, zeros where there are fewer.
fn first_rows(tensor: &Tensor, n_rows: i64) -> Tensor {
    let there = tensor.size()[1].min(n_rows);
    let mut shape = tensor.size();
    shape[1] = n_rows - there;
    Tensor::cat(&[tensor.narrow(1, 0, there), Tensor::zeros(shape, (tensor.kind(), tensor.device()))], 1)
}

/// Loss and gradients of a forward pass that was run in the mode of `limits` with weights that collect gradients; it comes with the way
/// back from a loss over its maps.
pub fn step_stages(
    golden: &Golden,
    companion: &Companion,
    (head, backward): (&HeadMaps, &dyn Fn(&Tensor)),
    targets: &Targets,
    params: &mut [(String, Tensor)],
    limits: &Limits,
    case: &mut Case,
) -> Result<(), ParityError> {
    for (_, weight) in params.iter_mut() {
        weight.zero_grad();
    }
    let weights = LossWeights::default();
    let loss = detection_loss(&probabilities(&head.heat_map), &head.regression, targets);
    let total = loss.total(&weights);
    backward(&total);
    for (key, ours) in [
        ("hm_loss_head_0", loss.heat_map * weights.heat_map),
        ("loc_loss_head_0", loss.regression * weights.regression),
        ("loss", total),
    ] {
        let name = format!("{}_losses", limits.prefix);
        let golden: f64 = companion.get(&[&name, key])?;
        let limit = Limit::Each { relative: limits.loss, absolute: 0.0 };
        case.stages.push(compare(&format!("{name}/{key}"), &ours.detach(), &Tensor::from(golden), limit));
    }
    gradient_stages(golden, companion, params, limits, case)
}

/// Gradients in f64, by name.
type Gradients<'a> = BTreeMap<&'a str, Tensor>;

fn gradient_stages(
    golden: &Golden,
    companion: &Companion,
    params: &[(String, Tensor)],
    limits: &Limits,
    case: &mut Case,
) -> Result<(), ParityError> {
    let prefix = limits.prefix;
    let order: Vec<String> = companion.get(&["param_order"])?;
    let ours: Vec<&String> = params.iter().map(|(name, _)| name).collect();
    case.stages.push(exact(&format!("{prefix}/param_order"), &ours, &order.iter().collect()));
    let gradients: Gradients<'_> = params
        .iter()
        .map(|(name, weight)| {
            let gradient = weight.grad();
            let gradient = if gradient.defined() {
                gradient.to_kind(Kind::Double)
            } else {
                weight.detach().to_kind(Kind::Double).zeros_like()
            };
            (name.as_str(), gradient)
        })
        .collect();
    let total_key = format!("{prefix}_grad_total_norm");
    let golden_total: f64 = companion.get(&[&total_key])?;
    let total = gradients.values().map(|gradient| length(gradient).powi(2)).sum::<f64>().sqrt();
    let limit = Limit::Each { relative: limits.length, absolute: 0.0 };
    case.stages.push(compare(&total_key, &Tensor::from(total), &Tensor::from(golden_total), limit));

    let before_norm = |name: &str| limits.mode == Mode::Train && is_bias_before_norm(name, &gradients);
    let cancelled = gradients.iter().filter(|(name, _)| before_norm(name));
    let cancelled = cancelled.map(|(name, gradient)| (*name, length(gradient), length(gradient) / golden_total));
    case.stages.push(worst(&format!("{prefix}/grad of biases before norms"), "of total", BIAS_BEFORE_NORM, cancelled));

    statistics_stages(golden, &order, &gradients, &before_norm, golden_total, limits, case)?;
    let whole_prefix = format!("{prefix}/grad/");
    let mut errors = Vec::new();
    for (key, golden) in golden.starting_with(&whole_prefix) {
        let name = &key[whole_prefix.len()..];
        let Some(gradient) = gradients.get(name) else {
            case.stages.push(StageResult::mismatch(key, "a weight of the network", format!("there is no weight `{name}`")));
            continue;
        };
        if gradient.size() != golden.size() {
            case.stages.push(compare(key, gradient, golden, Limit::Exact));
        } else if !before_norm(name) {
            let error = length(&(gradient - golden)) / length(golden).max(NEGLIGIBLE * golden_total);
            errors.push(error);
            let measured = (name, (gradient - golden).abs().max().double_value(&[]), error);
            case.stages.push(worst(key, "of length", limits.gradient, [measured]));
        }
    }
    errors.sort_by(f64::total_cmp);
    let Some(median) = errors.get(errors.len() / 2) else {
        return Err(golden.content_error(&whole_prefix, "holds no complete gradient"));
    };
    case.stages.push(worst(&format!("{prefix}/grad median"), "of length", limits.median, [("median", *median, *median)]));
    Ok(())
}

/// Every gradient's sum, length, largest value and first eight values. A gradient within the limit keeps each of them within the
/// limit times its length, the sum within that times the root of its size.
fn statistics_stages(
    golden: &Golden,
    order: &[String],
    gradients: &Gradients<'_>,
    before_norm: &dyn Fn(&str) -> bool,
    golden_total: f64,
    limits: &Limits,
    case: &mut Case,
) -> Result<(), ParityError> {
    let prefix = limits.prefix;
    let table = |suffix: &str, n_columns: i64| {
        let key = format!("{prefix}/grad#{suffix}");
        let table = golden.get(&key)?;
        if table.size() != [order.len() as i64, n_columns] {
            let problem = format!("has shape {:?}, expected [{}, {n_columns}]", table.size(), order.len());
            return Err(golden.content_error(&key, &problem));
        }
        Ok(Vec::<f64>::try_from(table.to_kind(Kind::Double).reshape([-1]))?)
    };
    let (stat, head8) = (table("stat", 3)?, table("head8", 8)?);
    let mut measured: [Vec<(&str, f64, f64)>; 4] = Default::default();
    for (idx, name) in order.iter().enumerate() {
        let Some(gradient) = gradients.get(name.as_str()) else { continue }; // `param_order` has said so
        if before_norm(name) {
            continue;
        }
        let flat = Vec::<f64>::try_from(gradient.reshape([-1]))?;
        let (sum, size, largest) = (stat[3 * idx], stat[3 * idx + 1], stat[3 * idx + 2]);
        let head = flat.iter().copied().chain(std::iter::repeat(0.0)).zip(&head8[8 * idx..8 * idx + 8]);
        let differences = [
            (flat.iter().sum::<f64>() - sum).abs() / (flat.len() as f64).sqrt(),
            (length(gradient) - size).abs(),
            (flat.iter().fold(0.0, |largest, value| f64::max(largest, value.abs())) - largest).abs(),
            head.map(|(ours, golden)| (ours - golden).powi(2)).sum::<f64>().sqrt(),
        ];
        for (list, difference) in measured.iter_mut().zip(differences) {
            list.push((name, difference, difference / size.max(NEGLIGIBLE * golden_total)));
        }
    }
    let limits_of = [limits.gradient, limits.length, limits.gradient, limits.gradient];
    for ((what, limit), list) in ["stat sum", "stat length", "stat largest", "head8"].iter().zip(limits_of).zip(measured) {
        case.stages.push(worst(&format!("{prefix}/grad#{what}"), "of length", limit, list));
    }
    Ok(())
}

/// Whether a tensor is the bias of a convolution directly before a norm: `PATH.0.bias` where `PATH.1` is one, `PATH.conv2.bias` where
/// `PATH.bn2` is one.
fn is_bias_before_norm(name: &str, gradients: &Gradients<'_>) -> bool {
    let in_block = || {
        let (path, index) = name.strip_suffix(".bias")?.rsplit_once(".conv")?;
        Some(format!("{path}.bn{index}.weight"))
    };
    let norm = name.strip_suffix(".0.bias").map(|path| format!("{path}.1.weight")).or_else(in_block);
    norm.and_then(|norm| gradients.get(norm.as_str())).is_some_and(|scale| scale.dim() == 1)
}

fn length(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}
