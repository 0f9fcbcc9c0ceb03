//! rosbag2 recordings: sqlite3 and mcap, split, zstd in every mode.
//!
//! [`BagReader`] delivers every message that can still be read and reports the rest as [`Loss`]es; [`BagWriter`] writes
//! mcap with the metadata rosbag2 expects. Messages are serialised CDR on both sides: this module knows no message type.
//!
//! Nothing declared in a bag is believed before it is checked: lengths are compared with the bytes present, and what is
//! unpacked is bounded by [`MAX_MESSAGE_BYTES`], [`MAX_CHUNK_BYTES`] and [`MAX_UNPACKED_FILE_BYTES`].

mod chunk;
pub(crate) mod map;
mod mcap_cursor;
mod mcap_file;
mod mcap_record;
mod metadata;
mod reader;
mod sqlite_connect;
mod sqlite_file;
mod sqlite_scan;
mod storage;
mod writer;

use std::fmt;
use std::path::PathBuf;

pub use reader::{BagReader, Messages};
pub(crate) use storage::has_storage_name;
pub use writer::{BagWriter, Compression, OfferedQos, TopicId, WriterOptions};

/// Largest message a bag may hold, after decompression: the limit of a sqlite3 blob.
pub const MAX_MESSAGE_BYTES: u64 = 1_000_000_000;
/// Largest mcap chunk, after decompression; recorders start a new one at about 1 MiB.
pub const MAX_CHUNK_BYTES: u64 = 1 << 30;
/// Largest storage file that is unpacked from a zstd-compressed one.
pub const MAX_UNPACKED_FILE_BYTES: u64 = 1 << 38;

/// The bytes of one message, header of the CDR encapsulation included. Cheap to clone; it may share the mapped file.
pub type Payload = bytes::Bytes;

/// One topic of a bag. The same name recorded with two types makes two topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Topic name with its leading slash, as recorded.
    pub name: String,
    /// For instance `sensor_msgs/msg/PointCloud2`; empty when the storage does not say.
    pub type_name: String,
    /// `cdr` for everything ROS 2 records.
    pub serialization_format: String,
    /// Messages the bag promises: by its metadata where there is some, else by its storage files.
    pub message_count: u64,
    /// `offered_qos_profiles` as found: YAML text, empty when absent.
    pub offered_qos: String,
    /// REP 2016 hash (`RIHS01_…`), empty when absent.
    pub type_hash: String,
}

/// What a bag says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BagSummary {
    /// `mcap` or `sqlite3`, several joined by `+`.
    pub storage: String,
    /// `none`, or the formats and modes found, for instance `zstd chunks`, `zstd file`, `zstd messages`.
    pub compression: String,
    /// The storage files that are read, in order.
    pub files: Vec<PathBuf>,
    /// Log time of the first message; `None` for a bag without messages.
    pub start_ns: Option<i64>,
    /// From the first to the last message.
    pub duration_ns: Option<i64>,
    /// Sum of the topics' counts.
    pub message_count: u64,
    /// Distribution that recorded it, when noted.
    pub ros_distro: Option<String>,
    /// Version of `metadata.yaml`; `None` without one.
    pub metadata_version: Option<u32>,
}

/// One recorded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BagMessage {
    /// Index into [`BagReader::topics`].
    pub topic_idx: usize,
    /// When the recorder received it; messages come in this order.
    pub log_time_ns: i64,
    /// When it was sent; sqlite3 bags do not keep it.
    pub publish_time_ns: Option<i64>,
    /// The serialised message.
    pub data: Payload,
    /// Where it lies, to read it again without a pass.
    pub at: MessageAt,
}

/// Where a message lies in its bag, for [`BagReader::read`] of the reader that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageAt {
    topic_idx: usize,
    file_idx: usize,
    spot: storage::Spot,
}

/// Where in a bag something is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// Offset in an mcap file, after unpacking.
    Byte(u64),
    /// `id` in the table `messages` of an sqlite3 file.
    Row(i64),
    /// The balance over all files. It counts again what the losses before it counted.
    Total {
        /// Messages the metadata promises on the topics that were read.
        promised: u64,
        /// Messages delivered.
        found: u64,
    },
}

/// Something of a bag that could not be read, or not be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// File (or folder, for [`Place::Total`]) it is in.
    pub file: PathBuf,
    /// Where in the file.
    pub place: Place,
    /// What is wrong, with both sides.
    pub reason: String,
    /// Messages missing because of it: `Some(0)` when they were delivered unverified, `None` when nothing tells.
    pub messages: Option<u64>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.place {
            Place::File => write!(f, ": {}", self.reason)?,
            Place::Byte(offset) => write!(f, ", byte {offset}: {}", self.reason)?,
            Place::Row(id) => write!(f, ", row {id}: {}", self.reason)?,
            Place::Total { promised, found } => {
                return write!(f, ": {promised} messages promised, {found} found ({})", self.reason);
            }
        }
        match self.messages {
            Some(0) => write!(f, " (no message lost)"),
            Some(n) => write!(f, " (messages lost: {n})"),
            None => write!(f, " (messages lost: unknown)"),
        }
    }
}

impl std::error::Error for Loss {}

/// Why a bag could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum BagError {
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        r#source: std::io::Error,
    },
    /// A recording of ROS 1.
    #[error("{path}: a ROS 1 bag ({version}); convert it first, for instance with `rosbags-convert`, expected rosbag2 (mcap or sqlite3)", path = path.display())]
    Ros1 {
        /// The file.
        path: PathBuf,
        /// Its first line.
        version: String,
    },
    /// Neither mcap nor sqlite3.
    #[error("{path}: not a storage file of rosbag2: expected mcap, sqlite3 or either compressed with zstd, got {found}", path = path.display())]
    NotABag {
        /// The file.
        path: PathBuf,
        /// What it begins with.
        found: String,
    },
    /// A folder in which nothing can be read.
    #[error("{path}: no storage file of rosbag2 (.mcap, .db3, .mcap.zstd, .db3.zstd) in this folder; {notes}", path = path.display())]
    NoStorage {
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        notes: String,
    },
    /// Storage files exist but every one is damaged beyond reading.
    #[error("{path}: nothing can be read: {}", losses.iter().map(Loss::to_string).collect::<Vec<_>>().join("; "), path = path.display())]
    NothingReadable {
        /// The bag.
        path: PathBuf,
        /// One per file.
        losses: Vec<Loss>,
    },
    /// The writer does not overwrite.
    #[error("{path}: already exists; a bag is only written to a new place", path = path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// The writer got the same topic name twice.
    #[error("topic {name} is already in the bag with type {type_name}, got it again with {again}")]
    TopicTwice {
        /// Name of the topic.
        name: String,
        /// Type it was added with first.
        type_name: String,
        /// Type of the second call.
        again: String,
    },
    /// The writer got a topic of another bag.
    #[error("topic id {got} is unknown, the bag has {n_topics} topics")]
    UnknownTopic {
        /// The index behind the id.
        got: usize,
        /// Topics added so far.
        n_topics: usize,
    },
    /// mcap counts from 1970 without a sign.
    #[error("topic {topic}: log time {log_time_ns} ns is negative, mcap holds 0 and later")]
    NegativeTime {
        /// Name of the topic.
        topic: String,
        /// The time given.
        log_time_ns: i64,
    },
    /// The mcap writer failed.
    #[error("{path}: {source}", path = path.display())]
    Mcap {
        /// The file.
        path: PathBuf,
        /// Its reason.
        r#source: mcap::McapError,
    },
    /// The metadata could not be put into YAML.
    #[error("{path}: {reason}", path = path.display())]
    MetadataText {
        /// The file.
        path: PathBuf,
        /// What the serialiser said.
        reason: String,
    },
}
