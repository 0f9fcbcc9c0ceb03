//! A complete step of distillation: teacher, merged labels, all losses, gradients.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use super::compare::{Limit, StageResult, compare, exact};
use super::golden::{Companion, Golden};
use super::kd::{detections, target_stages, true_boxes};
use super::{Case, ParityError};
use crate::distill::label::{LabelKd, merge_labels};
use crate::distill::logit::LogitKd;
use crate::distill::teacher::{Teacher, TeacherError, TeacherOptions, TeacherOutput};
use crate::distill::{DistillConfig, StudentMaps, TeacherFrom, TeacherMode, distill_loss};
use crate::geometry::wrap_angle;
use crate::model::center_head::REGRESSION_BRANCHES;
use crate::model::expected_params;
use crate::model::init::{HeadMultipliers, hash_weights};
use crate::model::layers::Mode;
use crate::model::net::Net;
use crate::model::params::{Params, Weights};
use crate::model::pillar_vfe::PaddedVoxels;
use crate::model::spec::ModelSpec;
use crate::pipeline::Precision;
use crate::postprocess::Detection;
use crate::train::loss::{DetectionLoss, LossWeights, detection_loss, probabilities};
use crate::train::targets::{TargetSettings, draw_targets};
use crate::voxel::{Voxelizer, voxelize_on_device};

/// Of maps after a forward pass with batch statistics.
const MAPS: Limit = Limit::OfMax(1e-3);
/// Of target boxes, those of the teacher's head maps among them.
const TARGET_BOXES: Limit = Limit::Abs(1e-3);
/// Of the detection losses.
const LOSS: Limit = Limit::Each { relative: 2e-4, absolute: 1e-9 };
/// Of the distillation losses.
const KD_LOSS: Limit = Limit::Each { relative: 5e-4, absolute: 1e-9 };
/// Share by which the norm of a parameter's gradient may be off.
const GRADIENT_NORM: f64 = 0.05;
/// Share by which a gradient may be off as a vector.
const GRADIENT: f64 = 0.15;
/// Gradients below this share of the total are rounding: their true value is 0.
const NO_GRADIENT: f64 = 1e-5;
/// Golden boxes of the teacher are those with a higher score.
const STORED_SCORE: f32 = 0.3;

pub fn run(path: &Path, companion: &Companion, student: &str, case: &mut Case) -> Result<(), ParityError> {
    let stem = format!("e2e_{student}");
    let yaml: String = companion.get(&[&stem, "yaml"])?;
    let (Ok(mut spec), Some(released)) = (ModelSpec::builtin(student), released(student)) else {
        case.unsupported.push(format!("`{student}` ({yaml}) is no student of this build"));
        return Ok(());
    };
    let golden = Golden::read(path)?;
    let range: [f32; 6] = companion.get(&[&stem, "range"])?;
    spec.grid.range = range;
    spec.check(&path.display().to_string())?;
    let mode = match companion.get::<String>(&[&stem, "teacher_mode"])?.as_str() {
        "train" => TeacherMode::Train,
        _ => TeacherMode::Eval,
    };
    let mut config = DistillConfig::released(TeacherFrom::Model(PathBuf::from(released.teacher)));
    let label = LabelKd { min_scores: released.min_scores.to_vec(), ..LabelKd::default() };
    config.teacher.mode = mode;
    config.logit = Some(LogitKd { weight: released.logit_weight, ..LogitKd::default() });
    config.regression_weight = released.regression_weight;

    let number = |key: &str| companion.get::<f64>(&[&stem, key]);
    let seed = |key: &str| companion.get::<u64>(&[&stem, key]);
    let weights =
        |spec: &ModelSpec, seed: u64, hm_weight: f64| hash_weights(&expected_params(spec), seed, &HeadMultipliers { hm_weight });
    let teacher_spec = ModelSpec::builtin(released.teacher)?;
    let teacher_weights = weights(&teacher_spec, seed("teacher_weight_seed")?, number("teacher_hm_mult")?);
    let options = TeacherOptions { mode, precision: Precision::F32, regression: true, device: Device::Cpu };
    let operation = |error: TeacherError| ParityError::Operation(error.to_string());
    let teacher = Teacher::from_parts(teacher_spec, &teacher_weights, "", range, options).map_err(operation)?;
    let output = teacher.output(&pillars(&golden, teacher.spec(), case)?).map_err(operation)?;
    teacher_stages(&golden, &output, case)?;

    let truth = true_boxes(golden.get("in/gt_boxes")?)?;
    let merged: Vec<_> = output.boxes.iter().zip(&truth).map(|(boxes, truth)| merge_labels(boxes, truth, &label)).collect();
    let n_kept: Vec<usize> = merged.iter().zip(&truth).map(|(merged, truth)| merged.len() - truth.len()).collect();
    case.stages.push(exact("teacher_boxes_above_threshold", &n_kept, &companion.get(&[&stem, "teacher_boxes_above_threshold"])?));
    let settings = TargetSettings::default();
    let targets = draw_targets(&merged, &spec.grid(), spec.network.stride(), spec.classes.len(), &settings);
    target_stages(&golden, &["student/target.", "boxes"], "student/target", &targets, TARGET_BOXES, case)?;
    let teacher_targets = draw_targets(&truth, teacher.grid(), teacher.stride(), spec.classes.len(), &settings);

    let student_weights = weights(&spec, seed("student_weight_seed")?, number("student_hm_mult")?);
    let learnable = |name: &str| !name.contains("running_");
    for (_, tensor) in student_weights.iter().filter(|(name, _)| learnable(name)) {
        let _ = tensor.set_requires_grad(true);
    }
    let net = Net::new(&Params::load(&student_weights, Device::Cpu), &spec);
    let pillars = pillars(&golden, &spec, case)?;
    tch::with_grad(|| -> Result<(), ParityError> {
        let head = net.forward(&pillars, Mode::Train).head;
        map_stages(&golden, "student", &head.heat_map, &head.regression, case)?;
        let student =
            StudentMaps { probabilities: &probabilities(&head.heat_map), regression: &head.regression, targets: &targets };
        let detection = detection_loss(student.probabilities, student.regression, &targets);
        let terms = distill_loss(&config, student, &output, &teacher_targets);
        let total = detection.total(&LossWeights::default()) + terms.total();
        total.backward();
        loss_stages(companion, &stem, &detection, [&terms.heat_map, &terms.regression, &terms.sort], &total, case)
    })?;
    gradient_stages(&golden, companion, &stem, &student_weights, case)
}

/// What the paper's configuration of a student sets (sparsekd-spec section 3.1).
struct Released {
    teacher: &'static str,
    logit_weight: f64,
    regression_weight: f64,
    min_scores: [f64; 3],
}

fn released(student: &str) -> Option<Released> {
    let (teacher, logit_weight, regression_weight, min_scores) = match student {
        "cp-pillar-v0.4" => ("cp-pillar", 7.0, 0.0, [0.6, 0.6, 0.6]),
        "cp-pillar-v0.48" | "cp-pillar-v0.64" => ("cp-pillar", 7.0, 0.0, [0.6, 0.5, 0.5]),
        "cp-voxel-s" => ("cp-voxel", 10.0, 0.2, [0.6; 3]),
        "cp-voxel-xs" | "cp-voxel-xxs" => ("cp-voxel", 15.0, 0.2, [0.6; 3]),
        _ => return None,
    };
    Some(Released { teacher, logit_weight, regression_weight, min_scores })
}

/// The golden clouds in the pillars of a spec.
fn pillars(golden: &Golden, spec: &ModelSpec, case: &mut Case) -> Result<PaddedVoxels, ParityError> {
    let mut clouds = Vec::new();
    while let Some(points) = golden.find(&format!("in/points.{}", clouds.len())) {
        let (_, d) = points.size2()?;
        let rows = Vec::<f32>::try_from(points.reshape([-1]))?;
        clouds.push(voxelize_on_device(&mut Voxelizer::new(spec.grid(), spec.caps()), &rows, d as usize, Device::Cpu)?);
    }
    if clouds.is_empty() {
        return Err(golden.content_error("in/points.0", "is missing"));
    }
    if let Some(counts) = golden.find("aux/num_voxels") {
        let n_voxels: i64 = clouds.iter().map(|cloud| cloud.n_voxels()).sum();
        let counts = Vec::<i64>::try_from(counts)?;
        case.stages.push(StageResult {
            within: counts.contains(&n_voxels),
            ..exact(&format!("aux/num_voxels of {}", spec.name), &n_voxels, &n_voxels)
        });
    }
    Ok(PaddedVoxels::from_clouds(&clouds, spec.grid.max_points_per_voxel))
}

fn map_stages(golden: &Golden, who: &str, heat_map: &Tensor, regression: &Tensor, case: &mut Case) -> Result<(), ParityError> {
    let heat_map_key = format!("{who}/head.hm");
    case.stages.push(compare(&heat_map_key, heat_map, golden.get(&heat_map_key)?, MAPS));
    let mut start = 0;
    for (name, channels) in REGRESSION_BRANCHES {
        let key = format!("{who}/head.{name}");
        case.stages.push(compare(&key, &regression.narrow(1, start, channels), golden.get(&key)?, MAPS));
        start += channels;
    }
    Ok(())
}

fn teacher_stages(golden: &Golden, output: &TeacherOutput, case: &mut Case) -> Result<(), ParityError> {
    if let Some(regression) = &output.regression {
        map_stages(golden, "teacher", &output.heat_map, regression, case)?;
    }
    for (frame_idx, ours) in output.boxes.iter().enumerate() {
        let key = format!("teacher/decoded.{frame_idx}");
        let golden = detections(golden, &format!("{key}."))?;
        case.stages.push(same_boxes(&key, ours, &golden));
    }
    Ok(())
}

/// Whether each golden box has one of ours, and each of ours that is clearly above the stored score a golden one. Batch statistics
/// let maps wander by 1e-3 of their maximum, so boxes may by as much.
fn same_boxes(stage: &str, ours: &[Detection], golden: &[Detection]) -> StageResult {
    const LIMIT: &str = "same set: 2e-3, score 1e-3";
    const SLACK: f64 = 2e-3;
    let mut left: Vec<&Detection> = ours.iter().collect();
    let mut max_abs = 0f64;
    for golden in golden {
        let row = golden.box3d.to_row();
        let matches = |d: &&Detection| {
            let near = d.box3d.to_row().iter().zip(&row).take(6).all(|(a, b)| (a - b).abs() <= SLACK * b.abs().max(1.0));
            let turned = wrap_angle(d.box3d.yaw - golden.box3d.yaw).abs() <= SLACK;
            near && turned && d.class_idx == golden.class_idx && (d.score - golden.score).abs() <= 1e-3
        };
        let Some(position) = left.iter().position(matches) else {
            let detail = format!("golden box {row:?} score {} class {} has no match", golden.score, golden.class_idx);
            return StageResult::mismatch(stage, LIMIT, detail);
        };
        let found = left.remove(position).box3d.to_row();
        max_abs = found.iter().zip(&row).take(6).map(|(a, b)| (a - b).abs()).fold(max_abs, f64::max);
    }
    if let Some(surplus) = left.iter().find(|d| d.score > STORED_SCORE + 1e-3) {
        return StageResult::mismatch(stage, LIMIT, format!("our box {surplus:?} is not among the golden ones"));
    }
    StageResult { max_abs, limit: LIMIT.to_owned(), ..exact(stage, &(), &()) }
}

fn loss_stages(
    companion: &Companion,
    stem: &str,
    detection: &DetectionLoss,
    [kd_heat_map, kd_regression, kd_sort]: [&Tensor; 3],
    total: &Tensor,
    case: &mut Case,
) -> Result<(), ParityError> {
    let weights = LossWeights::default();
    let losses = [
        ("hm_loss_head_0", &(&detection.heat_map * weights.heat_map), LOSS),
        ("loc_loss_head_0", &(&detection.regression * weights.regression), LOSS),
        ("kd_hm_ls", kd_heat_map, KD_LOSS),
        ("kd_loc_ls", kd_regression, KD_LOSS),
        ("kd_sort_ls", kd_sort, KD_LOSS),
        ("total", total, LOSS),
    ];
    for (name, ours, limit) in losses {
        let golden: f64 = companion.get(&[stem, "losses", name])?;
        case.stages.push(compare(&format!("losses/{name}"), &ours.to_kind(Kind::Double), &Tensor::from(golden), limit));
    }
    Ok(())
}

fn gradient_stages(
    golden: &Golden,
    companion: &Companion,
    stem: &str,
    weights: &Weights,
    case: &mut Case,
) -> Result<(), ParityError> {
    let order: Vec<String> = companion.get(&[stem, "param_order"])?;
    let total: f64 = companion.get(&[stem, "grad_total_norm_before_clip"])?;
    let norms = Vec::<f64>::try_from(golden.get("grad#stat")?.select(1, 1))?;
    let mut squares = 0.0;
    for (name, expected) in order.iter().zip(norms) {
        let Some(weight) = weights.get(name) else {
            case.stages.push(StageResult::mismatch(
                &format!("grad/{name}"),
                "exists",
                "the student has no such tensor".to_owned(),
            ));
            continue;
        };
        let gradient = weight.grad().to_kind(Kind::Double);
        let norm = gradient.square().sum(Kind::Double).sqrt().double_value(&[]);
        squares += norm * norm;
        let negligible = NO_GRADIENT * total;
        let allowed = if expected <= negligible { negligible } else { GRADIENT_NORM * expected };
        case.stages.push(share(&format!("grad/{name}: norm"), (norm - expected).abs(), expected.max(negligible), allowed));
        if let Some(whole) = golden.find(&format!("grad/{name}")) {
            let apart = (&gradient - whole.to_kind(Kind::Double)).square().sum(Kind::Double).sqrt().double_value(&[]);
            case.stages.push(share(&format!("grad/{name}"), apart, expected, GRADIENT * expected));
        }
    }
    case.stages.push(share("grad: total norm", (squares.sqrt() - total).abs(), total, GRADIENT_NORM * total));
    Ok(())
}

/// A stage about one distance.
fn share(stage: &str, apart: f64, of: f64, allowed: f64) -> StageResult {
    let within = apart <= allowed;
    StageResult {
        stage: stage.to_owned(),
        max_abs: apart,
        max_rel: if of > 0.0 { apart / of } else { apart },
        limit: format!("{allowed:.1e} as a vector"),
        within,
        detail: if within { String::new() } else { format!("off by {apart:.3e} of {of:.3e}") },
    }
}
