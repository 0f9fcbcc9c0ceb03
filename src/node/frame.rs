//! One cloud after the other through decoder and pipeline, with everything a frame can do wrong caught here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::config::{NodeConfig, OutputFilter};
use super::error::{FrameFault, NodeError};
use super::output::{frame_flags, jumped_back};
use crate::cloud::PointCloud;
use crate::cloud::decode::{CloudDecoder, DecodeReport};
use crate::model::spec::{ModelSpec, NmsSpec};
use crate::msgs::cdr;
use crate::msgs::sensor_msgs::PointCloud2Ref;
use crate::msgs::std_msgs::Header;
use crate::pipeline::{FrameOutput, Pipeline, PipelineError, panic_text};
use crate::postprocess::Detection;
use crate::time::{Stamp, millis};

/// Failures in a row after which the device counts as broken.
const MAX_FAILURES: u32 = 3;

/// Points along each side of the warm-up cloud's square lattice.
const WARM_UP_SIDE: usize = 64;

/// What one cloud gave.
pub(super) struct Frame {
    pub(super) header: Header,
    /// After the node's filters, best first.
    pub(super) detections: Vec<Detection>,
    pub(super) output: FrameOutput,
    pub(super) decoded: DecodeReport,
    pub(super) decode_ms: f64,
    pub(super) total_ms: f64,
    pub(super) flags: Vec<String>,
}

/// A cloud that gave nothing; the header is empty when not even that could be read.
pub(super) struct FailedFrame {
    pub(super) header: Header,
    pub(super) fault: FrameFault,
}

/// Decoder, pipeline and what they reuse from cloud to cloud.
pub(super) struct FrameWorker {
    pipeline: Pipeline,
    decoder: CloudDecoder,
    cloud: PointCloud,
    filter: OutputFilter,
    /// As the model has it.
    nms: NmsSpec,
    max_points: u64,
    last_stamp: Option<Stamp>,
}

impl FrameWorker {
    /// Takes a loaded pipeline and runs a cloud through it, so that the first real one does not pay for libtorch's set-up.
    ///
    /// # Errors
    /// When the parameters do not fit the decoder, or the pipeline fails.
    pub(super) fn new(pipeline: Pipeline, config: &NodeConfig) -> Result<Self, NodeError> {
        let mut input = pipeline.spec().input.clone();
        input.fill_absent.extend(&config.cloud.fill_absent);
        let decoder = CloudDecoder::new(&input, &config.cloud.sensor).map_err(NodeError::Cloud)?;
        let mut worker = Self {
            nms: pipeline.spec().postprocess.nms,
            pipeline,
            decoder,
            cloud: PointCloud::default(),
            filter: OutputFilter::default(),
            max_points: config.cloud.max_points,
            last_stamp: None,
        };
        worker.warm_up()?;
        worker.apply(config);
        Ok(worker)
    }

    /// What may change between two clouds.
    pub(super) fn apply(&mut self, config: &NodeConfig) {
        self.filter = config.filter.clone();
        let nms = config.nms_iou.and_then(|iou| self.nms.with_iou(iou)).unwrap_or(self.nms);
        self.pipeline.set_nms(nms);
    }

    /// The model's spec.
    pub(super) fn spec(&self) -> &ModelSpec {
        self.pipeline.spec()
    }

    /// Replaces the pipeline and runs a cloud through it.
    pub(super) fn rebuild(&mut self, pipeline: Pipeline, config: &NodeConfig) -> Result<(), PipelineError> {
        self.pipeline = pipeline;
        self.apply(config);
        self.warm_up()
    }

    fn warm_up(&mut self) -> Result<(), PipelineError> {
        let cloud = lattice_cloud(self.pipeline.spec());
        self.pipeline.process(&cloud).map(drop)
    }

    /// The message in `bytes` through all stages. A panic is a fault like any other: frames share only buffers, which are
    /// replaced after one.
    pub(super) fn process(&mut self, bytes: &[u8]) -> Result<Frame, FailedFrame> {
        let started = Instant::now();
        let message: PointCloud2Ref<'_> = cdr::from_bytes(bytes)
            .map_err(|error| FailedFrame { header: Header::default(), fault: FrameFault::Message(error) })?;
        let result = catch_unwind(AssertUnwindSafe(|| self.process_message(&message, started)));
        let result = result.unwrap_or_else(|panic| {
            self.cloud = PointCloud::default();
            Err(FrameFault::Panic(panic_text(panic.as_ref()).to_owned()))
        });
        result.map_err(|fault| FailedFrame { header: message.header, fault })
    }

    fn process_message(&mut self, message: &PointCloud2Ref<'_>, started: Instant) -> Result<Frame, FrameFault> {
        let n_points = u64::from(message.height) * u64::from(message.width);
        if n_points > self.max_points {
            return Err(FrameFault::TooManyPoints { got: n_points, limit: self.max_points });
        }
        let decoded = self.decoder.decode(message, &mut self.cloud).map_err(FrameFault::Cloud)?;
        let decode_ms = millis(started.elapsed());
        let output = self.pipeline.process(&self.cloud)?;
        let detections = self.filter.apply(output.detections.clone(), &self.pipeline.spec().classes);
        let flags = frame_flags(&output, &decoded, jumped_back(&mut self.last_stamp, self.cloud.stamp));
        let total_ms = millis(started.elapsed());
        Ok(Frame { header: message.header.clone(), detections, output, decoded, decode_ms, total_ms, flags })
    }
}

/// When to try again, to rebuild the pipeline, and to give up: a broken CUDA context does not heal by itself.
#[derive(Debug, Default)]
pub(super) struct FailureStreak {
    n_failures: u32,
    rebuilt: bool,
}

/// What to do after a failure of the device.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Wait for the next cloud.
    GoOn,
    /// Set the pipeline up anew.
    Rebuild,
    /// End the process, so that whoever launched it can start it again.
    GiveUp {
        /// Failures in a row.
        n_failures: u32,
    },
}

impl FailureStreak {
    /// A frame that went well. One whose cloud was to blame says nothing of the device and is told to nobody here.
    pub(super) fn healthy(&mut self) {
        self.n_failures = 0;
    }

    /// A frame that the device failed.
    pub(super) fn failed(&mut self) -> Remedy {
        self.n_failures += 1;
        if self.n_failures < MAX_FAILURES {
            return Remedy::GoOn;
        }
        if self.rebuilt {
            return Remedy::GiveUp { n_failures: self.n_failures };
        }
        self.rebuilt = true;
        self.n_failures = 0;
        Remedy::Rebuild
    }
}

/// Points evenly over the model's range, at half its height; all other columns zero.
fn lattice_cloud(spec: &ModelSpec) -> PointCloud {
    let grid = spec.grid();
    let at = |axis: usize, share: f32| grid.range_min[axis] + share * (grid.range_max[axis] - grid.range_min[axis]);
    let n_columns = spec.input.features.len();
    let mut points = vec![0.0; WARM_UP_SIDE * WARM_UP_SIDE * n_columns];
    for (point_idx, row) in points.chunks_exact_mut(n_columns).enumerate() {
        let share = |step: usize| (step as f32 + 0.5) / WARM_UP_SIDE as f32;
        row[0] = at(0, share(point_idx % WARM_UP_SIDE));
        row[1] = at(1, share(point_idx / WARM_UP_SIDE));
        row[2] = at(2, 0.5);
    }
    PointCloud { features: spec.input.features.clone(), points, ..PointCloud::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_failures_in_a_row_rebuild_once_and_then_end_the_node() {
        let mut streak = FailureStreak::default();
        assert_eq!([streak.failed(), streak.failed()], [Remedy::GoOn, Remedy::GoOn]);
        streak.healthy();
        assert_eq!([streak.failed(), streak.failed()], [Remedy::GoOn, Remedy::GoOn], "a good frame ends the streak");
        assert_eq!(streak.failed(), Remedy::Rebuild);
        assert_eq!([streak.failed(), streak.failed()], [Remedy::GoOn, Remedy::GoOn], "the new pipeline gets its chances");
        assert_eq!(streak.failed(), Remedy::GiveUp { n_failures: 3 });
    }

    #[test]
    fn warm_up_cloud_fills_the_range_of_every_built_in_model() {
        for name in ModelSpec::builtin_names() {
            let spec = ModelSpec::builtin(name).expect(name);
            let (grid, cloud) = (spec.grid(), lattice_cloud(&spec));
            assert_eq!(cloud.n_points(), WARM_UP_SIDE * WARM_UP_SIDE);
            for row in cloud.rows() {
                let inside = (0..3).all(|axis| grid.range_min[axis] <= row[axis] && row[axis] < grid.range_max[axis]);
                assert!(inside && row.len() == spec.input.features.len(), "{name}: {row:?}");
            }
        }
    }
}
