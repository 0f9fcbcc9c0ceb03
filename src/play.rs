//! A bag's clouds onto the middleware at their recorded pace, and the detections that come back: what `ros2 bag play` and
//! `ros2 topic delay` do together, without ROS. Shows that a running node receives, detects and answers, and how long it takes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::bag::{BagError, BagReader};
use crate::msgs::cdr::{self, CdrError};
use crate::msgs::pivotal::FrameReport;
use crate::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::{Message, builtin_interfaces};
use crate::replay::latency::LatencyStats;
use crate::replay::{ReplayError, choose_cloud_topic};
use crate::time::millis;
use crate::transport::names::TopicName;
use crate::transport::{Publisher, Qos, Reliability, Subscription, Transport, TransportError};

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
    /// A message of the bag or of the node is malformed.
    #[error("malformed message on {topic}: {source}")]
    Message {
        /// Where.
        topic: String,
        /// What is wrong with it.
        source: CdrError,
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
#[derive(Debug, Clone, PartialEq)]
pub struct PlaySummary {
    /// Clouds sent.
    pub sent: usize,
    /// Bytes of the largest one.
    pub largest_bytes: usize,
    /// Clouds the node reports to have worked on.
    pub reported: usize,
    /// Detection arrays received.
    pub arrays: usize,
    /// Boxes in them.
    pub boxes: usize,
    /// Clouds that a newer one replaced before the node could take them, by its own count.
    pub overwritten: u64,
    /// Parts of the bag that could not be read.
    pub losses: usize,
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
}

/// Plays a bag's clouds to a node and collects its answers. `progress` is called with the number of clouds sent and of arrays
/// received; returning `false` ends the run early.
///
/// # Errors
/// When the bag has no usable clouds, no node is found, or the middleware fails.
pub fn play(
    transport: &Transport,
    options: &PlayOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<PlaySummary, PlayError> {
    let bag = BagReader::open(&options.bag)?;
    let topic_idx =
        choose_cloud_topic(bag.topics(), options.topic.as_deref()).map_err(|error| PlayError::Topic(Box::new(error)))?;
    let topic = bag.topics()[topic_idx].name.clone();
    let mut link = Link::open(transport, options)?;

    let started = Instant::now();
    let mut first_log_time = None;
    for (cloud_idx, message) in bag.messages(|info| info.name == topic && info.type_name == PointCloud2::TYPE.ros).enumerate() {
        let Ok(message) = message else {
            link.losses += 1;
            continue;
        };
        let first_log_time = *first_log_time.get_or_insert(message.log_time_ns);
        let due = match options.rate_hz {
            Some(rate_hz) => Duration::from_secs_f64(cloud_idx as f64 / rate_hz),
            None => Duration::from_nanos(message.log_time_ns.saturating_sub(first_log_time).max(0) as u64),
        };
        link.collect_until(started + due)?;
        link.send(&message.data, &topic, options.every_nth_point)?;
        if !progress(link.sent_at.len(), link.round_trips_ms.len()) {
            break;
        }
    }
    let end = Instant::now() + options.wait;
    while Instant::now() < end && !link.settled() {
        link.collect_until(Instant::now() + Duration::from_millis(20))?;
        progress(link.sent_at.len(), link.round_trips_ms.len());
    }
    Ok(link.summary())
}

/// The three topics of a node, seen from outside.
struct Link {
    clouds: Publisher,
    objects: Subscription,
    reports: Subscription,
    sent_at: HashMap<(i32, u32), Instant>,
    largest_bytes: usize,
    round_trips_ms: Vec<f64>,
    in_node_ms: Vec<f64>,
    boxes: usize,
    overwritten: u64,
    losses: usize,
}

impl Link {
    /// Announces the topics and waits for the node.
    fn open(transport: &Transport, options: &PlayOptions) -> Result<Self, PlayError> {
        let name = |suffix: &str| TopicName::new(&format!("{}/{suffix}", options.node));
        let reliability = if options.reliable { Reliability::Reliable } else { Reliability::BestEffort };
        let results = Qos { reliability: Reliability::Reliable, depth: RESULT_DEPTH };
        let link = Self {
            clouds: transport.advertise(&name("input/pointcloud")?, &PointCloud2::TYPE, Qos { reliability, depth: 1 })?,
            objects: transport.subscribe(&name("output/objects")?, &Detection3DArray::TYPE, results)?,
            reports: transport.subscribe(&name("output/report")?, &FrameReport::TYPE, results)?,
            sent_at: HashMap::new(),
            largest_bytes: 0,
            round_trips_ms: Vec::new(),
            in_node_ms: Vec::new(),
            boxes: 0,
            overwritten: 0,
            losses: 0,
        };
        let end = Instant::now() + options.wait;
        while link.clouds.matched() == 0 || link.objects.matched() == 0 || link.reports.matched() == 0 {
            if Instant::now() >= end {
                return Err(PlayError::NoNode {
                    clouds: link.clouds.topic().to_string(),
                    objects: link.objects.topic().to_string(),
                    waited: options.wait,
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(link)
    }

    fn send(&mut self, bytes: &[u8], topic: &str, every_nth_point: usize) -> Result<(), PlayError> {
        let malformed = |source| PlayError::Message { topic: topic.to_owned(), source };
        let cloud: PointCloud2Ref<'_> = cdr::from_bytes(bytes).map_err(malformed)?;
        let thinned;
        let payload = if every_nth_point > 1 {
            thinned = cdr::to_bytes(&thin(&cloud, every_nth_point));
            &thinned[..]
        } else {
            bytes
        };
        self.sent_at.insert(key(&cloud.header.stamp), Instant::now());
        self.largest_bytes = self.largest_bytes.max(payload.len());
        Ok(self.clouds.publish(payload)?)
    }

    /// Takes results until that moment; at least once.
    fn collect_until(&mut self, end: Instant) -> Result<(), PlayError> {
        loop {
            while let Some(sample) = self.reports.recv(Duration::ZERO)? {
                let report: FrameReport = decode(&sample.bytes, &self.reports)?;
                self.in_node_ms.push(report.latency_ms);
                self.overwritten = self.overwritten.max(report.clouds_overwritten);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.objects.recv(left.min(Duration::from_millis(20)))? {
                Some(sample) => {
                    let array: Detection3DArray = decode(&sample.bytes, &self.objects)?;
                    if let Some(sent) = self.sent_at.get(&key(&array.header.stamp)) {
                        self.round_trips_ms.push(millis(sample.received.saturating_duration_since(*sent)));
                        self.boxes += array.detections.len();
                    }
                }
                None if left.is_zero() => return Ok(()),
                None => {}
            }
        }
    }

    /// Whether nothing more can be expected: every cloud is answered or was overwritten.
    fn settled(&self) -> bool {
        self.round_trips_ms.len() == self.in_node_ms.len()
            && self.in_node_ms.len() as u64 + self.overwritten >= self.sent_at.len() as u64
    }

    fn summary(self) -> PlaySummary {
        PlaySummary {
            sent: self.sent_at.len(),
            largest_bytes: self.largest_bytes,
            reported: self.in_node_ms.len(),
            arrays: self.round_trips_ms.len(),
            boxes: self.boxes,
            overwritten: self.overwritten,
            losses: self.losses,
            round_trip: LatencyStats::of(&self.round_trips_ms),
            in_node: LatencyStats::of(&self.in_node_ms),
        }
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
