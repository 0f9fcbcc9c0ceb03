//! A bag's clouds onto the middleware at their recorded pace, and the detections that come back: what `ros2 bag play` and
//! `ros2 topic delay` do together, without ROS. Shows that a running node receives, detects and answers, and how long it takes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bag::{BagError, BagReader};
use crate::msgs::cdr::{self, CdrError};
use crate::msgs::pivotal_msgs::FrameReport;
use crate::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::{Message, builtin_interfaces};
use crate::replay::latency::LatencyStats;
use crate::replay::{ReplayError, choose_cloud_topic};
use crate::time::millis;
use crate::transport::names::TopicName;
use crate::transport::{Publisher, Qos, Reliability, Subscription, Transport, TransportError};

/// How long the node may take to learn of a match after this side: before, it drops clouds unseen.
const SETTLE: Duration = Duration::from_millis(300);

/// How long to wait for anything before looking at the stop flag.
const STEP: Duration = Duration::from_millis(20);

/// Results kept until they are read; a bag has far fewer clouds in flight.
const RESULT_DEPTH: usize = 1000;

/// What is played, and to whom.
#[derive(Debug, Clone)]
pub struct PlayOptions {
    /// A rosbag2 folder or one of its files.
    pub bag: PathBuf,
    /// Topic of the clouds in the bag; `None` takes the only one there is.
    pub topic: Option<String>,
    /// Full name of the node that is fed, for instance `/detector_node`.
    pub node: String,
    /// Clouds per second; `None` keeps the recorded pace.
    pub rate_hz: Option<f64>,
    /// Whether lost clouds are sent again; LiDAR drivers do not.
    pub reliable: bool,
    /// Sends only each n-th point, for machines whose receive buffers cannot hold whole clouds. 1 sends all.
    pub every_nth_point: usize,
    /// How long to wait for the node to appear, and for the last results.
    pub wait: Duration,
}

/// Why playing did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The bag cannot be read.
    #[error(transparent)]
    Bag(#[from] BagError),
    /// No cloud topic, or several.
    #[error(transparent)]
    Topic(Box<ReplayError>),
    /// The middleware.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A message of the node is malformed.
    #[error("malformed message on {topic}: {source}")]
    Message {
        /// Where.
        topic: String,
        /// What is wrong with it.
        r#source: CdrError,
    },
    /// Nobody answered.
    #[error("no node takes {clouds} and publishes {objects} after {waited:?}: is it running, in the same ROS_DOMAIN_ID?")]
    NoNode {
        /// Topic of the clouds.
        clouds: String,
        /// Topic of the detections.
        objects: String,
        /// How long was waited.
        waited: Duration,
    },
}

/// What was sent and what came back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlaySummary {
    /// Clouds sent.
    pub sent: u64,
    /// Bytes of the largest one.
    pub largest_bytes: usize,
    /// Clouds whose detections the node reports to have published.
    pub reported: u64,
    /// Clouds that the node reports as failed, or whose detections it could not publish.
    pub failed: u64,
    /// Clouds that a newer one replaced before the node could take them, by its own count.
    pub overwritten: u64,
    /// Detection arrays received.
    pub arrays: u64,
    /// Boxes in them.
    pub boxes: usize,
    /// Parts of the bag that could not be read, and clouds in it that are malformed.
    pub losses: u64,
    /// Ended by the caller, perhaps with clouds still on the way.
    pub interrupted: bool,
    /// From handing a cloud to the middleware to having its detections; `None` when none came.
    pub round_trip: Option<LatencyStats>,
    /// The node's own time from receipt to publishing; `None` when no report came.
    pub in_node: Option<LatencyStats>,
}

impl PlaySummary {
    /// Whether every array that the node reported is here.
    pub fn complete(&self) -> bool {
        self.arrays == self.reported && self.arrays > 0
    }

    /// Clouds of which the node says nothing: lost between here and there, or still on the way when the wait ended.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.reported + self.failed + self.overwritten)
    }

    /// Whether anything is missing that should be there; what is on the way when the caller ends the run is not.
    pub fn loss(&self) -> bool {
        let missing = !self.complete() || self.lost() > 0;
        self.losses > 0 || self.failed > 0 || (missing && !self.interrupted)
    }
}

/// Plays a bag's clouds to a node and collects its answers. `progress` is called with the number of clouds sent and of arrays
/// received; `stop` ends the run within some 20 ms.
///
/// # Errors
/// When the bag has no usable clouds, no node is found, or the middleware fails.
pub fn play(
    transport: &Transport,
    options: &PlayOptions,
    progress: &mut dyn FnMut(u64, u64),
    stop: &AtomicBool,
) -> Result<PlaySummary, PlayError> {
    let bag = BagReader::open(&options.bag)?;
    let topic_idx =
        choose_cloud_topic(bag.topics(), options.topic.as_deref()).map_err(|error| PlayError::Topic(Box::new(error)))?;
    let topic = bag.topics()[topic_idx].name.clone();
    let mut link = Link::open(transport, options, stop)?;

    let started = Instant::now();
    let mut first_log_time = None;
    for (cloud_idx, message) in bag.messages(|info| info.name == topic && info.type_name == PointCloud2::TYPE.ros).enumerate() {
        let Ok(message) = message else {
            link.counts.losses += 1;
            continue;
        };
        let first_log_time = *first_log_time.get_or_insert(message.log_time_ns);
        let due = match options.rate_hz {
            Some(rate_hz) => Duration::from_secs_f64(cloud_idx as f64 / rate_hz),
            None => Duration::from_nanos(message.log_time_ns.saturating_sub(first_log_time).max(0) as u64),
        };
        link.collect_until(started + due, stop)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        link.send(&message.data, &topic, options.every_nth_point)?;
        progress(link.counts.sent, link.counts.arrays);
    }
    let end = Instant::now() + options.wait;
    while Instant::now() < end && !link.settled() && !stop.load(Ordering::Relaxed) {
        link.collect_until(Instant::now() + STEP, stop)?;
        progress(link.counts.sent, link.counts.arrays);
    }
    link.counts.interrupted = stop.load(Ordering::Relaxed);
    Ok(link.summary())
}

/// The three topics of a node, seen from outside.
struct Link {
    clouds: Publisher,
    objects: Subscription,
    reports: Subscription,
    /// Place in the run and time of the last cloud with a stamp.
    sent_at: HashMap<(i32, u32), (u64, Instant)>,
    counts: PlaySummary,
    /// Clouds that had been overwritten before this run, by the node's count; `None` until its first report.
    overwritten_before: Option<u64>,
    round_trips_ms: Vec<f64>,
    in_node_ms: Vec<f64>,
}

impl Link {
    /// Announces the topics and waits for the node, or until it is told to stop.
    fn open(transport: &Transport, options: &PlayOptions, stop: &AtomicBool) -> Result<Self, PlayError> {
        let name = |suffix: &str| TopicName::new(&format!("{}/{suffix}", options.node));
        let reliability = if options.reliable { Reliability::Reliable } else { Reliability::BestEffort };
        let results = Qos { depth: RESULT_DEPTH, ..Qos::RELIABLE };
        let link = Self {
            clouds: transport.advertise(&name("input/pointcloud")?, &PointCloud2::TYPE, Qos { reliability, ..Qos::SENSOR })?,
            objects: transport.subscribe(&name("output/objects")?, &Detection3DArray::TYPE, results)?,
            reports: transport.subscribe(&name("output/report")?, &FrameReport::TYPE, results)?,
            sent_at: HashMap::new(),
            counts: PlaySummary::default(),
            overwritten_before: None,
            round_trips_ms: Vec::new(),
            in_node_ms: Vec::new(),
        };
        let end = Instant::now() + options.wait;
        while !link.matched() && !stop.load(Ordering::Relaxed) {
            if Instant::now() >= end {
                return Err(PlayError::NoNode {
                    clouds: link.clouds.topic().to_string(),
                    objects: link.objects.topic().to_string(),
                    waited: options.wait,
                });
            }
            std::thread::sleep(STEP);
        }
        std::thread::sleep(SETTLE);
        Ok(link)
    }

    fn matched(&self) -> bool {
        self.clouds.matched() > 0 && self.objects.matched() > 0 && self.reports.matched() > 0
    }

    /// Sends a cloud of the bag; a malformed one is counted as lost.
    fn send(&mut self, bytes: &[u8], topic: &str, every_nth_point: usize) -> Result<(), PlayError> {
        let cloud: PointCloud2Ref<'_> = match cdr::from_bytes(bytes) {
            Ok(cloud) => cloud,
            Err(error) => {
                tracing::warn!("{topic}: malformed cloud: {error}");
                self.counts.losses += 1;
                return Ok(());
            }
        };
        let thinned;
        let payload = if every_nth_point > 1 {
            thinned = cdr::to_bytes(&thin(&cloud, every_nth_point));
            &thinned[..]
        } else {
            bytes
        };
        self.sent_at.insert(key(&cloud.header.stamp), (self.counts.sent, Instant::now()));
        self.counts.sent += 1;
        self.counts.largest_bytes = self.counts.largest_bytes.max(payload.len());
        Ok(self.clouds.publish(payload)?)
    }

    /// Takes results until that moment, at least once, or until it is told to stop.
    fn collect_until(&mut self, end: Instant, stop: &AtomicBool) -> Result<(), PlayError> {
        loop {
            while let Some(sample) = self.reports.recv(Duration::ZERO)? {
                self.take_report(&decode(&sample.bytes, &self.reports)?);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.objects.recv(left.min(STEP))? {
                Some(sample) => self.take_array(&decode(&sample.bytes, &self.objects)?, sample.received),
                None if left.is_zero() => return Ok(()),
                None => {}
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn take_report(&mut self, report: &FrameReport) {
        if report.objects_published() {
            self.counts.reported += 1;
            self.in_node_ms.push(report.latency_ms);
        } else {
            self.counts.failed += 1;
        }
        // The node counts since its start. Of what it had overwritten when it took its first cloud of this run, no more than
        // the clouds sent before that one can be of this run; a node that still loaded its model overwrote just these.
        let before = self.overwritten_before.unwrap_or_else(|| {
            let place = self.sent_at.get(&key(&report.header.stamp)).map_or(0, |(place, _)| *place);
            report.clouds_overwritten.saturating_sub(place)
        });
        self.overwritten_before = Some(before);
        self.counts.overwritten = self.counts.overwritten.max(report.clouds_overwritten.saturating_sub(before));
    }

    fn take_array(&mut self, array: &Detection3DArray, received: Instant) {
        if let Some((_, sent)) = self.sent_at.get(&key(&array.header.stamp)) {
            self.counts.arrays += 1;
            self.counts.boxes += array.detections.len();
            self.round_trips_ms.push(millis(received.saturating_duration_since(*sent)));
        }
    }

    /// Whether nothing more can be expected: every cloud is answered, failed or was overwritten.
    fn settled(&self) -> bool {
        self.counts.arrays == self.counts.reported && self.counts.lost() == 0
    }

    fn summary(self) -> PlaySummary {
        let (round_trip, in_node) = (LatencyStats::of(&self.round_trips_ms), LatencyStats::of(&self.in_node_ms));
        PlaySummary { round_trip, in_node, ..self.counts }
    }
}

fn decode<T: Message>(bytes: &[u8], subscription: &Subscription) -> Result<T, PlayError> {
    cdr::from_bytes(bytes).map_err(|source| PlayError::Message { topic: subscription.topic().to_string(), source })
}

fn key(stamp: &builtin_interfaces::Time) -> (i32, u32) {
    (stamp.sec, stamp.nanosec)
}

/// The same cloud with each n-th point of it, as one row without padding.
fn thin(cloud: &PointCloud2Ref<'_>, n: usize) -> PointCloud2 {
    let step = cloud.point_step as usize;
    let row = cloud.width as usize * step;
    let rows = cloud.data.chunks(cloud.row_step.max(1) as usize).map(|padded| &padded[..row.min(padded.len())]);
    let data: Vec<u8> = rows.flat_map(|row| row.chunks_exact(step.max(1))).step_by(n).flatten().copied().collect();
    let width = data.len() / step.max(1);
    PointCloud2 {
        header: Header { stamp: cloud.header.stamp, frame_id: cloud.header.frame_id.clone() },
        height: 1,
        width: width as u32,
        fields: cloud.fields.clone(),
        is_bigendian: cloud.is_bigendian,
        point_step: cloud.point_step,
        row_step: data.len() as u32,
        data,
        is_dense: cloud.is_dense,
    }
}
