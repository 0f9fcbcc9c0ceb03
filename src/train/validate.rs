//! Evaluation in the middle of a run: the node's own pipeline over the validation source, and the official metric.

use std::collections::BTreeMap;
use std::time::Instant;

use tch::Device;

use super::config::RunConfig;
use crate::cloud::CloudError;
use crate::cloud::columns::for_network;
use crate::data::{DataError, Label, Sample, Source};
use crate::device;
use crate::eval::config::{Level, MetricsConfig};
use crate::eval::objects::difficulty_of;
use crate::eval::shards::Generator;
use crate::eval::{self, EvalError, EvalFrame, GroundTruth, Metrics, ObjectType, Prediction};
use crate::geometry::Box3d;
use crate::model::params::Weights;
use crate::model::spec::ModelSpec;
use crate::pipeline::{Pipeline, PipelineError, PipelineOptions, Precision};
use crate::postprocess::Detection;

/// The metric that the best model has most of.
const MAPH_L2: &str = "maph_l2";

/// Why a run cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// A frame of the source.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A frame that the model cannot take.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The metric.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Whether an evaluation follows so many steps.
pub fn is_due(config: &RunConfig, step: u64, steps_per_epoch: u64) -> bool {
    let every = config.validation.every_epochs;
    let is_last = step == config.epochs * steps_per_epoch;
    let at_epoch_end = step > 0 && step.is_multiple_of(steps_per_epoch);
    is_last || (at_epoch_end && every > 0 && (step / steps_per_epoch).is_multiple_of(every))
}

/// Whether metrics are better than those of all earlier evaluations.
pub fn is_best(metrics: &BTreeMap<String, f64>, earlier: &BTreeMap<u64, BTreeMap<String, f64>>) -> bool {
    let value = |metrics: &BTreeMap<String, f64>| metrics.get(MAPH_L2).copied().unwrap_or(f64::NEG_INFINITY);
    earlier.values().all(|other| value(other) < value(metrics))
}

/// Metrics by name, and the seconds it took.
///
/// # Errors
/// [`ValidateError`].
pub fn validate(
    spec: &ModelSpec,
    weights: &Weights,
    source: &dyn Source,
    config: &RunConfig,
    device: Device,
) -> Result<(BTreeMap<String, f64>, f64), ValidateError> {
    let start = Instant::now();
    let options = PipelineOptions { device: device::name(device), precision: Precision::F32 };
    let mut pipeline = Pipeline::new(spec.clone(), weights, &options)?;
    let n_frames = match config.validation.max_frames {
        0 => source.len(),
        limit => limit.min(source.len()),
    };
    let mut frames = Vec::new();
    for frame_idx in 0..n_frames {
        let sample = source.load(0, frame_idx * source.len() / n_frames)?;
        let cloud = for_network(&sample.cloud, &spec.input)?;
        let detections = pipeline.process(&cloud)?.detections;
        frames.push(EvalFrame { predictions: predictions(&detections, spec), ground_truths: truths(&sample, spec, config) });
    }
    let metrics = eval::measure(&frames, &MetricsConfig::leaderboard())?;
    Ok((named(&metrics), start.elapsed().as_secs_f64()))
}

/// Whether the middle of a box lies in the model's range, which may be smaller than the sensor's: nobody can find the others.
fn in_range(box3d: &Box3d, spec: &ModelSpec) -> bool {
    let [x, y, _] = box3d.center.map(|value| value as f32);
    let [x_min, y_min, _, x_max, y_max, _] = spec.grid.range;
    (x_min..=x_max).contains(&x) && (y_min..=y_max).contains(&y)
}

fn predictions(detections: &[Detection], spec: &ModelSpec) -> Vec<Prediction> {
    let prediction = |d: &Detection| {
        let object_type = type_of(spec.classes.get(d.class_idx)?)?;
        Some(Prediction { box3d: d.box3d, object_type, score: d.score, overlaps_no_label_zone: false })
    };
    detections.iter().filter(|d| in_range(&d.box3d, spec)).filter_map(prediction).collect()
}

fn truths(sample: &Sample, spec: &ModelSpec, config: &RunConfig) -> Vec<GroundTruth> {
    let truth = |label: &Label| {
        Some(GroundTruth {
            box3d: label.box3d,
            object_type: type_of(config.class_names.get(&label.class).unwrap_or(&label.class))?,
            difficulty: difficulty_of(label.difficulty, label.n_points.unwrap_or(u32::MAX))?,
            speed_mps: label.velocity_mps.unwrap_or_default(),
        })
    };
    sample.labels.iter().flatten().filter(|label| in_range(&label.box3d, spec)).filter_map(truth).collect()
}

/// The metric's type of a class of the model.
fn type_of(class: &str) -> Option<ObjectType> {
    ObjectType::KNOWN.into_iter().find(|t| t.name() == format!("TYPE_{}", class.to_uppercase()))
}

/// The headline and what it is the mean of.
fn named(metrics: &Metrics) -> BTreeMap<String, f64> {
    let mut named = BTreeMap::new();
    named.extend(metrics.mean_aph_level_2().map(|value| (MAPH_L2.to_owned(), f64::from(value))));
    for b in metrics.breakdowns.iter().filter(|b| b.generator == Generator::ObjectType) {
        let class = ObjectType::KNOWN[b.shard].name().trim_start_matches("TYPE_").to_lowercase();
        if b.shard != ObjectType::Sign as usize - 1 && b.level == Level::Level2 {
            named.insert(format!("ap_l2_{class}"), f64::from(b.ap));
            named.insert(format!("aph_l2_{class}"), f64::from(b.aph));
        }
    }
    named
}
