//! Milliseconds of each stage, measured through the pipeline that the node runs.

use serde::Serialize;

use crate::cloud::PointCloud;
use crate::device;
use crate::pipeline::{Pipeline, PipelineError, Precision, StageTimes};
use crate::replay::latency::LatencyStats;

/// How latency is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySettings {
    /// Frames processed before the clock counts.
    pub warm_up: usize,
    /// Frames timed; clouds are taken in turn.
    pub n_frames: usize,
}

/// What was measured where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads of tensor operations.
    pub cpu_threads: i32,
    /// Arithmetic of the convolutions.
    pub precision: Precision,
    /// Frames processed before the clock counted.
    pub warm_up: usize,
    /// Stages in their order, then `total`: from decoded points to boxes.
    pub stages: Vec<StageLatency>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageLatency {
    /// `voxelize`, `vfe`, `backbone_3d`, `scatter`, `backbone`, `head`, `postprocess` or `total`.
    pub stage: &'static str,
    /// Over the timed frames.
    #[serde(flatten)]
    pub stats: LatencyStats,
}

type TimeOf = fn(&StageTimes) -> f64;

const STAGES: [(&str, TimeOf); 8] = [
    ("voxelize", |times| times.voxelize_ms),
    ("vfe", |times| times.vfe_ms),
    ("backbone_3d", |times| times.backbone_3d_ms),
    ("scatter", |times| times.scatter_ms),
    ("backbone", |times| times.backbone_ms),
    ("head", |times| times.head_ms),
    ("postprocess", |times| times.postprocess_ms),
    ("total", StageTimes::total_ms),
];

impl Latency {
    /// Of a stage or of `total`.
    pub fn of(&self, stage: &str) -> Option<LatencyStats> {
        self.stages.iter().find(|line| line.stage == stage).map(|line| line.stats)
    }
}

/// Times a pipeline on clouds that have the columns of its model; `None` without a cloud or a timed frame.
///
/// # Errors
/// The first failed frame.
pub fn measure(
    pipeline: &mut Pipeline,
    precision: Precision,
    clouds: &[PointCloud],
    settings: LatencySettings,
) -> Result<Option<Latency>, PipelineError> {
    let mut times = Vec::with_capacity(settings.n_frames);
    for (index, cloud) in clouds.iter().cycle().take(settings.warm_up + settings.n_frames).enumerate() {
        let output = pipeline.process(cloud)?;
        if index >= settings.warm_up {
            times.push(output.times);
        }
    }
    let stages = STAGES.iter().filter_map(|&(stage, time_of)| {
        let values: Vec<f64> = times.iter().map(time_of).collect();
        Some(StageLatency { stage, stats: LatencyStats::of(&values)? })
    });
    let stages: Vec<_> = stages.collect();
    Ok((!stages.is_empty()).then(|| Latency {
        device: device::name(pipeline.device()),
        cpu_threads: device::cpu_threads(),
        precision,
        warm_up: settings.warm_up,
        stages,
    }))
}
