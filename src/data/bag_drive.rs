//! One bag as a drive: where its clouds are, which labels belong to them, and the frames they can be put into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::labels::labels_of_message;
use super::sidecar::{self, FrameKey, SidecarFrame};
use super::tf::TfTree;
use super::{BagOptions, DataError, Finding};
use crate::bag::{BagMessage, BagReader, MessageAt, TopicInfo};
use crate::cloud::decode::columns_present;
use crate::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};
use crate::msgs::tf2_msgs::TFMessage;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::{Message, cdr};
use crate::synth::record::LABEL_TOPIC;
use crate::time::Stamp;

/// Labels beside a bag that are taken without being asked for.
pub const SIDECAR_NAME: &str = "labels.jsonl";

/// An opened bag with the places of its frames.
pub(super) struct BagDrive {
    pub name: String,
    pub bag: BagReader,
    pub clouds: Vec<CloudAt>,
    pub sidecar: Vec<SidecarFrame>,
    pub tf: TfTree,
}

/// One cloud of the drive.
#[derive(Debug, Clone)]
pub(super) struct CloudAt {
    pub at: MessageAt,
    pub stamp: Stamp,
    pub frame_id: String,
    pub labels: Option<LabelsAt>,
}

/// Where the labels of a cloud are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelsAt {
    Message(MessageAt),
    /// Index in [`BagDrive::sidecar`].
    Sidecar(usize),
}

/// Where the labels of a drive come from.
enum LabelSource {
    None,
    Topic(String),
    File(PathBuf),
}

/// Labels that look for their cloud.
struct Candidate {
    key: FrameKey,
    at: LabelsAt,
    /// As people are told it.
    place: String,
}

impl BagDrive {
    /// Reads the bag once. What is odd goes to `findings`; a drive without clouds is one of these and has no frames.
    ///
    /// # Errors
    /// When the bag cannot be opened or an option does not fit it.
    pub fn open(path: &Path, name: &str, options: &BagOptions, findings: &mut Vec<Finding>) -> Result<Self, DataError> {
        let bag = BagReader::open(path)?;
        let cloud_topic = cloud_topic(&bag, path, options)?;
        let mut log = FindingLog::new(name);
        for note in bag.notes() {
            log.add("note on the bag", note);
        }
        let label_source = label_source(&bag, path, name, options, &mut log)?;
        let mut pass = Pass::default();
        let is_label = |info: &TopicInfo| matches!(&label_source, LabelSource::Topic(topic) if *topic == info.name);
        let is_cloud = |info: &TopicInfo| info.name == cloud_topic && info.type_name == PointCloud2::TYPE.ros;
        let is_tf = |info: &TopicInfo| info.type_name == TFMessage::TYPE.ros;
        for message in bag.messages(|info| is_cloud(info) || is_label(info) || is_tf(info)) {
            let message = match message {
                Ok(message) => message,
                Err(loss) => {
                    log.add("damage", &loss.to_string());
                    continue;
                }
            };
            let info = &bag.topics()[message.topic_idx];
            if is_tf(info) {
                pass.transforms(&message, info.name.ends_with("tf_static"), &mut log);
            } else if is_cloud(info) {
                pass.cloud(&message, options, &mut log);
            } else {
                pass.labels(&message, &mut log);
            }
        }
        pass.tf.finish();
        let Pass { mut clouds, mut candidates, tf, .. } = pass;
        let mut sidecar = Vec::new();
        if let LabelSource::File(file) = &label_source {
            let (frames, faults) = sidecar::read(file)?;
            for fault in faults {
                log.add("label that cannot be used", &format!("{}: {fault}", file.display()));
            }
            candidates.extend(frames.iter().enumerate().map(|(idx, frame)| Candidate {
                key: frame.key,
                at: LabelsAt::Sidecar(idx),
                place: format!("{}, line {}", file.display(), frame.line),
            }));
            sidecar = frames;
        }
        match_labels(&mut clouds, &candidates, options.label_window_ns(), &mut log);
        if let Some(target) = &options.target_frame {
            clouds.retain(|cloud| match tf.lookup(target, &cloud.frame_id, cloud.stamp) {
                Ok(_) => true,
                Err(fault) => {
                    log.add("cloud left out, it cannot be put into the target frame", &fault.to_string());
                    false
                }
            });
        }
        if clouds.is_empty() {
            log.add("empty drive", &format!("no usable cloud on {cloud_topic}"));
        }
        let is_labelled = !matches!(label_source, LabelSource::None);
        let n_unlabelled = clouds.iter().filter(|cloud| cloud.labels.is_none()).count();
        if is_labelled && n_unlabelled > 0 {
            log.count("cloud without labels", n_unlabelled as u64, &format!("of {} clouds", clouds.len()));
        }
        findings.extend(log.into_findings());
        Ok(Self { name: name.to_owned(), bag, clouds, sidecar, tf })
    }
}

/// What one pass over a bag collects.
#[derive(Default)]
struct Pass {
    clouds: Vec<CloudAt>,
    candidates: Vec<Candidate>,
    tf: TfTree,
    /// Whether the layout of a cloud was looked at; the others of a drive have the same.
    has_layout: bool,
}

impl Pass {
    fn transforms(&mut self, message: &BagMessage, is_fixed: bool, log: &mut FindingLog) {
        match cdr::from_bytes::<TFMessage>(&message.data) {
            Ok(transforms) => {
                for fault in self.tf.add(&transforms, is_fixed) {
                    log.add("transform that cannot be used", &fault);
                }
            }
            Err(fault) => log.add("unreadable transform", &fault.to_string()),
        }
    }

    fn cloud(&mut self, message: &BagMessage, options: &BagOptions, log: &mut FindingLog) {
        let cloud: PointCloud2Ref<'_> = match cdr::from_bytes(&message.data) {
            Ok(cloud) => cloud,
            Err(fault) => return log.add("unreadable cloud", &fault.to_string()),
        };
        if !self.has_layout {
            self.has_layout = true;
            match columns_present(&cloud, &options.fields) {
                Ok((_, unusable)) => unusable.iter().for_each(|fault| log.add("column that cannot be used", &fault.to_string())),
                Err(fault) => log.add("cloud whose layout cannot be used", &fault.to_string()),
            }
        }
        let frame_id = cloud.header.frame_id.clone();
        self.clouds.push(CloudAt { at: message.at, stamp: cloud.header.stamp.into(), frame_id, labels: None });
    }

    /// The labels are checked here, so that everything wrong with them is known before training, and read again when needed.
    fn labels(&mut self, message: &BagMessage, log: &mut FindingLog) {
        let array: Detection3DArray = match cdr::from_bytes(&message.data) {
            Ok(array) => array,
            Err(fault) => return log.add("unreadable labels", &fault.to_string()),
        };
        let stamp_ns = Stamp::from(array.header.stamp).nanos;
        for fault in labels_of_message(&array).1 {
            log.add("label that cannot be used", &format!("stamp {stamp_ns}, {fault}"));
        }
        let place = format!("stamp {stamp_ns}");
        self.candidates.push(Candidate { key: FrameKey::StampNs(stamp_ns), at: LabelsAt::Message(message.at), place });
    }
}

/// Gives each cloud the labels nearest to it within the window. Of clouds with equal stamps the first is labelled.
fn match_labels(clouds: &mut [CloudAt], candidates: &[Candidate], window_ns: u64, log: &mut FindingLog) {
    let mut by_stamp = BTreeMap::<i64, usize>::new();
    for (idx, cloud) in clouds.iter().enumerate() {
        if *by_stamp.entry(cloud.stamp.nanos).or_insert(idx) != idx {
            log.add("cloud with the stamp of an earlier one", &format!("stamp {}", cloud.stamp.nanos));
        }
    }
    let nearest = |stamp_ns: i64| {
        let before = by_stamp.range(..=stamp_ns).next_back();
        let behind = by_stamp.range(stamp_ns..).next();
        let pairs = before.into_iter().chain(behind).map(|(at, idx)| (at.abs_diff(stamp_ns), *idx));
        pairs.min().filter(|(away_ns, _)| *away_ns <= window_ns)
    };
    let mut taken = BTreeMap::<usize, u64>::new();
    for Candidate { key, at, place } in candidates {
        let found = match key {
            FrameKey::StampNs(stamp_ns) => nearest(*stamp_ns),
            FrameKey::Index(index) => usize::try_from(*index).ok().filter(|idx| *idx < clouds.len()).map(|idx| (0, idx)),
        };
        let Some((away_ns, idx)) = found else {
            log.add("labels without a cloud", place);
            continue;
        };
        if taken.get(&idx).is_some_and(|known_ns| *known_ns <= away_ns) {
            log.add("labels for a cloud that has some already", place);
            continue;
        }
        if taken.insert(idx, away_ns).is_some() {
            log.add("labels for a cloud that has some already", &format!("{place} is nearer and replaces them"));
        }
        clouds[idx].labels = Some(*at);
    }
}

fn cloud_topic(bag: &BagReader, path: &Path, options: &BagOptions) -> Result<String, DataError> {
    let clouds: Vec<&TopicInfo> = bag.topics().iter().filter(|info| info.type_name == PointCloud2::TYPE.ros).collect();
    let list: Vec<String> = clouds.iter().map(|info| format!("{} ({})", info.name, info.message_count)).collect();
    let present = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let fault = |reason| Err(DataError::Source { source_name: path.display().to_string(), reason });
    match (&options.topic, &clouds[..]) {
        (Some(topic), _) if clouds.iter().any(|info| info.name == *topic) => Ok(topic.clone()),
        (Some(topic), _) => fault(format!("no topic {topic} of {}; the bag has {present}", PointCloud2::TYPE.ros)),
        (None, [only]) => Ok(only.name.clone()),
        (None, []) => fault(format!("the bag has no topic of {}", PointCloud2::TYPE.ros)),
        (None, _) => fault(format!("{} topics of clouds, choose one with topic=…; the bag has {present}", clouds.len())),
    }
}

fn label_source(
    bag: &BagReader,
    path: &Path,
    name: &str,
    options: &BagOptions,
    log: &mut FindingLog,
) -> Result<LabelSource, DataError> {
    let is_labels = |info: &&TopicInfo| info.type_name == Detection3DArray::TYPE.ros;
    let topics: Vec<&str> = bag.topics().iter().filter(is_labels).map(|info| info.name.as_str()).collect();
    if options.without_labels {
        return Ok(LabelSource::None);
    }
    if let Some(topic) = &options.label_topic {
        if topics.contains(&topic.as_str()) {
            return Ok(LabelSource::Topic(topic.clone()));
        }
        let present = if topics.is_empty() { "none".to_owned() } else { topics.join(", ") };
        let reason = format!("no topic {topic} of {}; the bag has {present}", Detection3DArray::TYPE.ros);
        return Err(DataError::Source { source_name: path.display().to_string(), reason });
    }
    if let Some(file) = &options.label_file {
        let file = if file.is_dir() { file.join(format!("{name}.jsonl")) } else { file.clone() };
        return Ok(LabelSource::File(file));
    }
    if topics.contains(&LABEL_TOPIC) {
        return Ok(LabelSource::Topic(LABEL_TOPIC.to_owned()));
    }
    let beside = path.join(SIDECAR_NAME);
    if beside.is_file() {
        return Ok(LabelSource::File(beside));
    }
    for topic in topics {
        log.add("topic that may be labels", &format!("{topic} is not used unless label_topic={topic} says so"));
    }
    Ok(LabelSource::None)
}

/// Findings of one drive, equal kinds counted together.
struct FindingLog {
    drive: String,
    kinds: Vec<(&'static str, u64, String)>,
}

impl FindingLog {
    fn new(drive: &str) -> Self {
        Self { drive: drive.to_owned(), kinds: Vec::new() }
    }

    fn add(&mut self, kind: &'static str, example: &str) {
        self.count(kind, 1, example);
    }

    fn count(&mut self, kind: &'static str, n: u64, example: &str) {
        match self.kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, count, _)) => *count += n,
            None => self.kinds.push((kind, n, example.to_owned())),
        }
    }

    fn into_findings(self) -> impl Iterator<Item = Finding> {
        let drive = self.drive;
        self.kinds.into_iter().map(move |(kind, count, example)| Finding { drive: drive.clone(), kind, count, example })
    }
}
