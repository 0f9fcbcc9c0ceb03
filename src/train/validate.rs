//! Evaluation in the middle of a run: the node's own pipeline over the validation source, and the official metric.

use std::collections::BTreeMap;
use std::time::Instant;

use tch::Device;

use super::config::RunConfig;
use crate::data::Source;
use crate::device;
use crate::eval::EvalError;
use crate::eval::config::Level;
use crate::eval::report::EvalReport;
use crate::eval::run::{EvalOptions, evaluate};
use crate::model::params::Weights;
use crate::model::spec::ModelSpec;
use crate::pipeline::{Pipeline, PipelineError, PipelineOptions, Precision};

/// The metric that the best model has most of: the mean over classes of APH at LEVEL_2, of objects within the model's range.
const MAPH_L2: &str = "maph_l2";

/// Why a run cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The metric.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Nothing to measure.
    #[error("no frame of {source_name} can be evaluated: {reason}")]
    NoFrame {
        /// As the user named it.
        source_name: String,
        /// Why the first one was left out.
        reason: String,
    },
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
    let limit = Some(config.validation.max_frames).filter(|limit| *limit > 0);
    let options = EvalOptions { renamed: config.class_names.clone(), limit, n_worst_frames: 0, ..EvalOptions::default() };
    let report = evaluate(&mut pipeline, source, &options)?;
    if report.n_frames == 0 {
        let first = report.bad_frames.first().map(|bad| format!("{}: {}", bad.frame, bad.reason));
        let reason = first.unwrap_or_else(|| format!("{} frames without labels", report.n_frames_without_labels));
        return Err(ValidateError::NoFrame { source_name: report.data.source, reason });
    }
    Ok((named(&report), start.elapsed().as_secs_f64()))
}

/// The headline and what it is the mean of.
fn named(report: &EvalReport) -> BTreeMap<String, f64> {
    let mut named = BTreeMap::new();
    named.extend(report.mean_aph_level_2().map(|value| (MAPH_L2.to_owned(), f64::from(value))));
    for (class, object_type) in report.classes() {
        if let Some(breakdown) = report.by_type(object_type, Level::Level2) {
            named.insert(format!("ap_l2_{class}"), f64::from(breakdown.ap));
            named.insert(format!("aph_l2_{class}"), f64::from(breakdown.aph));
        }
    }
    named
}
