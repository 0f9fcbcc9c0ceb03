//! Distillation between anchor heads on given maps, with gradients.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::compare::compare;
use super::golden::{Companion, Golden};
use super::kd::{GRADIENT, LOSS, true_boxes};
use super::{Case, ParityError};
use crate::distill::anchor::{AnchorKd, AnchorKdLoss, AnchorTruth, anchor_kd, cells_in_boxes};
use crate::model::anchor_head::AnchorMaps;
use crate::train::anchor_targets::AnchorTargets;
use crate::voxel::Grid;

/// Voxels along the edge of a cell of the map: the reference knows no other number.
const STRIDE: usize = 8;

/// One way of distilling as the golden JSON has it: the paper's own keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorCase {
    loss: f64,
    kd_hm_ls: f64,
    kd_loc_ls: f64,
    #[serde(rename = "HM_LOSS")]
    hm_loss: HmCfg,
    #[serde(rename = "REG_LOSS")]
    reg_loss: RegCfg,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HmCfg {
    #[serde(rename = "type")]
    name: String,
    weight: f64,
    thresh: f64,
    sigmoid: bool,
    #[serde(default)]
    fg_mask_spatial: bool,
    #[serde(default)]
    fg_mask_anchor: bool,
    #[serde(default)]
    count_ignore: bool,
    #[serde(default)]
    tea_mask_anchor: bool,
    #[serde(default)]
    soft_mask: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegCfg {
    #[serde(rename = "type")]
    name: String,
    weight: f64,
    code_weights: Vec<f64>,
}

impl AnchorCase {
    /// The same in our words; or what this build does not have.
    fn settings(&self) -> Result<AnchorKd, String> {
        let hm = &self.hm_loss;
        let loss = match hm.name.as_str() {
            "MSELoss" => AnchorKdLoss::Mse,
            "SmoothL1Loss" => AnchorKdLoss::SmoothL1,
            name => return Err(format!("class loss {name}")),
        };
        let truth = match (hm.fg_mask_spatial, hm.fg_mask_anchor, hm.count_ignore) {
            (false, false, _) => AnchorTruth::Off,
            (false, true, false) => AnchorTruth::Positive,
            (false, true, true) => AnchorTruth::NotBackground,
            (true, false, _) => AnchorTruth::InBox,
            (true, true, _) => return Err("cells chosen by boxes and by anchors".to_owned()),
        };
        let RegCfg { name, weight, code_weights } = &self.reg_loss;
        if name != "WeightedSmoothL1Loss" || code_weights.iter().any(|weight| *weight != 1.0) {
            return Err(format!("box loss {name} with code weights {code_weights:?}"));
        }
        Ok(AnchorKd {
            weight: hm.weight,
            loss,
            probabilities: hm.sigmoid,
            truth,
            min_confidence: hm.tea_mask_anchor.then_some(hm.thresh),
            confidence_weight: hm.soft_mask,
            regression_weight: *weight,
        })
    }
}

pub fn run(golden: &Golden, companion: &Companion, stem: &str, case: &mut Case) -> Result<(), ParityError> {
    // Golden maps have their channels last.
    let map = |name: &str| Ok::<_, ParityError>(golden.get(&format!("in/{name}"))?.permute([0, 3, 1, 2]).contiguous());
    let (teacher_cls, teacher_boxes) = (map("cls_tea")?, map("box_tea")?);
    let no_direction = || teacher_cls.narrow(1, 0, 0);
    let teacher =
        AnchorMaps { cls: teacher_cls.shallow_clone(), boxes: teacher_boxes.shallow_clone(), direction: no_direction() };
    let targets = targets(golden.get("in/box_cls_labels")?);
    let occupied = golden.get("in/spatial_mask_tea")?.gt(0);
    let range: [f32; 6] = companion.get(&[stem, "range"])?;
    let [h, w]: [usize; 2] = companion.get(&[stem, "hw"])?;
    let edge = |axis: usize, n: usize| ((f64::from(range[axis + 3]) - f64::from(range[axis])) / n as f64) as f32;
    let grid = Grid::new(range, [edge(0, w * STRIDE), edge(1, h * STRIDE), edge(2, 1)]);
    let boxes = true_boxes(golden.get("in/gt_boxes")?)?;

    let cases: BTreeMap<String, Value> = companion.get(&[stem, "cases"])?;
    for (name, value) in cases {
        let Ok(settings) = AnchorCase::deserialize(&value) else {
            case.unsupported.push(format!("{name}: settings this build does not know"));
            continue;
        };
        let kd = match settings.settings() {
            Ok(kd) => kd,
            Err(what) => {
                case.unsupported.push(format!("{name}: {what}"));
                continue;
            }
        };
        let [cls, boxes_map] = [map("cls_stu")?, map("box_stu")?].map(|map| map.copy().set_requires_grad(true));
        let student = AnchorMaps { cls: cls.shallow_clone(), boxes: boxes_map.shallow_clone(), direction: no_direction() };
        let in_box = || cells_in_boxes(&boxes, &grid, STRIDE).logical_and(&occupied);
        let terms = anchor_kd(&kd, &student, &teacher, &targets, &in_box);
        terms.total().backward();
        let losses = [
            ("loss", terms.total(), settings.loss),
            ("kd_hm_ls", terms.classification, settings.kd_hm_ls),
            ("kd_loc_ls", terms.regression, settings.kd_loc_ls),
        ];
        for (what, ours, loss) in losses {
            case.stages.push(compare(&format!("{name}/{what}"), &ours.detach(), &Tensor::from(loss), LOSS));
        }
        for (what, map) in [("grad_cls", &cls), ("grad_box", &boxes_map)] {
            let key = format!("{name}/{what}");
            if let Some(golden) = golden.find(&key) {
                case.stages.push(compare(&key, &map.grad().permute([0, 2, 3, 1]), golden, GRADIENT));
            }
        }
    }
    Ok(())
}

/// Targets whose labels alone are known; distillation asks for no others.
fn targets(labels: &Tensor) -> AnchorTargets {
    let is_positive = labels.gt(0);
    let counts = is_positive.sum_dim_intlist([1].as_slice(), false, Kind::Float);
    let frame_weights = counts.clamp_min(1.0).reciprocal();
    let positive = is_positive.flatten(0, 1).nonzero().squeeze_dim(1);
    let n_anchors = labels.size().get(1).copied().unwrap_or(1).max(1);
    let weights = frame_weights.index_select(0, &positive.divide_scalar_mode(n_anchors, "floor"));
    let n = positive.size().first().copied().unwrap_or(0);
    AnchorTargets {
        labels: labels.shallow_clone(),
        frame_weights,
        boxes: Tensor::zeros([n, 7], (Kind::Float, labels.device())),
        direction: positive.zeros_like(),
        positive,
        weights,
    }
}
