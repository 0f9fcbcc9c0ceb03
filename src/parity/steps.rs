//! Real optimisation steps of a detector on one batch.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::compare::{Limit, StageResult, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError, training};
use crate::model::init::{HeadMultipliers, hash_weights};
use crate::model::layers::Mode;
use crate::model::net::Net;
use crate::model::params::Params;
use crate::model::pillar_vfe::PaddedVoxels;
use crate::model::spec::ModelSpec;
use crate::train::loss::{LossWeights, detection_loss, probabilities};
use crate::train::optim::{Adam, AdamSettings, trainable};
use crate::train::schedule::{OneCycle, ScheduleSettings};
use crate::voxel::{Voxelizer, voxelize_on_device};

/// What the golden tables say of a step, in this order.
const COLUMNS: [&str; 6] = ["loss", "hm_loss", "loc_loss", "grad_norm_before_clip", "lr", "momentum"];
/// Losses of the first and of the second step, relative.
const LOSSES: [f64; 2] = [1e-5, 1e-2];
/// Length of the gradient of the first and of the second step, relative: as of a gradient with batch statistics.
const LENGTH: f64 = 0.05;
/// Later steps: rounding has grown to the size of the loss's own changes, only the trend remains.
const TREND: f64 = 0.5;
const RATES: Limit = Limit::Abs(1e-12);

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let companion = Companion::read(&path.with_file_name("loop.json"))?;
    let model = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(mut spec) = ModelSpec::builtin(&model) else {
        case.unsupported.push(format!("`{model}` is no network of this build"));
        return Ok(());
    };
    let golden = Golden::read(path)?;
    spec.grid.range = companion.get(&[&model, "range"])?;
    spec.check(&path.display().to_string())?;
    let columns: Vec<String> = companion.get(&[&model, "columns"])?;
    case.stages.push(exact("columns", &columns.iter().map(String::as_str).collect(), &COLUMNS.to_vec()));
    let expected = golden.get("losses_float32_stat")?;
    let (n_steps, n_columns) = expected.size2()?;
    if n_columns != COLUMNS.len() as i64 || n_steps < 2 {
        return Err(golden.content_error("losses_float32_stat", "needs six columns and two steps or more"));
    }

    let decls = crate::model::expected_params(&spec);
    let multipliers = HeadMultipliers { hm_weight: companion.get(&[&model, "hm_weight_mult"])? };
    let weights = hash_weights(&decls, companion.get(&[&model, "weight_seed"])?, &multipliers);
    let net = Net::new(&Params::load(&weights, Device::Cpu), &spec);
    let settings = AdamSettings::default();
    let mut adam = Adam::new(trainable(&decls, &weights), settings);
    let schedule = OneCycle { settings: ScheduleSettings::default(), total_steps: companion.get(&[&model, "total_steps"])? };
    let pillars = batch(&golden, &spec)?;
    let targets = training::draw(&golden, "in/gt_boxes", &spec)?;
    let loss_weights = LossWeights::default();
    let mut rows = Vec::new();
    for step in 0..n_steps as u64 {
        let rates = schedule.at(step);
        adam.zero_grad();
        let pass = net.forward_fast(&pillars, Mode::Train, Kind::Float);
        let loss = detection_loss(&probabilities(&pass.maps.heat_map), &pass.maps.regression, &targets);
        let total = loss.total(&loss_weights);
        pass.backward(&total);
        let length = adam.clip_grad_norm(settings.max_grad_norm);
        adam.step(rates);
        let part = |loss: &Tensor, weight: f64| loss.double_value(&[]) * weight;
        let parts = [part(&loss.heat_map, loss_weights.heat_map), part(&loss.regression, loss_weights.regression)];
        rows.extend([total.double_value(&[]), parts[0], parts[1], length, rates.lr, rates.beta1]);
    }
    stages(&Tensor::from_slice(&rows).view([n_steps, n_columns]), &expected.to_kind(Kind::Double), case);
    Ok(())
}

fn batch(golden: &Golden, spec: &ModelSpec) -> Result<PaddedVoxels, ParityError> {
    let mut clouds = Vec::new();
    while let Some(points) = golden.find(&format!("in/points.{}", clouds.len())) {
        let (_, d) = points.size2()?;
        let rows = Vec::<f32>::try_from(points.reshape([-1]))?;
        clouds.push(voxelize_on_device(&mut Voxelizer::new(spec.grid(), spec.caps()), &rows, d as usize, Device::Cpu)?);
    }
    if clouds.is_empty() {
        return Err(golden.content_error("in/points.0", "is missing"));
    }
    Ok(PaddedVoxels::from_clouds(&clouds, spec.grid.max_points_per_voxel))
}

fn stages(ours: &Tensor, golden: &Tensor, case: &mut Case) {
    let column = |table: &Tensor, idx: i64, step: i64, n: i64| table.select(1, idx).narrow(0, step, n).contiguous();
    let n_steps = golden.size()[0];
    for (idx, name) in COLUMNS.iter().enumerate().map(|(idx, name)| (idx as i64, name)) {
        let mut stage = |what: &str, first: i64, n: i64, limit: Limit| {
            let result = compare(&format!("{name}, {what}"), &column(ours, idx, first, n), &column(golden, idx, first, n), limit);
            case.stages.push(result);
        };
        let each = |relative: f64| Limit::Each { relative, absolute: 0.0 };
        match *name {
            "lr" | "momentum" => stage("all steps", 0, n_steps, RATES),
            "grad_norm_before_clip" => stage("steps 0 and 1", 0, 2, each(LENGTH)),
            _ => {
                for (step, limit) in LOSSES.iter().enumerate() {
                    stage(&format!("step {step}"), step as i64, 1, each(*limit));
                }
            }
        }
    }
    if n_steps > 2 {
        let total = |table: &Tensor| table.double_value(&[n_steps - 1, 0]) / table.double_value(&[0, 0]);
        let trend = compare(
            "loss, last over first step",
            &Tensor::from(total(ours)),
            &Tensor::from(total(golden)),
            Limit::Each { relative: TREND, absolute: 0.0 },
        );
        case.stages.push(StageResult { limit: format!("{} (trend only)", trend.limit), ..trend });
    }
}
