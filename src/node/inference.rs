//! The inference thread: newest cloud in, messages out, until it is told to stop or the device is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::autoware::detections_to_autoware;
use super::config::NodeConfig;
use super::error::NodeError;
use super::frame::{FailedFrame, FailureStreak, Frame, FrameWorker, Remedy};
use super::health::FrameEvent;
use super::live::LiveParams;
use super::logging::now;
use super::output::{FrameFacts, TIME_JUMP_BACK, detections_to_markers, detections_to_msg, failed_report, report_to_msg};
use super::run::Shared;
use super::timings::{Measured, Timings};
use crate::device;
use crate::model::directory;
use crate::msgs::pivotal_msgs::FrameReport;
use crate::msgs::{Message, cdr};
use crate::pipeline::Pipeline;
use crate::time::{Stamp, Throttle, millis};
use crate::transport::{Publisher, Sample, TransportError};

/// How long to wait for a cloud before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// Between two log lines of one kind.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// The topics the inference thread publishes.
pub(super) struct Outputs {
    pub(super) objects: Publisher,
    pub(super) markers: Option<Publisher>,
    pub(super) report: Option<Publisher>,
    pub(super) autoware: Option<Publisher>,
    pub(super) timings: Option<Timings>,
}

impl Outputs {
    fn has_subscribers(&self) -> bool {
        let optional = [&self.markers, &self.report, &self.autoware].into_iter().flatten();
        std::iter::once(&self.objects).chain(optional).any(|publisher| publisher.matched() > 0)
            || self.timings.as_ref().is_some_and(Timings::has_subscribers)
    }
}

/// What the thread is given.
#[derive(Clone)]
pub(super) struct Inference {
    pub(super) live: Arc<LiveParams>,
    pub(super) outputs: Arc<Outputs>,
    pub(super) shared: Arc<Shared>,
}

impl Inference {
    /// Loads the model, says that it is ready, then processes clouds until told to stop.
    ///
    /// # Errors
    /// [`NodeError`] for a model or device that cannot be used, and for a device that keeps failing.
    pub(super) fn run(self, ready: oneshot::Sender<()>) -> Result<(), NodeError> {
        let mut version = self.live.version();
        let mut config = self.live.current().to_config();
        let mut worker = self.start(&config)?;
        // The receiver is gone only when the node ends.
        let _ = ready.send(());
        let mut last_frame = None;
        let mut streak = FailureStreak::default();
        let mut faults = Throttle::new(LOG_PERIOD);
        let mut unpublished = Throttle::new(LOG_PERIOD);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let sample = self.shared.input.recv(POLL)?;
            self.shared.observe_input();
            let Some(sample) = sample else { continue };
            if std::mem::replace(&mut version, self.live.version()) != version {
                config = self.live.current().to_config();
                worker.apply(&config);
            }
            let is_wanted = config.process_without_subscribers || self.outputs.has_subscribers();
            if !self.shared.enabled.load(Ordering::Relaxed) || !is_wanted {
                self.shared.health().frame(FrameEvent::Skipped);
                self.shared.changed.notify_one();
                continue;
            }
            // Before the frame: what comes while it is in work is counted by the next.
            let overwritten = self.shared.input.overwritten();
            match worker.process(&sample.bytes) {
                Ok(frame) => {
                    streak.healthy();
                    let since_last = last_frame.replace(sample.received).map(|last| sample.received.duration_since(last));
                    let context = FrameContext { config: &config, classes: &worker.spec().classes, overwritten, since_last };
                    let published = self.publish(&sample, &context, frame);
                    if let (Err(error), Some(n_more)) = (&published, unpublished.due(Instant::now())) {
                        tracing::warn!("not published: {error} ({n_more} more since the last such line)");
                    }
                }
                Err(failed) => {
                    let remedy = if failed.fault.is_device_fault() { streak.failed() } else { Remedy::GoOn };
                    let reason = failed.fault.to_string();
                    if let Some(n_more) = faults.due(Instant::now()) {
                        tracing::error!("a cloud failed: {reason} ({n_more} more since the last such line)");
                    }
                    self.report_failure(&failed, overwritten, &reason);
                    match remedy {
                        Remedy::GoOn => {}
                        Remedy::Rebuild => self.rebuild(&mut worker, &config)?,
                        Remedy::GiveUp { n_failures } => return Err(NodeError::DeviceLost { n_failures, reason }),
                    }
                }
            }
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    fn start(&self, config: &NodeConfig) -> Result<FrameWorker, NodeError> {
        let started = Instant::now();
        if let Some(n_threads) = config.num_threads {
            device::set_cpu_threads(n_threads);
        }
        let (pipeline, model) = load(config)?;
        self.live.bind(pipeline.spec())?;
        tracing::info!("loaded {model}");
        let device = format!("{} ({})", device::name(pipeline.device()), pipeline.device_reason());
        let worker = FrameWorker::new(pipeline, config)?;
        let cold_start_ms = millis(started.elapsed());
        let topic = self.shared.input.topic();
        tracing::info!("ready: model {model} on {device} after {cold_start_ms:.0} ms, waiting for clouds on {topic}");
        self.shared.health().ready(model, device, cold_start_ms);
        self.shared.changed.notify_one();
        Ok(worker)
    }

    fn rebuild(&self, worker: &mut FrameWorker, config: &NodeConfig) -> Result<(), NodeError> {
        tracing::error!("several clouds in a row failed: rebuilding the pipeline");
        worker.rebuild(load(config)?.0, config)?;
        self.shared.health().rebuilt();
        Ok(())
    }

    /// Publishes a frame's messages and tells the health. The objects come first: what follows does not delay them.
    fn publish(&self, sample: &Sample, context: &FrameContext<'_>, frame: Frame) -> Result<(), TransportError> {
        let FrameContext { config, classes, overwritten, since_last } = *context;
        let Frame { header, detections, output, decoded, decode_ms, total_ms, mut flags } = frame;
        if let Some(description) = decoded.layout_changed {
            tracing::info!("cloud layout: {description}");
            self.shared.health().layout_changed(description);
        }
        if flags.iter().any(|flag| flag == TIME_JUMP_BACK) {
            tracing::info!("the clouds' stamps jumped back to {}.{:09}", header.stamp.sec, header.stamp.nanosec);
        }
        self.shared.set_newest_stamp(header.stamp.into());
        let mut result = self.outputs.objects.publish(&cdr::to_bytes(&detections_to_msg(&detections, classes, &header)));
        let latency_ms = millis(sample.received.elapsed());
        let n_published = if result.is_ok() { detections.len() } else { 0 };
        if result.is_err() {
            flags.push(FrameReport::NOT_PUBLISHED.to_owned());
        }
        if let Some(markers) = &self.outputs.markers {
            let sent = send(markers, || detections_to_markers(&detections, classes, &header, config.marker_lifetime_s));
            result = result.and(sent);
        }
        if let Some(autoware) = &self.outputs.autoware {
            let sent = send(autoware, || detections_to_autoware(&detections, classes, &config.autoware_labels, &header));
            result = result.and(sent);
        }
        if let Some(timings) = &self.outputs.timings {
            // Simulated time is known from clouds alone, so nothing is known of how old they are.
            let age_ms = (now().nanos - Stamp::from(header.stamp).nanos) as f64 * 1e-6;
            let measured = Measured {
                total_ms,
                since_stamp_ms: Some(age_ms).filter(|_| !config.use_sim_time),
                since_last_ms: since_last.map(millis),
                decode_ms,
                stages: output.times,
            };
            result = result.and(timings.publish(header.stamp, &measured));
        }
        if let Some(report) = &self.outputs.report {
            let facts = FrameFacts {
                points_received: decoded.received,
                points_non_finite: decoded.non_finite,
                n_published,
                decode_ms,
                total_ms,
                latency_ms,
                clouds_overwritten: overwritten,
                clouds_failed: self.shared.health().n_failed(),
                flags: flags.clone(),
            };
            result = result.and(send(report, || report_to_msg(&header, &output, facts)));
        }
        let mut health = self.shared.health();
        health.frame(FrameEvent::Processed { latency_ms, total_ms, n_objects: n_published, flags });
        if result.is_err() {
            health.not_published();
        }
        result
    }

    fn report_failure(&self, failed: &FailedFrame, overwritten: u64, reason: &str) {
        let mut health = self.shared.health();
        health.frame(FrameEvent::Failed { reason: reason.to_owned() });
        let n_failed = health.n_failed();
        drop(health);
        if let Some(report) = &self.outputs.report {
            let sent = send(report, || failed_report(&failed.header, reason, overwritten, n_failed));
            if sent.is_err() {
                self.shared.health().not_published();
            }
        }
    }
}

/// The pipeline, and the model's name with the hash of its weights.
fn load(config: &NodeConfig) -> Result<(Pipeline, String), NodeError> {
    let model = directory::load(&config.model_dir)?;
    let identity = format!("{} sha256:{}", model.spec.name, model.sha256);
    Ok((Pipeline::new(model.spec, &model.weights, &config.pipeline)?, identity))
}

/// What is known of a frame beside what the worker gives.
struct FrameContext<'a> {
    config: &'a NodeConfig,
    classes: &'a [String],
    /// Clouds replaced by newer ones before this one was taken, since the start.
    overwritten: u64,
    /// Since the cloud before this one was received.
    since_last: Option<Duration>,
}

/// Publishes a message if anybody would see it; it is not even built otherwise.
fn send<M: Message>(publisher: &Publisher, message: impl FnOnce() -> M) -> Result<(), TransportError> {
    if publisher.matched() == 0 {
        return Ok(());
    }
    publisher.publish(&cdr::to_bytes(&message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::decode::DecodeReport;
    use crate::geometry::Box3d;
    use crate::msgs::sensor_msgs::PointCloud2;
    use crate::msgs::std_msgs::Header;
    use crate::msgs::vision_msgs::Detection3DArray;
    use crate::node::args::split_ros_args;
    use crate::node::config::ResolvedParams;
    use crate::node::health::{Health, Identity};
    use crate::pipeline::{FrameOutput, StageTimes};
    use crate::postprocess::Detection;
    use crate::transport::names::TopicName;
    use crate::transport::{Qos, Transport};
    use crate::voxel::VoxelCounts;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).expect("a topic")
    }

    fn inference(bus: &Transport, objects: Publisher) -> Inference {
        let args = ["--ros-args", "-p", "model_dir:=/m"].map(str::to_owned);
        let (_, ros) = split_ros_args(args).expect("ROS arguments");
        let params = ResolvedParams::new(&ros.params, "/d").expect("parameters");
        let live = Arc::new(LiveParams::new(params));
        let input = bus.subscribe(&topic("/points"), &PointCloud2::TYPE, Qos::SENSOR).expect("a subscription");
        let report = bus.advertise(&topic("/report"), &FrameReport::TYPE, Qos::RELIABLE).expect("a publisher");
        let shared = Shared::new(input, Health::new(Identity::default(), Duration::from_secs(2), Instant::now()));
        let outputs = Outputs { objects, markers: None, report: Some(report), autoware: None, timings: None };
        Inference { live, outputs: Arc::new(outputs), shared: Arc::new(shared) }
    }

    /// A frame in which one object was found.
    fn frame() -> Frame {
        let found = Detection { box3d: Box3d { center: [0.0; 3], size: [1.0; 3], yaw: 0.0 }, score: 0.5, class_idx: 0 };
        let output = FrameOutput {
            detections: Vec::new(),
            voxels: VoxelCounts::default(),
            n_candidates: 1,
            n_non_finite_boxes: 0,
            max_scores: vec![0.5],
            times: StageTimes::default(),
        };
        Frame {
            header: Header::default(),
            detections: vec![found],
            output,
            decoded: DecodeReport::default(),
            decode_ms: 1.0,
            total_ms: 2.0,
            flags: vec!["point_cap".to_owned()],
        }
    }

    #[test]
    fn objects_that_are_refused_are_reported_as_not_published() {
        let bus = Transport::inproc();
        let reports = bus.subscribe(&topic("/report"), &FrameReport::TYPE, Qos::RELIABLE).expect("a subscription");
        let usual = || bus.advertise(&topic("/objects"), &Detection3DArray::TYPE, Qos::RELIABLE).expect("a publisher");
        let cases: [(_, _, &[&str], _); 2] = [
            (usual(), 1, &["point_cap"], 0),
            (Publisher::refusing(topic("/objects")), 0, &["point_cap", FrameReport::NOT_PUBLISHED], 1),
        ];
        for (objects, n_objects, flags, n_refused) in cases {
            let inference = inference(&bus, objects);
            let sample = Sample { bytes: Vec::new().into(), received: Instant::now() };
            let (config, classes) = (inference.live.current().to_config(), ["Vehicle".to_owned()]);
            let context = FrameContext { config: &config, classes: &classes, overwritten: 7, since_last: None };
            let result = inference.publish(&sample, &context, frame());
            assert_eq!(result.is_err(), n_refused > 0);
            let sample = reports.recv(Duration::ZERO).expect("open").expect("a report");
            let report: FrameReport = cdr::from_bytes(&sample.bytes).expect("a report");
            assert_eq!(report.detections, n_objects);
            assert_eq!(report.flags, flags);
            assert_eq!((report.objects_published(), report.clouds_overwritten), (n_refused == 0, 7));
            let status = inference.shared.health().status(Instant::now());
            let value = |key| status.values.iter().find(|pair| pair.key == key).map(|pair| pair.value.clone());
            assert_eq!(value("messages_not_published"), Some(n_refused.to_string()));
            assert_eq!(value("objects"), Some(n_objects.to_string()));
        }
    }
}
