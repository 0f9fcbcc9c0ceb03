//! An anchor head on a model's golden maps, without the network before it.

use tch::{IndexOp, Kind, Tensor};

use super::compare::{Limit, compare};
use super::golden::{Companion, Golden};
use super::losses::{GRADIENT, collecting};
use super::{Case, ParityError, anchors, training};
use crate::model::anchor_head::AnchorMaps;
use crate::model::anchors::Anchors;
use crate::model::spec::{AnchorHeadSpec, AnchorSpec, NmsSpec, PostprocessSpec};
use crate::postprocess::decode_anchors;
use crate::train::anchor_loss::{AnchorLossWeights, anchor_loss};
use crate::voxel::Grid;

/// Of losses whose maps are the reference's own, relative.
const LOSS: f64 = 1e-5;
/// Of scores.
const SCORE: f64 = 1e-6;

/// Anchors and targets, and where the file holds the maps whole, boxes, losses and gradients from them.
pub fn run(golden: &Golden, companion: &Companion, case: &mut Case) -> Result<(), ParityError> {
    let classes = ["Vehicle", "Pedestrian", "Cyclist"].map(str::to_owned);
    let grid = Grid::new(companion.get(&["point_cloud_range"])?, companion.get(&["voxel_size"])?);
    let maps = |mode: &str| -> Result<AnchorMaps, ParityError> {
        let map = |name: &str| Ok::<_, ParityError>(collecting(golden.get(&format!("{mode}/head/{name}"))?));
        Ok(AnchorMaps { cls: map("conv_cls")?, boxes: map("conv_box")?, direction: map("conv_dir_cls")? })
    };
    // The map has as many cells as there are labels for the anchors of one, and as many rows as the anchors' own tensor.
    let (_, n_anchors) = golden.get("targets/box_cls_labels")?.size2()?;
    let rows = golden.starting_with("head/anchors").find_map(|(_, t)| (t.dim() == 4).then(|| t.size()[0]));
    let h = rows.filter(|h| *h > 0).ok_or_else(|| golden.content_error("head/anchors", "is missing"))?;
    let head = waymo_head();
    let w = n_anchors / h / head.anchors_per_cell() as i64;
    let anchors = Anchors::new(&grid, [w as usize, h as usize], &head, &classes);
    anchors::anchor_stage(golden, &anchors, case)?;
    let frames = training::true_boxes(golden, "input/gt_boxes")?;
    let targets = anchors::target_stages(golden, companion, &frames, &anchors, case)?;
    if golden.find("eval/head/conv_cls").is_none() || golden.find("eval/head/conv_box").is_none() {
        return Ok(());
    }
    let of_eval = maps("eval")?;
    for batch_idx in 0..frames.len() {
        let found = tch::no_grad(|| decode_anchors(&of_eval.frame(batch_idx), &anchors, &classes, &thresholds()))?;
        anchors::decode_stages(golden, batch_idx, "eval", &found.detections, SCORE, case)?;
    }
    for (prefix, maps) in [("train_frozenbn", of_eval), ("train", maps("train")?)] {
        let loss = anchor_loss(&maps, &targets, classes.len());
        anchors::loss_stages(companion, prefix, &loss, LOSS, case)?;
        loss.total(&AnchorLossWeights::default()).backward();
        // A bias of the head takes in the gradients of all cells.
        for (name, map) in [("conv_cls", &maps.cls), ("conv_box", &maps.boxes)] {
            let key = format!("{prefix}/grad/dense_head.{name}.bias");
            let ours = map.grad().sum_dim_intlist([0, 2, 3].as_slice(), false, Kind::Double);
            case.stages.push(compare(&key, &ours, golden.get(&key)?, GRADIENT));
        }
        // The classes' and the boxes' biases say nothing about the direction's part.
        let order: Vec<String> = companion.get(&["param_order"])?;
        let name = "dense_head.conv_dir_cls.bias";
        let row = order.iter().position(|param| param == name).map(|row| row as i64);
        let row = row.ok_or_else(|| golden.content_error(name, "is not among param_order"))?;
        let head8 = golden.get(&format!("{prefix}/grad#head8"))?.i(row);
        let ours: Tensor = maps.direction.grad().sum_dim_intlist([0, 2, 3].as_slice(), false, Kind::Double).i(..8);
        case.stages.push(compare(&format!("{prefix}/grad#head8 of {name}"), &ours, &head8, Limit::OfMax(1e-4)));
    }
    Ok(())
}

/// The head of SECOND and PointPillar on Waymo's data: sparsekd-spec section 2.8.
fn waymo_head() -> AnchorHeadSpec {
    let anchor = |class: &str, size_m: [f32; 3], [matched_iou, unmatched_iou]: [f32; 2]| AnchorSpec {
        class: class.to_owned(),
        size_m,
        bottom_z_m: 0.0,
        matched_iou,
        unmatched_iou,
    };
    AnchorHeadSpec {
        anchors: vec![
            anchor("Vehicle", [4.7, 2.1, 1.7], [0.55, 0.4]),
            anchor("Pedestrian", [0.91, 0.86, 1.73], [0.5, 0.35]),
            anchor("Cyclist", [1.78, 0.84, 1.78], [0.5, 0.35]),
        ],
        rotations_rad: vec![0.0, 1.57],
        direction_bins: 2,
        direction_offset_rad: anchors::DIRECTION_OFFSET_RAD,
    }
}

/// Every box with a score of 0.1.
fn thresholds() -> PostprocessSpec {
    PostprocessSpec {
        max_peaks: 4096,
        score_threshold: 0.1,
        class_score_thresholds: Default::default(),
        distance_score_thresholds: Vec::new(),
        center_limit: [-1e6, -1e6, -1e6, 1e6, 1e6, 1e6],
        nms: NmsSpec::Rotated { iou: 0.7, max_before: 4096, max_after: 500 },
    }
}
