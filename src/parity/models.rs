//! A whole detector, stage by stage: the plain network in evaluation and in training mode, then the fused one the node runs.

use std::path::Path;

use tch::{Device, IndexOp, Kind, Tensor};

use super::compare::{Limit, StageResult, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError, anchor_head, training};
use crate::geometry::wrap_angle;
use crate::model::backbone_3d::{ENCODED, SparseStage};
use crate::model::center_head::{HeadMaps, REGRESSION_BRANCHES};
use crate::model::fused::FusedNet;
use crate::model::init::{HeadMultipliers, hash_weights};
use crate::model::layers::Mode;
use crate::model::net::{Front, FrontTrace, Net, NetTrace};
use crate::model::params::{ParamDecl, Params, Weights};
use crate::model::pillar_vfe::PaddedVoxels;
use crate::model::spec::ModelSpec;
use crate::pipeline::{Boxes, boxes_from_maps, boxes_from_peaks};
use crate::postprocess::{self, Detection};
use crate::train::optim::trainable;
use crate::voxel::{VoxelTensors, Voxelizer, voxelize_by_sort, voxelize_on_device};

/// Of `eval` features.
const FEATURES: Limit = Limit::OfMax(3e-5);
/// Of `eval` head maps.
const HEAD: f64 = 1e-4;
const HEADS: Limit = Limit::Abs(HEAD);
/// Of the fused network's heat map, of the largest logit, where that is more: ten times what the f32 reference loses. Wide convolutions
/// with fewer multiplications round more, which shows where logits are large.
const FUSED_HEAD: f64 = 1.7e-5;
/// Of boxes' scores.
const SCORE: f64 = 1e-5;
/// How much a score changes at most with its logit.
const STEEPEST_SIGMOID: f64 = 0.25;
/// Of everything after a forward pass with batch statistics.
const TRAIN: Limit = Limit::OfMax(1e-3);
/// Of running statistics after one step.
const RUNNING: Limit = Limit::Each { relative: 1e-4, absolute: 1e-5 };
/// Pillars whose decorated points the golden files hold.
const TRACED_PILLARS: i64 = 96;
/// Stages of the 3-D backbone that the golden files hold of a training step.
const TRACED_STAGES: [&str; 2] = ["conv4", ENCODED];

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let companion = Companion::read(&path.with_extension("json"))?;
    let model: String = companion.get(&["model"])?;
    let Ok(mut spec) = ModelSpec::builtin(&model) else {
        case.unsupported.push(format!("`{model}` is no network of this build"));
        let golden = Golden::read(path)?;
        if golden.find("targets/box_cls_labels").is_some() {
            anchor_head::run(&golden, &companion, case)?;
        }
        return Ok(());
    };
    spec.grid.range = companion.get(&["point_cloud_range"])?;
    spec.grid.voxel_size = companion.get(&["voxel_size"])?;
    spec.grid.max_points_per_voxel = Some(companion.get(&["max_points_per_voxel"])?);
    spec.check(&path.display().to_string())?;
    if let Some(shape) = companion.find(&["grid_size"])? {
        case.stages.push(exact("grid_size", &spec.grid().shape, &shape));
    }

    let golden = Golden::read(path)?;
    let params = crate::model::expected_params(&spec);
    let learnable: i64 = params.iter().filter(|p| !p.name.contains("running_")).map(|p| p.shape.iter().product::<i64>()).sum();
    case.stages.push(exact("num_params", &learnable, &companion.get(&["num_params"])?));
    let multipliers = HeadMultipliers { hm_weight: companion.get(&["hm_or_cls_weight_mult"])? };
    let weights = hash_weights(&params, companion.get(&["weight_seed"])?, &multipliers);

    let clouds = voxels(&golden, &spec, case)?;
    let net = Net::new(&Params::load(&weights, Device::Cpu), &spec);
    let padded = PaddedVoxels::from_clouds(&clouds, spec.grid.max_points_per_voxel);
    let trace = net.forward(&padded, Mode::Eval);
    eval_stages(&golden, &trace, case)?;
    for batch_idx in 0..clouds.len() {
        let found = boxes_from_maps(&image(&trace.head, batch_idx), &spec)?;
        compare_boxes(&golden, batch_idx, "eval", &found, SCORE, case)?;
    }
    fused_stages(&golden, &net, &spec, &clouds, case)?;

    let targets = training::draw(&golden, "input/gt_boxes", &spec)?;
    training::target_stages(&golden, &targets, case)?;
    let copies: Weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    // The network shares its tensors with `weights`, so these are the ones it uses. Batch statistics come last: they change running ones.
    let mut learned = trainable(&params, &weights);
    let frozen = net.forward(&padded, Mode::Eval);
    training::step_stages(
        &golden,
        &companion,
        (&frozen.head, &Tensor::backward),
        &targets,
        &mut learned,
        &training::FROZEN,
        case,
    )?;
    let trace = net.forward(&padded, Mode::Train);
    train_stages(&golden, &companion, &net, &trace, &params, case)?;
    training::step_stages(&golden, &companion, (&trace.head, &Tensor::backward), &targets, &mut learned, &training::TRAIN, case)?;

    let n_plain = case.stages.len();
    let net = Net::new(&Params::load(&copies, Device::Cpu), &spec);
    let mut learned = trainable(&params, &copies);
    for limits in [training::FAST_FROZEN, training::TRAIN] {
        let pass = net.forward_fast(&padded, limits.mode, Kind::Float);
        let backward = |loss: &Tensor| pass.backward(loss);
        training::step_stages(&golden, &companion, (&pass.maps, &backward), &targets, &mut learned, &limits, case)?;
    }
    running_stages(&golden, &net, case)?;
    for stage in &mut case.stages[n_plain..] {
        stage.stage.insert_str(0, "fast ");
    }
    Ok(())
}

/// Both voxelisers on every cloud of the batch.
fn voxels(golden: &Golden, spec: &ModelSpec, case: &mut Case) -> Result<Vec<VoxelTensors>, ParityError> {
    let mut clouds = Vec::new();
    while let Some(points) = golden.find(&format!("input/points.{}", clouds.len())) {
        let (_, d) = points.size2()?;
        let rows = Vec::<f32>::try_from(points.view([-1]))?;
        let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
        clouds.push((voxelize_on_device(&mut voxelizer, &rows, d as usize, Device::Cpu)?, points));
    }
    if clouds.is_empty() {
        return Err(golden.content_error("input/points.0", "is missing"));
    }
    let sorted: Result<Vec<_>, _> =
        clouds.iter().map(|(_, points)| voxelize_by_sort(&spec.grid(), spec.caps(), points)).collect();
    let plain: Vec<_> = clouds.into_iter().map(|(pillars, _)| pillars).collect();
    for (suffix, clouds) in [("", &plain), (" by sort", &sorted?)] {
        let cat = |part: &dyn Fn(&VoxelTensors) -> Tensor| Tensor::cat(&clouds.iter().map(part).collect::<Vec<_>>(), 0);
        let coords = PaddedVoxels::from_clouds(clouds, spec.grid.max_points_per_voxel).coords;
        let num_points = cat(&|c| c.num_points.shallow_clone());
        let point_index = cat(&|c| c.point_index.shallow_clone());
        for (name, ours) in [("coords", coords), ("num_points", num_points), ("point_index", point_index)] {
            let key = format!("voxel/{name}");
            case.stages.push(compare(&format!("{key}{suffix}"), &ours, golden.get(&key)?, Limit::Exact));
        }
    }
    Ok(plain)
}

fn eval_stages(golden: &Golden, trace: &NetTrace, case: &mut Case) -> Result<(), ParityError> {
    let traced = |t: &Tensor| t.slice(0, 0, TRACED_PILLARS, 1);
    let mut stage = |name: &str, ours: &Tensor, axis: i64, limit: Limit| -> Result<(), ParityError> {
        case.stages.push(golden.compare_stage(&format!("eval/{name}"), ours, axis, limit)?);
        Ok(())
    };
    match &trace.front {
        FrontTrace::Pillar(vfe) => {
            stage("vfe/decorated", &traced(&vfe.decorated), 2, FEATURES)?;
            stage("vfe/pfn0_out", &traced(&vfe.pfn0_out), 2, FEATURES)?;
            stage("vfe/pillar_features", &vfe.pillar_features, 1, FEATURES)?;
        }
        FrontTrace::Voxel { voxel_features, stages } => {
            stage("vfe/voxel_features", voxel_features, 1, FEATURES)?;
            for SparseStage { name, sites, features } in stages {
                stage(&format!("b3d/{name}.indices"), &sites.coords()?, 1, Limit::Exact)?;
                stage(&format!("b3d/{name}.features"), features, 1, FEATURES)?;
            }
        }
    }
    stage("bev/spatial_features", &trace.spatial_features, 1, FEATURES)?;
    for (block_idx, block) in trace.backbone.blocks.iter().enumerate() {
        stage(&format!("b2d/block{block_idx}"), block, 1, FEATURES)?;
    }
    stage("b2d/spatial_features_2d", &trace.backbone.spatial_features_2d, 1, FEATURES)?;
    head_stages(golden, "eval", &trace.head, FEATURES, HEADS, case)
}

fn head_stages(
    golden: &Golden,
    mode: &str,
    head: &HeadMaps,
    shared_limit: Limit,
    limit: Limit,
    case: &mut Case,
) -> Result<(), ParityError> {
    case.stages.push(golden.compare_stage(&format!("{mode}/head/shared"), &head.shared, 1, shared_limit)?);
    case.stages.push(golden.compare_stage(&format!("{mode}/head/hm"), &head.heat_map, 1, limit)?);
    let mut start = 0;
    for (name, channels) in REGRESSION_BRANCHES {
        let map = head.regression.narrow(1, start, channels);
        case.stages.push(golden.compare_stage(&format!("{mode}/head/{name}"), &map, 1, limit)?);
        start += channels;
    }
    Ok(())
}

/// The network the node runs, one cloud at a time.
fn fused_stages(
    golden: &Golden,
    net: &Net,
    spec: &ModelSpec,
    clouds: &[VoxelTensors],
    case: &mut Case,
) -> Result<(), ParityError> {
    let fused = FusedNet::new(net, &spec.grid(), spec.grid.max_points_per_voxel, Kind::Float);
    let mut features = Vec::new();
    let mut heat_maps = Vec::new();
    let mut found = Vec::new();
    for voxels in clouds {
        features.push(fused.voxel_features(voxels));
        let shared = fused.head.shared(&fused.backbone(&fused.map_of(voxels)));
        let heat_map = fused.head.heat_map(&shared);
        let peaks = postprocess::top_peaks(&heat_map, spec.postprocess.max_peaks)?;
        let regression = fused.head.regression_at(&shared, &peaks.row, &peaks.col);
        found.push(boxes_from_peaks(&peaks, &regression, spec)?);
        heat_maps.push(heat_map);
    }
    let mut stage = |name: &str, ours: &Tensor, limit: Limit| -> Result<(), ParityError> {
        let result = golden.compare_stage(name, ours, 1, limit)?;
        case.stages.push(StageResult { stage: format!("fused {name}"), ..result });
        Ok(())
    };
    stage(&format!("eval/vfe/{}", feature_name(net)), &Tensor::cat(&features, 0), FEATURES)?;
    let largest = golden.get("eval/head/hm")?.abs().max().double_value(&[]);
    let of_map = HEAD.max(FUSED_HEAD * largest);
    stage("eval/head/hm", &Tensor::stack(&heat_maps, 0), Limit::Abs(of_map))?;
    for (batch_idx, found) in found.iter().enumerate() {
        compare_boxes(golden, batch_idx, "fused eval", found, SCORE.max(STEEPEST_SIGMOID * (of_map - HEAD)), case)?;
    }
    Ok(())
}

fn train_stages(
    golden: &Golden,
    companion: &Companion,
    net: &Net,
    trace: &NetTrace,
    params: &[ParamDecl],
    case: &mut Case,
) -> Result<(), ParityError> {
    match &trace.front {
        FrontTrace::Pillar(vfe) => {
            case.stages.push(golden.compare_stage("train/vfe/pillar_features", &vfe.pillar_features, 1, TRAIN)?);
        }
        FrontTrace::Voxel { stages, .. } => {
            for stage in stages.iter().filter(|stage| TRACED_STAGES.contains(&stage.name)) {
                let name = format!("train/b3d/{}.features", stage.name);
                case.stages.push(golden.compare_stage(&name, &stage.features, 1, TRAIN)?);
            }
        }
    }
    let stage = golden.compare_stage("train/b2d/spatial_features_2d", &trace.backbone.spatial_features_2d, 1, TRAIN)?;
    case.stages.push(stage);
    head_stages(golden, "train", &trace.head, TRAIN, TRAIN, case)?;
    // The norms in the reference's order are those of our own listing: both follow the state dict.
    let order: Vec<(String, i64)> = companion.get(&["bn_order"])?;
    let ours = |what: &str| {
        params.iter().filter_map(|p| Some((p.name.strip_suffix(&format!(".{what}"))?.to_owned(), p.shape[0]))).collect::<Vec<_>>()
    };
    case.stages.push(exact("train/bn_order", &ours("running_mean"), &order));
    running_stages(golden, net, case)
}

/// Running statistics after one step with batch statistics.
fn running_stages(golden: &Golden, net: &Net, case: &mut Case) -> Result<(), ParityError> {
    let norms = net.norms();
    let means: Vec<_> = norms.iter().map(|norm| &norm.running_mean).collect();
    let vars: Vec<_> = norms.iter().map(|norm| &norm.running_var).collect();
    for (name, values) in [("mean", means), ("var", vars)] {
        let key = format!("train/bn_running_{name}_after");
        case.stages.push(compare(&key, &Tensor::cat(&values, 0), golden.get(&key)?, RUNNING));
    }
    Ok(())
}

/// What the golden files call the features of voxels.
fn feature_name(net: &Net) -> &'static str {
    match net.front {
        Front::Pillar(_) => "pillar_features",
        Front::Voxel(_) => "voxel_features",
    }
}

/// The head maps of one cloud of the batch.
fn image(head: &HeadMaps, batch_idx: usize) -> HeadMaps {
    let one = |t: &Tensor| t.i(batch_idx as i64).unsqueeze(0);
    HeadMaps { shared: one(&head.shared), heat_map: one(&head.heat_map), regression: one(&head.regression) }
}

fn compare_boxes(
    golden: &Golden,
    batch_idx: usize,
    label: &str,
    found: &Boxes,
    score_limit: f64,
    case: &mut Case,
) -> Result<(), ParityError> {
    for (part, ours) in [("decode", &found.decoded), ("final", &found.kept)] {
        let key = format!("eval/{part}.{batch_idx}");
        let boxes = golden.get(&format!("{key}.pred_boxes"))?;
        let scores = Vec::<f32>::try_from(golden.get(&format!("{key}.pred_scores"))?)?;
        let labels = Vec::<i64>::try_from(golden.get(&format!("{key}.pred_labels"))?)?;
        let rows = Vec::<f64>::try_from(boxes.to_kind(Kind::Double).view([-1]))?;
        let golden_boxes: Vec<_> = rows
            .chunks_exact(7)
            .zip(scores.iter().zip(&labels))
            .map(|(row, (score, label))| GoldenBox { row: row.try_into().unwrap_or_default(), score: *score, label: *label })
            .collect();
        case.stages.push(same_set(&format!("{label}/{part}.{batch_idx}"), ours, &golden_boxes, score_limit));
    }
    Ok(())
}

pub(super) struct GoldenBox {
    pub row: [f64; 7],
    pub score: f32,
    pub label: i64,
}

/// Whether two sets of boxes are the same: each golden box has one of ours within 1e-3 m, sizes within 1e-4 of themselves, yaw within
/// 1e-4 modulo a turn, score within its limit, and none of ours is left over. Order may swap where scores are that close.
pub(super) fn same_set(stage: &str, ours: &[Detection], golden: &[GoldenBox], score_limit: f64) -> StageResult {
    let limit = format!("same set: 1e-3 m, 1e-4, {score_limit:.0e}");
    if ours.len() != golden.len() {
        return StageResult::mismatch(stage, &limit, format!("ours has {} boxes, golden {}", ours.len(), golden.len()));
    }
    let mut left: Vec<&Detection> = ours.iter().collect();
    let (mut max_abs, mut max_rel) = (0f64, 0f64);
    for golden in golden {
        let matches = |d: &&Detection| {
            let row = d.box3d.to_row();
            let near = (0..3).all(|i| (row[i] - golden.row[i]).abs() <= 1e-3);
            let sized = (3..6).all(|i| (row[i] - golden.row[i]).abs() <= 1e-3 && (row[i] / golden.row[i] - 1.0).abs() <= 1e-4);
            let turned = wrap_angle(row[6] - golden.row[6]).abs() <= 1e-4;
            near && sized
                && turned
                && f64::from(d.score - golden.score).abs() <= score_limit
                && d.class_idx as i64 + 1 == golden.label
        };
        let Some(position) = left.iter().position(matches) else {
            let detail = format!("golden box {:?} score {} label {} has no match", golden.row, golden.score, golden.label);
            return StageResult::mismatch(stage, &limit, detail);
        };
        let row = left.remove(position).box3d.to_row();
        for (ours, golden) in row.iter().zip(&golden.row).take(6) {
            max_abs = max_abs.max((ours - golden).abs());
            max_rel = max_rel.max((ours - golden).abs() / golden.abs().max(1e-3));
        }
    }
    StageResult { stage: stage.to_owned(), max_abs, max_rel, limit, within: true, detail: String::new() }
}
