//! The replay itself: one loop over the bag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::latency::FrameTimes;
use super::out_dir::OutDir;
use super::outputs::{CloudMessage, Outputs, Processed};
use super::page::{FrameCounts, FrameRow};
use super::pictures::Pictures;
use super::summary::{MalformedCloud, ModelInfo, ReplaySummary};
use super::topics::{choose_cloud_topic, find_topic};
use super::truth::{Truth, TruthMatches};
use super::{Progress, ReplayError, ReplayOptions, finish};
use crate::bag::{BagMessage, BagReader, TopicInfo};
use crate::cloud::PointCloud;
use crate::cloud::decode::CloudDecoder;
use crate::geometry::Box3d;
use crate::model::spec::ModelSpec;
use crate::msgs::sensor_msgs::PointCloud2Ref;
use crate::msgs::std_msgs::Header;
use crate::msgs::tf2_msgs::TFMessage;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::{Message, cdr};
use crate::node::output::{frame_flags, jumped_back};
use crate::pipeline::Pipeline;
use crate::time::{Stamp, millis};

/// Replays a bag. `progress` is called after every cloud; once `stop` is set, the cloud in work is the last one and all
/// files are finished.
///
/// Clouds that cannot be decoded or processed and unreadable parts of the bag are counted, listed in the summary
/// ([`ReplaySummary::loss`]) and stepped over.
///
/// # Errors
/// [`ReplayError`]: before anything is written when the bag, the topic, an option or the output folder is wrong; later only
/// when a file cannot be written.
pub fn run(
    options: &ReplayOptions,
    pipeline: &mut Pipeline,
    model: &ModelInfo,
    progress: &mut dyn FnMut(&Progress),
    stop: &AtomicBool,
) -> Result<ReplaySummary, ReplayError> {
    let started = Instant::now();
    let bag = BagReader::open(&options.bag)?;
    let topics = bag.topics().to_vec();
    let cloud_topic_idx = choose_cloud_topic(&topics, options.topic.as_deref())?;
    let topic = topics[cloud_topic_idx].name.as_str();
    check_score_threshold(options.score_threshold)?;
    let window = Window::new(options, bag.summary().start_ns.unwrap_or(0))?;
    let mut decoder = CloudDecoder::new(&pipeline.spec().input, &options.sensor).map_err(ReplayError::Sensor)?;
    let (truth, truth_losses) = options.truth_topic.as_deref().map(|name| read_truth(&bag, name)).transpose()?.unzip();
    let dir = OutDir { root: options.out.clone() };
    let pictures = Pictures::new(dir.frames(), &options.pictures, pipeline.spec())?;
    dir.prepare(options.overwrite)?;
    let outputs = Outputs::create(&dir, options.foxglove, pipeline.spec().classes.clone())?;
    let mut replay = Replay::new(options, pipeline.spec(), topic, truth, outputs, pictures);

    let n_promised = topics[cloud_topic_idx].message_count.min(options.max_frames.unwrap_or(u64::MAX));
    let is_cloud_topic = |info: &TopicInfo| *info == topics[cloud_topic_idx];
    let is_passed_on = |info: &TopicInfo| options.foxglove && info.type_name == TFMessage::TYPE.ros;
    let mut losses = truth_losses.unwrap_or_default();
    let mut messages = bag.messages(|info| is_cloud_topic(info) || is_passed_on(info));
    loop {
        let read_started = Instant::now();
        let message = match messages.next() {
            Some(Ok(message)) => message,
            Some(Err(loss)) => {
                losses.push(loss.to_string());
                continue;
            }
            None => break,
        };
        if message.log_time_ns < 0 {
            losses.push(negative_time(&topics[message.topic_idx].name, message.log_time_ns));
        } else if message.topic_idx != cloud_topic_idx {
            replay.pass_on(&topics[message.topic_idx].name, &message)?;
        } else if window.holds(message.log_time_ns) {
            replay.take_cloud(pipeline, &mut decoder, &message, millis(read_started.elapsed()))?;
            progress(&Progress { n_done: replay.n_clouds, n_promised });
        }
        let at_limit = options.max_frames.is_some_and(|max_frames| replay.n_clouds >= max_frames);
        if at_limit || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let interrupted = stop.load(Ordering::Relaxed);
    let is_truth = |info: &TopicInfo| options.truth_topic.as_ref() == Some(&info.name);
    let other_topics = topics.iter().filter(|info| !is_cloud_topic(info) && !is_passed_on(info) && !is_truth(info));
    let other_topics = other_topics.map(|info| (info.name.clone(), info.type_name.clone())).collect();
    let wall_s = started.elapsed().as_secs_f64();
    finish::finish(
        replay,
        options,
        &dir,
        model,
        finish::Ending { losses, notes: bag.notes().to_vec(), interrupted, other_topics, wall_s },
    )
}

/// What grows while the bag is read.
pub(super) struct Replay<'a> {
    pub(super) topic: &'a str,
    pub(super) class_names: Vec<String>,
    range: [f32; 6],
    score_threshold: f32,
    pub(super) outputs: Outputs,
    pictures: Pictures,
    truth: Option<Truth>,
    pub(super) matches: Option<TruthMatches>,
    cloud: PointCloud,
    last_stamp: Option<Stamp>,
    pub(super) n_clouds: u64,
    pub(super) rows: Vec<FrameRow>,
    pub(super) times: Vec<FrameTimes>,
    pub(super) malformed: Vec<MalformedCloud>,
    pub(super) boxes_per_class: Vec<u64>,
    pub(super) frame_id: String,
}

impl<'a> Replay<'a> {
    fn new(
        options: &ReplayOptions,
        spec: &ModelSpec,
        topic: &'a str,
        truth: Option<Truth>,
        outputs: Outputs,
        pictures: Pictures,
    ) -> Self {
        let class_names = spec.classes.clone();
        Self {
            topic,
            outputs,
            pictures,
            truth,
            matches: options.truth_topic.as_deref().map(|name| TruthMatches::new(name, &class_names)),
            cloud: PointCloud::default(),
            last_stamp: None,
            n_clouds: 0,
            rows: Vec::new(),
            times: Vec::new(),
            malformed: Vec::new(),
            boxes_per_class: vec![0; class_names.len()],
            frame_id: String::new(),
            class_names,
            range: spec.grid.range,
            score_threshold: options.score_threshold,
        }
    }

    fn pass_on(&mut self, topic: &str, message: &BagMessage) -> Result<(), ReplayError> {
        self.outputs.write_foxglove(topic, TFMessage::TYPE, message.log_time_ns, &message.data)
    }

    fn take_cloud(
        &mut self,
        pipeline: &mut Pipeline,
        decoder: &mut CloudDecoder,
        message: &BagMessage,
        read_ms: f64,
    ) -> Result<(), ReplayError> {
        let index = self.n_clouds;
        self.n_clouds += 1;
        let mut times = FrameTimes { index, read_ms, ..FrameTimes::default() };
        let cloud_message = CloudMessage { index, topic: self.topic, log_time_ns: message.log_time_ns, cdr: &message.data };
        match self.process(pipeline, decoder, &message.data, &mut times) {
            Ok(frame) => self.write_frame(&cloud_message, &frame, times),
            Err((header, reason)) => self.note_malformed(&cloud_message, header, reason),
        }
    }

    /// The part a live node does too. The error is what was readable of the header and the reason.
    fn process(
        &mut self,
        pipeline: &mut Pipeline,
        decoder: &mut CloudDecoder,
        bytes: &[u8],
        times: &mut FrameTimes,
    ) -> Result<Processed, (Option<Header>, String)> {
        let started = Instant::now();
        let message: PointCloud2Ref<'_> = cdr::from_bytes(bytes).map_err(|fault| (None, fault.to_string()))?;
        let decoded =
            decoder.decode(&message, &mut self.cloud).map_err(|fault| (Some(message.header.clone()), fault.to_string()))?;
        times.decode_ms = millis(started.elapsed());
        let mut output = pipeline.process(&self.cloud).map_err(|fault| (Some(message.header.clone()), fault.to_string()))?;
        output.detections.retain(|detection| detection.score > self.score_threshold);
        times.total_ms = millis(started.elapsed());
        times.stages = output.times;
        if let Some(layout) = &decoded.layout_changed {
            tracing::info!("{}: {layout}", self.topic);
        }
        let flags = frame_flags(&output, &decoded, jumped_back(&mut self.last_stamp, self.cloud.stamp));
        Ok(Processed { header: message.header, decoded, output, flags })
    }

    fn write_frame(&mut self, message: &CloudMessage<'_>, frame: &Processed, mut times: FrameTimes) -> Result<(), ReplayError> {
        let Processed { header, decoded, output, flags } = frame;
        let write_started = Instant::now();
        self.outputs.write_detections(message, frame)?;
        times.write_ms = millis(write_started.elapsed());

        let truth = self.truth.as_ref().map(|truth| truth.at(self.cloud.stamp));
        if let (Some(matches), Some(Some(truth))) = (&mut self.matches, truth) {
            matches.add_frame(&output.detections, &self.class_names, truth, self.range);
        }
        let truth_boxes: Option<Vec<Box3d>> =
            truth.map(|truth| truth.unwrap_or_default().iter().map(|true_box| true_box.box3d).collect());
        let picture_started = Instant::now();
        let picture =
            self.pictures.draw(message.index, message.topic, &self.cloud, &output.detections, truth_boxes.as_deref())?;
        if picture.is_some() {
            times.picture_ms = millis(picture_started.elapsed());
        }

        for detection in &output.detections {
            if let Some(n_boxes) = self.boxes_per_class.get_mut(detection.class_idx) {
                *n_boxes += 1;
            }
        }
        self.frame_id.clone_from(&header.frame_id);
        let counts = FrameCounts {
            points: decoded.received,
            in_voxels: output.voxels.in_voxels,
            voxels: output.voxels.voxels,
            boxes: output.detections.len(),
            best_score: output.detections.first().map(|detection| detection.score),
            flags: flags.clone(),
        };
        let stamp = Some((header.stamp.sec, header.stamp.nanosec));
        self.rows.push(FrameRow { index: message.index, stamp, outcome: Ok(counts), picture });
        self.times.push(times);
        Ok(())
    }

    fn note_malformed(&mut self, message: &CloudMessage<'_>, header: Option<Header>, reason: String) -> Result<(), ReplayError> {
        tracing::warn!("{}: cloud {}: {reason}", message.topic, message.index);
        self.outputs.write_malformed(message, header.as_ref(), &reason)?;
        let stamp = header.map(|header| (header.stamp.sec, header.stamp.nanosec));
        self.rows.push(FrameRow { index: message.index, stamp, outcome: Err(reason.clone()), picture: None });
        self.malformed.push(MalformedCloud { index: message.index, log_time_ns: message.log_time_ns, stamp, reason });
        Ok(())
    }
}

/// The part of the bag that is replayed, by log time.
struct Window {
    from_ns: i64,
    until_ns: i64,
}

impl Window {
    fn new(options: &ReplayOptions, start_ns: i64) -> Result<Self, ReplayError> {
        let offset_ns = |option: &'static str, seconds: f64| {
            if seconds.is_finite() && seconds >= 0.0 {
                Ok(start_ns.saturating_add((seconds * 1e9).round() as i64))
            } else {
                Err(ReplayError::Option { option, value: seconds.to_string(), rule: "must be 0 or more seconds" })
            }
        };
        // From zero on, everything is replayed, also what was logged before the start that the bag declares.
        let from_ns = if options.start_offset_s == 0.0 { i64::MIN } else { offset_ns("start offset", options.start_offset_s)? };
        let until_ns = options.end_offset_s.map_or(Ok(i64::MAX), |seconds| offset_ns("end offset", seconds))?;
        if from_ns > until_ns {
            let value = format!("{} s", options.start_offset_s);
            return Err(ReplayError::Option { option: "start offset", value, rule: "must not be beyond the end offset" });
        }
        Ok(Self { from_ns, until_ns })
    }

    fn holds(&self, log_time_ns: i64) -> bool {
        (self.from_ns..=self.until_ns).contains(&log_time_ns)
    }
}

fn check_score_threshold(threshold: f32) -> Result<(), ReplayError> {
    if (0.0..1.0).contains(&threshold) {
        return Ok(());
    }
    Err(ReplayError::Option { option: "score threshold", value: threshold.to_string(), rule: "must be in [0, 1)" })
}

/// A message that is left out, since the mcap files written here could not hold it.
fn negative_time(topic: &str, log_time_ns: i64) -> String {
    format!("topic {topic}: log time {log_time_ns} ns is negative, 0 or later is replayed (messages lost: 1)")
}

/// All true boxes, read before the clouds because they may be logged after them, and what of them could not be read.
fn read_truth(bag: &BagReader, topic: &str) -> Result<(Truth, Vec<String>), ReplayError> {
    let topics = bag.topics();
    let topic_idx = find_topic(topics, topic, Detection3DArray::TYPE.ros)?;
    let mut truth = Truth::default();
    let mut losses = Vec::new();
    // Damage met on opening comes first in every pass; the one over the clouds reports it.
    for message in bag.messages(|info| *info == topics[topic_idx]).skip(bag.losses().len()) {
        let message = match message {
            Ok(message) => message,
            Err(loss) => {
                losses.push(format!("topic {topic}: {loss}"));
                continue;
            }
        };
        match cdr::from_bytes::<Detection3DArray>(&message.data) {
            Ok(array) => truth.add(&array),
            Err(fault) => {
                losses.push(format!("topic {topic}: message logged at {} ns: {fault} (messages lost: 1)", message.log_time_ns))
            }
        }
    }
    Ok((truth, losses))
}
