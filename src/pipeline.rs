//! The only inference path: one decoded cloud in, detections and counts out.
//!
//! Nothing here depends on a clock, a random number, a file or the network: the same clouds give the same boxes. Stage times are
//! measured and reported, never used.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::cloud::{Feature, PointCloud};
use crate::device::{self, DeviceError};
use crate::model::center_head::HeadMaps;
use crate::model::directory::{self, DirectoryError};
use crate::model::fused::FusedNet;
use crate::model::net::Net;
use crate::model::params::{Params, Weights, differences};
use crate::model::spec::{ModelSpec, NmsSpec, SpecError};
use crate::postprocess::{self, Detection, Peaks, PostprocessError};
use crate::time::millis;
use crate::voxel::{VoxelCounts, VoxelTensors, Voxelizer, voxelize_on_device};

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
    /// bfloat16 from the bird's-eye map to the head's outputs; pillar features and boxes stay 32-bit.
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
    /// Boxes dropped because a score or a coordinate was not finite.
    pub n_non_finite_boxes: usize,
    /// Highest heat-map score of each class, whether or not it became a box (K).
    pub max_scores: Vec<f32>,
    /// Milliseconds per stage.
    pub times: StageTimes,
}

/// Milliseconds per stage of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StageTimes {
    /// Points to voxels.
    pub voxelize_ms: f64,
    /// Voxel features.
    pub vfe_ms: f64,
    /// Sparse 3-D backbone; 0 for pillar models.
    pub backbone_3d_ms: f64,
    /// Voxels to the bird's-eye map.
    pub scatter_ms: f64,
    /// 2-D backbone.
    pub backbone_ms: f64,
    /// Shared map, heat map, and the boxes' values at its peaks.
    pub head_ms: f64,
    /// Choosing peaks, boxes, filters, suppression.
    pub postprocess_ms: f64,
}

impl StageTimes {
    /// All stages together.
    pub fn total_ms(&self) -> f64 {
        self.voxelize_ms
            + self.vfe_ms
            + self.backbone_3d_ms
            + self.scatter_ms
            + self.backbone_ms
            + self.head_ms
            + self.postprocess_ms
    }
}

/// Why a pipeline could not be built or a frame not be processed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The model directory is not whole.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The weights are not those the spec needs.
    #[error("weights do not fit the spec `{name}`: {}", .problems.join("; "))]
    Weights {
        /// Name of the spec.
        name: String,
        /// Every difference.
        problems: Vec<String>,
    },
    /// Changed thresholds break a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The cloud's columns are not the ones the model takes.
    #[error("cloud has columns {got:?}, the model takes {expected:?}")]
    Columns {
        /// Columns of the spec.
        expected: Vec<Feature>,
        /// Columns of the cloud.
        got: Vec<Feature>,
    },
    /// Head maps could not be turned into boxes.
    #[error(transparent)]
    Postprocess(#[from] PostprocessError),
    /// libtorch refused something, for instance for want of memory.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// libtorch failed in the middle of the network; the device may need to be set up anew.
    #[error("the network failed: {0}")]
    Network(String),
}

/// Boxes of one cloud before and after suppression.
#[derive(Debug, Clone, PartialEq)]
pub struct Boxes {
    /// Over the thresholds and inside the limits, best first.
    pub decoded: Vec<Detection>,
    /// Dropped because not finite.
    pub n_non_finite: usize,
    /// What suppression leaves, best first.
    pub kept: Vec<Detection>,
}

/// A loaded model on its device, ready for clouds.
#[derive(Debug)]
pub struct Pipeline {
    spec: ModelSpec,
    net: FusedNet,
    voxelizer: Voxelizer,
    device: Device,
    device_reason: String,
}

impl Pipeline {
    /// Loads a model directory (see [`crate::model::directory`]).
    ///
    /// # Errors
    /// Everything that is wrong with the directory at once, or why the device cannot be had.
    pub fn load(dir: &Path, options: &PipelineOptions) -> Result<Self, PipelineError> {
        let model = directory::load(dir)?;
        Self::new(model.spec, &model.weights, options)
    }

    /// Builds a pipeline from a spec and weights in memory.
    ///
    /// # Errors
    /// When the weights are not the spec's, or the device cannot be had.
    pub fn new(spec: ModelSpec, weights: &Weights, options: &PipelineOptions) -> Result<Self, PipelineError> {
        spec.check(&spec.name)?;
        let problems = differences(&crate::model::expected_params(&spec), weights);
        if !problems.is_empty() {
            return Err(PipelineError::Weights { name: spec.name, problems });
        }
        let chosen = device::choose(&options.device)?;
        let kind = match options.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let net = guard(PipelineError::Network, || {
            let plain = Net::new(&Params::load(weights, chosen.device), &spec);
            Ok(FusedNet::new(&plain, &spec.grid(), spec.grid.max_points_per_voxel, kind))
        })?;
        let voxelizer = Voxelizer::new(spec.grid(), spec.caps());
        Ok(Self { spec, net, voxelizer, device: chosen.device, device_reason: chosen.reason })
    }

    /// What the weights dictate.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Suppresses boxes in another way from the next cloud on.
    pub fn set_nms(&mut self, nms: NmsSpec) {
        self.spec.postprocess.nms = nms;
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why it runs there, for the log.
    pub fn device_reason(&self) -> &str {
        &self.device_reason
    }

    /// One cloud through all stages. A cloud without a point in range gives no detections; the network is not asked.
    ///
    /// # Errors
    /// When the cloud's columns are not the model's, or libtorch fails. The pipeline keeps no state from frame to frame, so
    /// the next cloud is not affected unless the device itself is broken.
    pub fn process(&mut self, cloud: &PointCloud) -> Result<FrameOutput, PipelineError> {
        if cloud.features != self.spec.input.features {
            return Err(PipelineError::Columns { expected: self.spec.input.features.clone(), got: cloud.features.clone() });
        }
        guard(PipelineError::Network, || self.process_checked(cloud))
    }

    fn process_checked(&mut self, cloud: &PointCloud) -> Result<FrameOutput, PipelineError> {
        let device = self.device;
        let mut times = StageTimes::default();
        let voxels = timed(device, &mut times.voxelize_ms, || {
            voxelize_on_device(&mut self.voxelizer, &cloud.points, cloud.features.len(), device)
        })?;
        let mut output = FrameOutput {
            detections: Vec::new(),
            voxels: voxels.counts,
            n_candidates: 0,
            n_non_finite_boxes: 0,
            max_scores: vec![0.0; self.spec.classes.len()],
            times,
        };
        if voxels.counts.voxels == 0 {
            return Ok(output);
        }
        let (boxes, max_scores) = self.detect(&voxels, &mut output.times)?;
        output.n_candidates = boxes.decoded.len();
        output.n_non_finite_boxes = boxes.n_non_finite;
        output.detections = boxes.kept;
        output.max_scores = max_scores;
        Ok(output)
    }

    fn detect(&self, voxels: &VoxelTensors, times: &mut StageTimes) -> Result<(Boxes, Vec<f32>), PipelineError> {
        let (device, net) = (self.device, &self.net);
        let features = timed(device, &mut times.vfe_ms, || net.voxel_features(voxels)); // [P, C]
        let encoded = timed(device, &mut times.backbone_3d_ms, || net.encode(features, voxels));
        let map = timed(device, &mut times.scatter_ms, || net.map(&encoded, voxels)); // [1, C, H, W]
        let features_2d = timed(device, &mut times.backbone_ms, || net.backbone(&map)); // [1, C', H, W] each
        let (shared, heat_map) = timed(device, &mut times.head_ms, || {
            let shared = net.head.shared(&features_2d);
            let heat_map = net.head.heat_map(&shared);
            (shared, heat_map) // [1, C, H, W], [K, H, W]
        });
        let peaks =
            timed(device, &mut times.postprocess_ms, || postprocess::top_peaks(&heat_map, self.spec.postprocess.max_peaks))?;
        let regression = timed(device, &mut times.head_ms, || net.head.regression_at(&shared, &peaks.row, &peaks.col)); // [M, 8]
        timed(device, &mut times.postprocess_ms, || {
            let max_scores = heat_map.f_amax([1, 2], false)?.f_sigmoid()?;
            Ok((boxes_from_peaks(&peaks, &regression, &self.spec)?, Vec::<f32>::try_from(max_scores)?))
        })
    }
}

/// Boxes from peaks and the regression outputs at them.
///
/// # Shapes
/// - `regression`: `[M, 8]`
///
/// # Errors
/// When the two do not fit each other or the spec.
pub fn boxes_from_peaks(peaks: &Peaks, regression: &Tensor, spec: &ModelSpec) -> Result<Boxes, PostprocessError> {
    let decoded =
        postprocess::decode_boxes(peaks, regression, &spec.grid(), spec.network.stride(), &spec.classes, &spec.postprocess)?;
    let kept = postprocess::suppress(decoded.detections.clone(), &spec.postprocess.nms);
    Ok(Boxes { decoded: decoded.detections, n_non_finite: decoded.n_non_finite, kept })
}

/// Boxes from the full maps of one cloud, as the reference reads them: the plain twin of [`boxes_from_peaks`].
///
/// # Shapes
/// - `maps`: B = 1
///
/// # Errors
/// When the maps do not fit the spec.
pub fn boxes_from_maps(maps: &HeadMaps, spec: &ModelSpec) -> Result<Boxes, PostprocessError> {
    let peaks = postprocess::top_peaks(&maps.heat_map.f_squeeze_dim(0)?, spec.postprocess.max_peaks)?;
    let (_, channels, _, w) = maps.regression.size4()?;
    let cells = maps.regression.f_permute([0, 2, 3, 1])?.f_reshape([-1, channels])?; // [H * W, 8]
    let regression = cells.f_index_select(0, &(&peaks.row * w + &peaks.col))?;
    boxes_from_peaks(&peaks, &regression, spec)
}

/// Runs a stage and adds its time, waiting for the device before and after so that no stage pays for another.
fn timed<T>(device: Device, total_ms: &mut f64, stage: impl FnOnce() -> T) -> T {
    device::synchronize(device);
    let start = Instant::now();
    let result = stage();
    device::synchronize(device);
    *total_ms += millis(start.elapsed());
    result
}

/// Runs libtorch code without gradients and turns its panics, which are how tch reports a failed operation, into errors;
/// `refused` makes one of what was wrong.
pub(crate) fn guard<T, E>(refused: impl FnOnce(String) -> E, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    // tch::no_grad restores nothing when its body panics, so the panic ends inside.
    tch::no_grad(|| catch_unwind(AssertUnwindSafe(body))).unwrap_or_else(|panic| {
        // libtorch appends its whole stack and the list of its backends; what is wrong stands before them.
        let reason = panic_text(panic.as_ref()).split('\n').next().unwrap_or_default();
        Err(refused(reason.split("\\n").next().unwrap_or_default().to_owned()))
    })
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message")
}
