//! Writes a bag: one mcap file as rosbag2 lays it out, and `metadata.yaml` version 9.
//!
//! The same calls give the same bytes: no clock, a fixed library name, compression on one thread.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use mcap::records::MessageHeader;

use super::BagError;
use super::metadata::{
    Document, Duration, FILE_NAME, FileInfo, Metadata, NEWEST_VERSION, StartingTime, TopicMetadata, TopicWithCount,
};
use crate::msgs::MsgType;

/// Chunks are closed when they exceed this, so a larger message has one of its own.
const CHUNK_BYTES: u64 = 1 << 20;

/// Written as the library of the mcap header.
const LIBRARY: &str = "pivotal";

/// Compression of the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Fastest, and read without a copy.
    #[default]
    None,
    /// About a tenth smaller clouds at a third of zstd's time.
    Lz4,
    /// Smallest.
    Zstd,
}

/// How a bag is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterOptions {
    /// Compression of the chunks.
    pub compression: Compression,
}

/// What the publisher of a topic offered, so that playing the bag offers the same. History is keep-last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedQos {
    /// Messages kept.
    pub depth: u32,
    /// Lost messages are sent again.
    pub is_reliable: bool,
    /// Late subscribers get the kept messages, as for `/tf_static`.
    pub is_transient_local: bool,
}

impl OfferedQos {
    /// ROS's default for topics.
    pub const RELIABLE: Self = Self { depth: 10, is_reliable: true, is_transient_local: false };
    /// As sensor drivers publish.
    pub const SENSOR: Self = Self { depth: 5, is_reliable: false, is_transient_local: false };
    /// As `/tf_static` is published.
    pub const LATCHED: Self = Self { depth: 1, is_reliable: true, is_transient_local: true };

    /// The profile as metadata version 9 has it, and as YAML flow text.
    fn profiles(self) -> serde_json::Value {
        // rmw's "infinite", in seconds and nanoseconds.
        let infinite = serde_json::json!({"sec": 9_223_372_036_u64, "nsec": 854_775_807});
        serde_json::json!([{
            "history": "keep_last",
            "depth": self.depth,
            "reliability": if self.is_reliable { "reliable" } else { "best_effort" },
            "durability": if self.is_transient_local { "transient_local" } else { "volatile" },
            "deadline": infinite,
            "lifespan": infinite,
            "liveliness": "automatic",
            "liveliness_lease_duration": infinite,
            "avoid_ros_namespace_conventions": false,
        }])
    }
}

/// A topic of one [`BagWriter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId(usize);

/// A bag being written. Without [`Self::finish`] a folder has no metadata.
pub struct BagWriter {
    mcap: mcap::Writer<BufWriter<File>>,
    path: PathBuf,
    metadata_path: Option<PathBuf>,
    topics: Vec<WrittenTopic>,
    /// First and last log time.
    range_ns: Option<(i64, i64)>,
}

struct WrittenTopic {
    name: String,
    message_type: MsgType,
    qos: OfferedQos,
    channel_id: u16,
    n_messages: u64,
}

impl BagWriter {
    /// A bag folder with `NAME_0.mcap`, NAME being the folder's. The folder may exist if it is empty; its parents are made.
    ///
    /// # Errors
    /// When the folder has something in it or cannot be made.
    pub fn create(folder: impl AsRef<Path>, options: &WriterOptions) -> Result<Self, BagError> {
        let folder = folder.as_ref();
        let io_error = |source| BagError::Io { path: folder.to_owned(), source };
        match std::fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(BagError::Exists { path: folder.to_owned() }),
            Ok(false) => {}
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(folder).map_err(io_error)?,
            Err(fault) if fault.kind() == io::ErrorKind::NotADirectory => {
                return Err(BagError::Exists { path: folder.to_owned() });
            }
            Err(fault) => return Err(io_error(fault)),
        }
        let name =
            folder.canonicalize().map_err(io_error)?.file_name().map_or("bag".into(), |name| name.to_string_lossy().into_owned());
        let mut writer = Self::file(folder.join(format!("{name}_0.mcap")), options)?;
        writer.metadata_path = Some(folder.join(FILE_NAME));
        Ok(writer)
    }

    /// A single mcap file, without metadata beside it.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn file(path: impl AsRef<Path>, options: &WriterOptions) -> Result<Self, BagError> {
        let path = path.as_ref().to_owned();
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BagError::Exists { path: path.clone() },
            _ => BagError::Io { path: path.clone(), source },
        })?;
        let compression = match options.compression {
            Compression::None => None,
            Compression::Lz4 => Some(mcap::Compression::Lz4),
            Compression::Zstd => Some(mcap::Compression::Zstd),
        };
        let mcap = mcap::WriteOptions::new()
            .profile("ros2")
            .library(LIBRARY)
            .compression(compression)
            .compression_threads(0)
            .chunk_size(Some(CHUNK_BYTES))
            .create(BufWriter::new(file))
            .map_err(|source| BagError::Mcap { path: path.clone(), source })?;
        Ok(Self { mcap, path, metadata_path: None, topics: Vec::new(), range_ns: None })
    }

    /// Declares a topic; its messages are CDR of `message_type`.
    ///
    /// # Errors
    /// When the name is taken, or the file cannot be written.
    pub fn add_topic(&mut self, name: &str, message_type: MsgType, qos: OfferedQos) -> Result<TopicId, BagError> {
        if let Some(taken) = self.topics.iter().find(|topic| topic.name == name) {
            return Err(BagError::TopicTwice {
                name: name.to_owned(),
                type_name: taken.message_type.ros.to_owned(),
                again: message_type.ros.to_owned(),
            });
        }
        let path = &self.path;
        let mcap_error = |source| BagError::Mcap { path: path.clone(), source };
        let schema_id =
            self.mcap.add_schema(message_type.ros, "ros2msg", message_type.definition.as_bytes()).map_err(mcap_error)?;
        let details = BTreeMap::from([
            ("offered_qos_profiles".to_owned(), qos.profiles().to_string()),
            ("topic_type_hash".to_owned(), message_type.type_hash.to_owned()),
        ]);
        let channel_id = self.mcap.add_channel(schema_id, name, "cdr", &details).map_err(mcap_error)?;
        self.topics.push(WrittenTopic { name: name.to_owned(), message_type, qos, channel_id, n_messages: 0 });
        Ok(TopicId(self.topics.len() - 1))
    }

    /// Appends one serialised message, CDR header included. Log and publish time are the same.
    ///
    /// # Errors
    /// When the topic is not this bag's, the time is negative, or the file cannot be written.
    pub fn write(&mut self, topic: TopicId, log_time_ns: i64, data: &[u8]) -> Result<(), BagError> {
        let n_topics = self.topics.len();
        let topic = self.topics.get_mut(topic.0).ok_or(BagError::UnknownTopic { got: topic.0, n_topics })?;
        let log_time =
            u64::try_from(log_time_ns).map_err(|_| BagError::NegativeTime { topic: topic.name.clone(), log_time_ns })?;
        // Sequence numbers start again after 2^32 messages.
        let sequence = topic.n_messages as u32;
        let header = MessageHeader { channel_id: topic.channel_id, sequence, log_time, publish_time: log_time };
        self.mcap.write_to_known_channel(&header, data).map_err(|source| BagError::Mcap { path: self.path.clone(), source })?;
        topic.n_messages += 1;
        let (start, end) = self.range_ns.unwrap_or((log_time_ns, log_time_ns));
        self.range_ns = Some((start.min(log_time_ns), end.max(log_time_ns)));
        Ok(())
    }

    /// Ends the file and writes `metadata.yaml`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(mut self) -> Result<(), BagError> {
        let path = self.path.clone();
        let io_error = |source| BagError::Io { path: path.clone(), source };
        self.mcap.finish().map_err(|source| BagError::Mcap { path: path.clone(), source })?;
        let metadata = self.metadata_path.take().map(|metadata_path| (metadata_path, self.metadata()));
        self.mcap.into_inner().into_inner().map_err(|fault| io_error(fault.into_error()))?;
        let Some((metadata_path, metadata)) = metadata else { return Ok(()) };
        let text = serde_saphyr::to_string(&Document { rosbag2_bagfile_information: metadata })
            .map_err(|fault| BagError::MetadataText { path: metadata_path.clone(), reason: fault.to_string() })?;
        std::fs::write(&metadata_path, text).map_err(|source| BagError::Io { path: metadata_path, source })
    }

    fn metadata(&self) -> Metadata {
        let (start, end) = self.range_ns.unwrap_or((0, 0));
        let starting_time = Some(StartingTime { nanoseconds_since_epoch: Some(start) });
        let duration = Some(Duration { nanoseconds: Some(end - start) });
        let message_count = Some(self.topics.iter().map(|topic| topic.n_messages).sum());
        let path = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let topics = self.topics.iter().map(|topic| TopicWithCount {
            topic_metadata: TopicMetadata {
                name: Some(topic.name.clone()),
                type_name: Some(topic.message_type.ros.to_owned()),
                serialization_format: Some("cdr".to_owned()),
                offered_qos_profiles: Some(topic.qos.profiles()),
                type_description_hash: Some(topic.message_type.type_hash.to_owned()),
            },
            message_count: Some(topic.n_messages),
        });
        Metadata {
            version: Some(NEWEST_VERSION),
            storage_identifier: Some("mcap".to_owned()),
            duration,
            starting_time,
            message_count,
            topics_with_message_count: Some(topics.collect()),
            compression_format: Some(String::new()),
            compression_mode: Some(String::new()),
            relative_file_paths: Some(vec![path.clone()]),
            files: Some(vec![FileInfo { path: Some(path), starting_time, duration, message_count }]),
            custom_data: None,
            ros_distro: Some("unknown".to_owned()),
        }
    }
}
