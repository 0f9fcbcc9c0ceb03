//! From the state of training to a model directory that the node loads as it is.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Kind;

use super::TrainError;
use super::config::ModelDtype;
use super::run::RunRecord;
use super::state::TrainingState;
use crate::data::statistics::DataStatistics;
use crate::model::directory::provenance::{Provenance, TrainingRecord};
use crate::model::directory::{self, SaveOptions};
use crate::model::params::Weights;

/// The weights as the model directory gives them back.
pub fn deployed_weights(state: &TrainingState, dtype: ModelDtype) -> Weights {
    let weights = state.deployed();
    match dtype {
        ModelDtype::F32 => weights,
        ModelDtype::F16 => {
            weights.into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half).to_kind(Kind::Float))).collect()
        }
    }
}

/// What a model directory is made from beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The run.
    pub record: &'a RunRecord,
    /// Steps done.
    pub steps: u64,
    /// CPU threads of libtorch.
    pub n_threads: i32,
    /// `cpu` or `cuda:N`.
    pub device: &'a str,
    /// Of the weights, by name.
    pub metrics: &'a BTreeMap<String, f64>,
    /// Of what was trained on.
    pub statistics: &'a DataStatistics,
}

/// Writes a model directory, in place of an earlier one of the run.
///
/// # Errors
/// [`TrainError::Directory`].
pub fn save_model(dir: &Path, weights: &Weights, origin: Origin<'_>) -> Result<(), TrainError> {
    let Origin { record, steps, n_threads, device, metrics, statistics } = origin;
    let training = TrainingRecord {
        revision: record.revision.clone(),
        seed: record.config.seed,
        data_seed: record.config.data_seed,
        steps,
        data: record.data.clone(),
        validation: record.validation.clone(),
        teacher: record.teacher.clone(),
        inherited: record.inherited.clone(),
        gt_database: record.gt_database.clone(),
        n_threads,
        device: device.to_owned(),
        config: serde_json::to_value(&record.config).unwrap_or_default(),
    };
    let provenance = Provenance {
        training: Some(training),
        data_statistics: Some(statistics.clone()),
        metrics: metrics.clone(),
        ..Provenance::new(&record.command, &record.data.source)
    };
    let options = SaveOptions { dtype: record.config.model_dtype.into(), overwrite: true };
    Ok(directory::save(dir, &record.spec, weights, &provenance, options)?)
}
