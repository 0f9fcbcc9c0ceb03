//! Why a run cannot begin or go on.

use std::path::PathBuf;

use super::checkpoint::CheckpointError;
use super::config::ConfigError;
use super::log::LogError;
use super::run::RunError;
use super::state::StateError;
use super::step::{NonFinite, StepError};
use super::validate::ValidateError;
use crate::data::batch::{Batch, BatchError, PlanError};
use crate::data::loader::LoaderError;
use crate::data::prepare::PrepareError;
use crate::device::DeviceError;
use crate::distill::inherit::InheritError;
use crate::distill::source::TeachingError;
use crate::model::directory::DirectoryError;

/// Why a run cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Settings that cannot be written down.
    #[error("settings as JSON: {0}")]
    Json(serde_json::Error),
    /// The teacher.
    #[error(transparent)]
    Teaching(#[from] TeachingError),
    /// The model that is inherited from.
    #[error("model to inherit from: {0}")]
    Inherited(DirectoryError),
    /// It does not go with the student.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// Classes, or the ground-truth database.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Teacher and student cannot be fed the same points.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// Fewer batches than steps, which is a fault of the loader.
    #[error("there is no batch for step {step}")]
    NoMoreData {
        /// From 0.
        step: u64,
    },
    /// A batch on its way to the device.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A checkpoint of something else.
    #[error("{path} is no checkpoint of this run")]
    Stranger {
        /// Its folder.
        path: PathBuf,
    },
    /// A checkpoint whose tensors do not fit.
    #[error(transparent)]
    State(#[from] StateError),
    /// A checkpoint that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint that cannot be written.
    #[error(
        "the checkpoint after {step} steps could not be written, the run stops; those before it are whole: {source}; make room and use \
         --resume"
    )]
    Save {
        /// Steps done.
        step: u64,
        /// Why.
        r#source: CheckpointError,
    },
    /// The log cannot be written.
    #[error("the log could not be written, the run stops; the checkpoints are whole: {0}; make room and use --resume")]
    Log(LogError),
    /// A number that is none.
    #[error(
        "step {step}: {what}; frames {}. The state before the step and its batch are in {}", .frames.join(", "), .kept.display()
    )]
    NonFinite {
        /// From 0.
        step: u64,
        /// Which number.
        what: NonFinite,
        /// Frames of the batch.
        frames: Vec<String>,
        /// Where everything lies that is needed to see it again.
        kept: PathBuf,
    },
    /// The step failed otherwise.
    #[error(transparent)]
    Step(#[from] StepError),
    /// libtorch failed, for instance for want of memory.
    #[error("libtorch: {0}")]
    Network(String),
    /// Validation.
    #[error("validation: {0}")]
    Validate(ValidateError),
    /// The model directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl TrainError {
    pub(super) fn non_finite(what: NonFinite, step: u64, batch: &Batch, kept: PathBuf) -> Self {
        Self::NonFinite { step, what, frames: batch.ids.iter().map(ToString::to_string).collect(), kept }
    }
}
