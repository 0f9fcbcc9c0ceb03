//! The only inference path: one decoded cloud in, detections and counts out.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cloud::PointCloud;
use crate::model::spec::ModelSpec;
use crate::postprocess::Detection;
use crate::voxel::VoxelCounts;

/// A loaded model on its device, ready for clouds.
pub struct Pipeline {
    spec: ModelSpec,
}

/// How a model is run; nothing here changes what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineOptions {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Arithmetic of the convolutions.
    pub precision: Precision,
}

/// Arithmetic of the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 inside the convolutions, 32-bit at their borders.
    Bf16,
}

/// What one cloud gave.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameOutput {
    /// Best score first.
    pub detections: Vec<Detection>,
    /// Where the points went.
    pub voxels: VoxelCounts,
    /// Boxes over the thresholds before suppression.
    pub n_candidates: usize,
    /// Highest heat-map score of each class, whether or not it became a box (K).
    pub max_scores: Vec<f32>,
    /// Milliseconds per stage; measured, never used to decide anything.
    pub times: StageTimes,
}

/// Milliseconds per stage of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StageTimes {
    /// Points to pillars.
    pub voxelize_ms: f64,
    /// Pillar features.
    pub vfe_ms: f64,
    /// Pillars to the bird's-eye map.
    pub scatter_ms: f64,
    /// 2-D backbone.
    pub backbone_ms: f64,
    /// Heat map and regression maps.
    pub head_ms: f64,
    /// Peaks, boxes, filters, suppression.
    pub postprocess_ms: f64,
}

/// Why a pipeline could not be built or a frame not be processed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The cloud's columns are not the ones the model takes.
    #[error("cloud has columns {got:?}, the model takes {expected:?}")]
    Columns {
        /// Columns of the spec.
        expected: Vec<crate::cloud::Feature>,
        /// Columns of the cloud.
        got: Vec<crate::cloud::Feature>,
    },
    /// libtorch refused something.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Pipeline {
    /// Loads a model directory (see [`crate::model::directory`]).
    ///
    /// # Errors
    /// Everything that is wrong with the directory, or the device.
    pub fn load(_dir: &Path, _options: &PipelineOptions) -> Result<Self, PipelineError> {
        unimplemented!("the lead writes this")
    }

    /// What the weights dictate.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// One cloud through all stages.
    ///
    /// # Errors
    /// When the cloud's columns are not the model's, or libtorch fails.
    pub fn process(&mut self, _cloud: &PointCloud) -> Result<FrameOutput, PipelineError> {
        unimplemented!("the lead writes this")
    }
}
