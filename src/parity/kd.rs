//! The distillation losses alone: heat maps, boxes and labels on given maps, with gradients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::compare::{Limit, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError, anchor_kd, kd_step};
use crate::distill::label::{LabelKd, LabelScore, Merge, merge_labels};
use crate::distill::logit::{Align, AlignTo, HeatMapLoss, Interpolation, LogitKd, SortKd, TruthMask, aligned, rank_mask};
use crate::distill::teacher::TeacherOutput;
use crate::distill::{DistillConfig, StudentMaps, TeacherFrom, distill_loss};
use crate::geometry::Box3d;
use crate::geometry::iou::reference;
use crate::model::center_head::REGRESSION_BRANCHES;
use crate::postprocess::Detection;
use crate::train::loss::probabilities;
use crate::train::targets::{TargetSettings, Targets, TrueBox, draw_targets};
use crate::voxel::Grid;

/// Of losses on given maps.
pub(super) const LOSS: Limit = Limit::Each { relative: 1e-5, absolute: 1e-9 };
/// Of their gradients.
pub(super) const GRADIENT: Limit = Limit::OfMax(1e-4);
/// Of heat map targets, and of maps resized.
pub(super) const HEAT_MAP: Limit = Limit::Abs(1e-6);
/// Of box targets.
pub(super) const TARGET_BOXES: Limit = Limit::Abs(2e-5);

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let companion = Companion::read(&path.with_file_name("kd.json"))?;
    if stem.starts_with("logit_") {
        logit(&Golden::read(path)?, &companion, &stem, case)
    } else if stem == "anchor_logit" {
        anchor_kd::run(&Golden::read(path)?, &companion, &stem, case)
    } else if stem == "label_assign" {
        label_assign(&Golden::read(path)?, &companion, case)
    } else if let Some(student) = stem.strip_prefix("e2e_") {
        kd_step::run(path, &companion, student, case)
    } else {
        let what = match stem.as_str() {
            "feature" => "distillation of feature maps is not part of this build",
            _ => "no distillation of that name is part of this build",
        };
        case.unsupported.push(what.to_owned());
        Ok(())
    }
}

/// One way of distilling heat maps as the golden JSON has it: the paper's own keys.
#[derive(Deserialize)]
struct LogitCase {
    loss: f64,
    kd_hm_ls: f64,
    kd_loc_ls: f64,
    kd_sort_ls: f64,
    cfg: LogitCfg,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct LogitCfg {
    hm_loss: HmCfg,
    reg_loss: RegCfg,
    align: AlignCfg,
    hm_sort_loss: Option<SortKd>,
}

#[derive(Deserialize)]
struct HmCfg {
    #[serde(rename = "type")]
    name: String,
    weight: f64,
    thresh: f64,
    fg_mask: bool,
    soft_mask: bool,
    rank: i64,
    pos_thresh: Option<f64>,
    #[serde(default)]
    inverse: bool,
}

#[derive(Deserialize)]
struct RegCfg {
    #[serde(rename = "type")]
    name: String,
    weight: f64,
    code_weights: Vec<f64>,
}

#[derive(Deserialize)]
struct AlignCfg {
    #[serde(rename = "MODE")]
    kind: String,
    target: AlignTo,
    mode: Interpolation,
    align_channel: bool,
}

impl LogitCfg {
    /// The same in our words, and the weight of the boxes; or what this build does not have.
    fn settings(&self) -> Result<(LogitKd, f64), String> {
        let HmCfg { name, weight, thresh, fg_mask, soft_mask, rank, pos_thresh, inverse } = &self.hm_loss;
        let loss = match (name.as_str(), pos_thresh) {
            ("MSELoss", _) => HeatMapLoss::Mse,
            ("SmoothL1Loss", _) => HeatMapLoss::SmoothL1,
            ("FocalLossCenterNet", Some(positive_from)) => {
                HeatMapLoss::Focal { positive_from: *positive_from, inverse: *inverse }
            }
            _ => return Err(format!("heat map loss {name}")),
        };
        let RegCfg { name, weight: regression_weight, code_weights } = &self.reg_loss;
        if name != "RegLossCenterNet" || code_weights.iter().any(|weight| *weight != 1.0) {
            return Err(format!("box loss {name} with code weights {code_weights:?}"));
        }
        let AlignCfg { kind, target, mode, align_channel } = &self.align;
        if kind != "interpolate" || *align_channel {
            return Err(format!("alignment {kind}, channels too: {align_channel}"));
        }
        let kd = LogitKd {
            weight: *weight,
            loss,
            min_confidence: *thresh,
            confidence_weight: *soft_mask,
            truth: match (fg_mask, soft_mask) {
                (false, _) => TruthMask::Off,
                (true, false) => TruthMask::Hard,
                (true, true) => TruthMask::Gaussian,
            },
            rank: usize::try_from(*rank).ok(),
            align: Align { to: *target, mode: *mode },
            sort: self.hm_sort_loss,
        };
        Ok((kd, *regression_weight))
    }
}

fn logit(golden: &Golden, companion: &Companion, stem: &str, case: &mut Case) -> Result<(), ParityError> {
    let maps = |who: &str| -> Result<(Tensor, Tensor), ParityError> {
        let parts = REGRESSION_BRANCHES.map(|(name, _)| golden.get(&format!("in/{who}.{name}")));
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok((golden.get(&format!("in/{who}.hm_logits"))?.shallow_clone(), Tensor::cat(&parts, 1)))
    };
    let (student_logits, student_boxes) = maps("stu")?;
    let (teacher_logits, teacher_boxes) = maps("tea")?;
    let [student_targets, teacher_targets] = [targets(golden, "in/target_stu")?, targets(golden, "in/target_tea")?];
    let teacher = TeacherOutput { heat_map: teacher_logits, regression: Some(teacher_boxes), boxes: Vec::new() };
    aux_stages(golden, &student_logits, &teacher.heat_map, case)?;

    let cases: BTreeMap<String, Value> = companion.get(&[stem, "cases"])?;
    for (name, value) in cases {
        let Ok(settings) = LogitCase::deserialize(&value) else {
            case.unsupported.push(format!("{name}: settings this build does not know"));
            continue;
        };
        let (kd, regression_weight) = match settings.cfg.settings() {
            Ok(known) => known,
            Err(what) => {
                case.unsupported.push(format!("{name}: {what}"));
                continue;
            }
        };
        let released = DistillConfig::released(TeacherFrom::Dump(PathBuf::new()));
        let config = DistillConfig { logit: Some(kd), regression_weight, ..released };
        let [logits, boxes] = [&student_logits, &student_boxes].map(|map| map.copy().set_requires_grad(true));
        let terms = tch::with_grad(|| {
            let student = StudentMaps { probabilities: &probabilities(&logits), regression: &boxes, targets: &student_targets };
            let terms = distill_loss(&config, student, &teacher, &teacher_targets);
            terms.total().backward();
            terms
        });
        let losses = [
            ("loss", &terms.total(), settings.loss),
            ("kd_hm_ls", &terms.heat_map, settings.kd_hm_ls),
            ("kd_loc_ls", &terms.regression, settings.kd_loc_ls),
            ("kd_sort_ls", &terms.sort, settings.kd_sort_ls),
        ];
        for (what, ours, loss) in losses {
            case.stages.push(compare(&format!("{name}/{what}"), ours, &Tensor::from(loss), LOSS));
        }
        gradient_stages(golden, &name, &logits, &boxes, case)?;
    }
    Ok(())
}

/// Gradients of the student's maps; one that is not stored is zero.
fn gradient_stages(golden: &Golden, name: &str, logits: &Tensor, boxes: &Tensor, case: &mut Case) -> Result<(), ParityError> {
    let of_boxes = if boxes.grad().defined() { boxes.grad() } else { boxes.zeros_like() };
    let mut ours = vec![("hm_logits", logits.grad())];
    let mut start = 0;
    for (branch, channels) in REGRESSION_BRANCHES {
        ours.push((branch, of_boxes.narrow(1, start, channels)));
        start += channels;
    }
    for (branch, gradient) in ours {
        let key = format!("{name}/grad_{branch}");
        case.stages.push(match golden.find(&key) {
            Some(golden) => compare(&key, &gradient, golden, GRADIENT),
            None => compare(&key, &gradient, &gradient.zeros_like(), Limit::Exact),
        });
    }
    Ok(())
}

fn aux_stages(golden: &Golden, student_logits: &Tensor, teacher_logits: &Tensor, case: &mut Case) -> Result<(), ParityError> {
    let [student, teacher] = [student_logits, teacher_logits].map(probabilities);
    let names: Vec<String> = golden.names().filter(|name| name.starts_with("aux/")).map(str::to_owned).collect();
    for name in names {
        let expected = golden.get(&name)?;
        let rank = name.strip_prefix("aux/rank").and_then(|rest| rest.strip_suffix("_mask")?.parse().ok());
        if name == "aux/stu_prob_aligned_to_teacher" {
            let (ours, _) = aligned(&student, &teacher, Align::default());
            case.stages.push(compare(&name, &ours, expected, HEAT_MAP));
        } else if let Some(rank) = rank {
            case.stages.push(compare(&name, &rank_mask(&teacher, rank), expected, Limit::Exact));
        } else {
            case.unsupported.push(format!("{name}: no loss uses it"));
        }
    }
    Ok(())
}

fn targets(golden: &Golden, key: &str) -> Result<Targets, ParityError> {
    let part = |name: &str| golden.get(&format!("{key}.{name}"));
    Ok(Targets {
        heat_map: part("heatmap")?.shallow_clone(),
        boxes: part("boxes")?.shallow_clone(),
        index: part("inds")?.to_kind(Kind::Int64),
        mask: part("masks")?.to_kind(Kind::Float),
    })
}

/// One way of merging labels as the golden JSON has it.
#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct LabelCfg {
    score_type: String,
    score_thresh: Vec<f64>,
    use_gt: bool,
    gt_first: bool,
}

impl LabelCfg {
    fn settings(&self) -> Option<LabelKd> {
        let score = match self.score_type.as_str() {
            "cls" => LabelScore::Class,
            "iou" => LabelScore::Iou,
            "mixed" => LabelScore::Mixed,
            _ => return None,
        };
        let merge = match (self.use_gt, self.gt_first) {
            (false, _) => Merge::TeacherOnly,
            (true, false) => Merge::Released,
            (true, true) => Merge::TruthFirst,
        };
        Some(LabelKd { score, min_scores: self.score_thresh.clone(), merge, ..LabelKd::default() })
    }
}

fn label_assign(golden: &Golden, companion: &Companion, case: &mut Case) -> Result<(), ParityError> {
    let key = "label_assign";
    let [h, w]: [usize; 2] = companion.get(&[key, "hw"])?;
    let grid = map_grid(companion.get(&[key, "range"])?, h, w);
    let truth = true_boxes(golden.get("in/gt_boxes")?)?;
    let mut teacher = Vec::new();
    for (frame_idx, truth) in truth.iter().enumerate() {
        let detections = detections(golden, &format!("in/decoded_tea.{frame_idx}.pred_"))?;
        let boxes: Vec<Box3d> = truth.iter().map(|b| Box3d::from_row(b.row.map(f64::from))).collect();
        if let Some(expected) = golden.find(&format!("aux/iou3d.{frame_idx}")) {
            let ratios = detections.iter().flat_map(|d| boxes.iter().map(|b| reference::iou3d(&d.box3d, b)));
            let ours = Tensor::from_slice(&ratios.collect::<Vec<_>>()).view([detections.len() as i64, -1]);
            let valid = expected.narrow(1, 0, boxes.len() as i64);
            case.stages.push(compare(&format!("aux/iou3d.{frame_idx}"), &ours, &valid, Limit::Abs(1e-4)));
        }
        teacher.push(detections);
    }

    let cases: BTreeMap<String, LabelCfg> = companion.get(&[key, "cases"])?;
    for (name, cfg) in cases {
        let Some(kd) = cfg.settings() else {
            case.unsupported.push(format!("{name}: boxes judged by {}", cfg.score_type));
            continue;
        };
        let merged: Vec<Vec<TrueBox>> = teacher.iter().zip(&truth).map(|(t, g)| merge_labels(t, g, &kd)).collect();
        let counts: Vec<usize> = companion.get(&[key, "cases", &name, "num_teacher"])?;
        let with_truth = |idx: usize| if cfg.use_gt { truth[idx].len() } else { 0 };
        let ours: Vec<usize> = merged.iter().enumerate().map(|(idx, labels)| labels.len() - with_truth(idx)).collect();
        case.stages.push(exact(&format!("{name}/num_teacher"), &ours, &counts));
        let expected = golden.get(&format!("{name}/merged_boxes"))?;
        case.stages.push(compare(&format!("{name}/merged_boxes"), &padded_rows(&merged), expected, Limit::Abs(1e-6)));
        let n_classes = golden.get(&format!("{name}/heatmap"))?.size().get(1).copied().unwrap_or(0) as usize;
        let targets = draw_targets(&merged, &grid, 1, n_classes, &TargetSettings::default());
        target_stages(golden, &[&format!("{name}/"), "target_boxes"], &name, &targets, TARGET_BOXES, case)?;
        let helpers: Vec<_> =
            golden.names().filter(|key| key.starts_with(&format!("{name}/")) && key.ends_with(".masks")).collect();
        case.unsupported.extend(helpers.iter().map(|key| format!("{key}: no loss uses it")));
    }
    Ok(())
}

/// Targets against golden ones, of which `prefix` gives `heatmap`, `inds`, `masks` and the tensor of that name for boxes; golden rows
/// beyond ours are empty.
pub(super) fn target_stages(
    golden: &Golden,
    [prefix, boxes]: &[&str; 2],
    stage: &str,
    targets: &Targets,
    box_limit: Limit,
    case: &mut Case,
) -> Result<(), ParityError> {
    let heat_map = golden.get(&format!("{prefix}heatmap"))?;
    case.stages.push(compare(&format!("{stage}/heatmap"), &targets.heat_map, heat_map, HEAT_MAP));
    let fill = |ours: &Tensor, rows: i64| {
        let missing = (rows - ours.size()[1]).max(0);
        let shape: Vec<i64> = ours.size().iter().enumerate().map(|(axis, n)| if axis == 1 { missing } else { *n }).collect();
        Tensor::cat(&[ours.shallow_clone(), Tensor::zeros(shape, (ours.kind(), ours.device()))], 1).narrow(1, 0, rows)
    };
    let parts =
        [("inds", &targets.index, Limit::Exact), ("masks", &targets.mask, Limit::Exact), (*boxes, &targets.boxes, box_limit)];
    for (name, ours, limit) in parts {
        let expected = golden.get(&format!("{prefix}{name}"))?;
        let rows = expected.size().get(1).copied().unwrap_or(0);
        case.stages.push(compare(&format!("{stage}/{name}"), &fill(ours, rows), expected, limit));
    }
    Ok(())
}

/// The grid whose cells are those of an H x W map over a range.
fn map_grid(range: [f32; 6], h: usize, w: usize) -> Grid {
    let edge = |axis: usize, n: usize| ((f64::from(range[axis + 3]) - f64::from(range[axis])) / n as f64) as f32;
    Grid::new(range, [edge(0, w), edge(1, h), edge(2, 1)])
}

/// Boxes of each frame from `[B, M, 8]`, whose last column is the class from 1; rows of zeros are padding.
pub(super) fn true_boxes(boxes: &Tensor) -> Result<Vec<Vec<TrueBox>>, ParityError> {
    let (_, rows, _) = boxes.size3()?;
    let values = Vec::<f32>::try_from(boxes.reshape([-1]))?;
    let frame = |frame: &[f32]| {
        let rows = frame.chunks_exact(8).filter(|row| row[3] > 0.0);
        rows.map(|row| TrueBox { row: std::array::from_fn(|i| row[i]), class_idx: (row[7] as usize).saturating_sub(1) }).collect()
    };
    Ok(values.chunks_exact((rows * 8).max(8) as usize).map(frame).collect())
}

/// Boxes of `{prefix}boxes`, `{prefix}scores` and `{prefix}labels` (from 1).
pub(super) fn detections(golden: &Golden, prefix: &str) -> Result<Vec<Detection>, ParityError> {
    let part = |name: &str| golden.get(&format!("{prefix}{name}"));
    let rows = Vec::<f64>::try_from(part("boxes")?.to_kind(Kind::Double).reshape([-1]))?;
    let scores = Vec::<f32>::try_from(part("scores")?)?;
    let labels = Vec::<i64>::try_from(part("labels")?.to_kind(Kind::Int64))?;
    let rows = rows.chunks_exact(7).map(|row| Box3d::from_row(std::array::from_fn(|i| row[i])));
    let detection = |((box3d, score), label): ((Box3d, f32), i64)| Detection {
        box3d,
        score,
        class_idx: usize::try_from(label - 1).unwrap_or(usize::MAX),
    };
    Ok(rows.zip(scores).zip(labels).map(detection).collect())
}

/// `[B, M, 8]` with the class from 1 in the last column, zeros behind the last box of a frame.
fn padded_rows(frames: &[Vec<TrueBox>]) -> Tensor {
    let rows = frames.iter().map(Vec::len).max().unwrap_or(0);
    let mut values = vec![0f32; frames.len() * rows * 8];
    for (frame_idx, frame) in frames.iter().enumerate() {
        for (label_idx, label) in frame.iter().enumerate() {
            let start = (frame_idx * rows + label_idx) * 8;
            values[start..start + 7].copy_from_slice(&label.row);
            values[start + 7] = (label.class_idx + 1) as f32;
        }
    }
    Tensor::from_slice(&values).view([frames.len() as i64, rows as i64, 8])
}
