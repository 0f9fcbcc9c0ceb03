//! What a model costs: parameters, multiply-accumulates, activations, milliseconds; and what it gives for it.
//!
//! Work is counted as the paper's tool counts it, so that figures can be laid beside the paper's, and as it is ([`Counting`]).
//! Time is measured through [`crate::pipeline`], as the node spends it.

mod accuracy;
mod count;
mod latency;
mod layers;
mod table;
mod workload;

pub use accuracy::{Accuracy, CostPerformance, cost_performance, read_report};
pub use count::{Cost, Counting, GroupCost, NetworkCost, cost, count};
pub use latency::{Latency, LatencySettings, StageLatency, measure};
pub use layers::{Group, Layer, Operation, Places, layers};
pub use workload::{SparseWork, Workload};

use std::path::PathBuf;

use serde::Serialize;

use crate::cloud::{CloudError, PointCloud, columns};
use crate::model::params::Weights;
use crate::model::spec::ModelSpec;
use crate::pipeline::{Pipeline, PipelineError, PipelineOptions};
use crate::synth::sensor::SensorKind;
use crate::synth::{Drive, DriveConfig, SynthError};

/// The street that models are measured on when no frames are given.
const DRIVE: (u64, u64, SensorKind) = (1, 0, SensorKind::Waymo5);

/// One model's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelProfile {
    /// Name in its spec.
    pub model: String,
    /// Cells along x and y.
    pub grid: [usize; 2],
    /// Pillars and points per frame.
    pub workload: Workload,
    /// Parameters, multiply-accumulates, activations.
    pub cost: NetworkCost,
    /// Measured times, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// Figures of several models on the same frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the frames were, in words.
    pub frames: String,
    /// In the order asked for.
    pub models: Vec<ModelProfile>,
    /// Cost against accuracy of the models whose accuracy is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cost_performance: Vec<CostPerformance>,
}

/// Why a model could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The frames do not have what the model takes.
    #[error("{model}: {source}")]
    Cloud {
        /// Name of the model.
        model: String,
        /// What is missing.
        r#source: CloudError,
    },
    /// The model does not run.
    #[error("{model}: {source}")]
    Pipeline {
        /// Name of the model.
        model: String,
        /// Why.
        r#source: PipelineError,
    },
    /// Sites of a 3-D backbone.
    #[error(transparent)]
    Sparse(#[from] crate::sparse::SparseError),
    /// A report that cannot be read.
    #[error("{}: {reason}", .path.display())]
    Report {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is nothing to measure on.
    #[error("no frames: pillars cannot be counted nor times measured")]
    NoFrames,
}

/// Frames of the built-in synthetic street, the same on every machine, and what they are in words.
///
/// # Errors
/// A number of frames that no drive has.
pub fn synthetic_frames(n_frames: usize) -> Result<(Vec<PointCloud>, String), SynthError> {
    let (seed, drive, sensor) = DRIVE;
    let street = Drive::new(&DriveConfig { rate_hz: 1.0, ..DriveConfig::new(seed, drive, n_frames, sensor) })?;
    let clouds = (0..n_frames).map(|index| Ok(street.frame(index)?.cloud)).collect::<Result<_, SynthError>>()?;
    Ok((clouds, format!("{n_frames} frames at 1 Hz of the synthetic drive {drive} of seed {seed}, sensor {}", sensor.name())))
}

/// Counts a model for a workload.
pub fn profile(spec: &ModelSpec, workload: Workload) -> ModelProfile {
    let [nx, ny, _] = spec.grid().shape;
    let cost = count(spec, &workload);
    ModelProfile { model: spec.name.clone(), grid: [nx, ny], workload, cost, latency: None }
}

/// Times a model on clouds with a sensor's own columns and raw intensity.
///
/// # Errors
/// Columns that the clouds lack, a device that cannot be had, or a frame that fails.
pub fn time(
    spec: &ModelSpec,
    weights: &Weights,
    clouds: &[PointCloud],
    options: &PipelineOptions,
    settings: LatencySettings,
) -> Result<Latency, ProfileError> {
    let named = |source| ProfileError::Pipeline { model: spec.name.clone(), source };
    let clouds = clouds.iter().map(|cloud| columns::for_network(cloud, &spec.input)).collect::<Result<Vec<_>, _>>();
    let clouds = clouds.map_err(|source| ProfileError::Cloud { model: spec.name.clone(), source })?;
    let mut pipeline = Pipeline::new(spec.clone(), weights, options).map_err(named)?;
    measure(&mut pipeline, options.precision, &clouds, settings).map_err(named)?.ok_or(ProfileError::NoFrames)
}

impl Report {
    /// Puts the models' figures together with accuracies, of which there may be none, or several for a model.
    pub fn new(frames: String, models: Vec<ModelProfile>, accuracies: &[Accuracy]) -> Self {
        let macs = models.iter().map(|model| (model.model.as_str(), model.cost.actual.macs())).collect();
        Self { frames, cost_performance: cost_performance(&macs, accuracies), models }
    }

    /// Markdown tables: overview, parts, stages, cost against accuracy.
    pub fn to_markdown(&self) -> String {
        table::markdown(self)
    }
}
