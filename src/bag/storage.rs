//! Storage files: what kind one is (by its first bytes, not its name), unpacking, and one face for mcap and sqlite3.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempPath;

use super::chunk::{ZSTD_MAGIC, unpack_file};
use super::mcap_cursor::McapCursor;
use super::mcap_file::McapFile;
use super::sqlite_file::{SqliteCursor, SqliteFile};
use super::{BagError, Loss, Place, TopicInfo, map, mcap_record};

const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
const ROS1_MAGIC: &[u8] = b"#ROS";

/// One message as it lies in its file.
pub(super) struct StoredMessage {
    /// Index into the topics of the file.
    pub topic_idx: usize,
    pub log_time_ns: i64,
    pub publish_time_ns: Option<i64>,
    pub place: Place,
    pub spot: Spot,
    /// The bytes, or why they cannot be read.
    pub data: Result<Bytes, String>,
}

/// Where the record of a message is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// Offset of the record in the unpacked chunk.
    Chunk { chunk_idx: usize, offset: usize },
    /// `id` in the table `messages`.
    Row(i64),
}

/// An opened storage file of either kind.
pub(super) struct StorageFile {
    /// The file of the bag, also when what is read is its unpacked copy.
    pub path: PathBuf,
    pub content: Content,
    pub losses: Vec<Loss>,
    unpacked: Option<TempPath>,
}

pub(super) enum Content {
    Mcap(McapFile),
    Sqlite(SqliteFile),
}

/// Why one file of a bag cannot be used.
pub(super) enum Unusable {
    /// It is something else, or the system refused.
    Error(BagError),
    /// It is a storage file, too damaged to read anything.
    Damaged(Loss),
}

impl StorageFile {
    /// Opens `path`; a zstd file is first unpacked to the system's folder for temporary files.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let io_error = |source| Unusable::Error(BagError::Io { path: path.to_owned(), source });
        let head = first_bytes(path).map_err(io_error)?;
        if !head.starts_with(&ZSTD_MAGIC) {
            return Self::open_plain(path, path, None);
        }
        let mut target = tempfile::NamedTempFile::new().map_err(io_error)?;
        let fault = unpack_file(path, target.as_file_mut()).map_err(io_error)?;
        let unpacked = target.into_temp_path();
        let loss = fault.map(|reason| Loss { file: path.to_owned(), place: Place::File, reason, messages: None });
        match Self::open_plain(&unpacked, path, loss.clone()) {
            Ok(file) => Ok(Self { unpacked: Some(unpacked), ..file }),
            Err(unusable) => Err(loss.map_or(unusable, Unusable::Damaged)),
        }
    }

    fn open_plain(content_path: &Path, path: &Path, loss: Option<Loss>) -> Result<Self, Unusable> {
        let io_error = |source| Unusable::Error(BagError::Io { path: path.to_owned(), source });
        let damaged = |reason| Unusable::Damaged(Loss { file: path.to_owned(), place: Place::File, reason, messages: None });
        let head = first_bytes(content_path).map_err(io_error)?;
        let content = if head.starts_with(&mcap_record::MAGIC) {
            let bytes = map::map_file(content_path).map_err(io_error)?;
            Content::Mcap(McapFile::open(path, bytes).map_err(damaged)?)
        } else if head.starts_with(SQLITE_MAGIC) {
            Content::Sqlite(SqliteFile::open(content_path, path).map_err(damaged)?)
        } else {
            return Err(Unusable::Error(not_a_bag(path, &head)));
        };
        let mut losses: Vec<Loss> = loss.into_iter().collect();
        losses.extend_from_slice(match &content {
            Content::Mcap(file) => &file.losses,
            Content::Sqlite(file) => &file.losses,
        });
        Ok(Self { path: path.to_owned(), content, losses, unpacked: None })
    }

    /// Topics the file itself knows, with the messages it promises.
    pub fn topics(&self) -> &[TopicInfo] {
        match &self.content {
            Content::Mcap(file) => &file.topics,
            Content::Sqlite(file) => &file.topics,
        }
    }

    /// First and last log time.
    pub fn time_range_ns(&self) -> Option<(i64, i64)> {
        match &self.content {
            Content::Mcap(file) => file.time_range_ns(),
            Content::Sqlite(file) => file.time_range_ns(),
        }
    }

    /// Metadata YAML inside the file.
    pub fn embedded_metadata(&self) -> Option<&str> {
        match &self.content {
            Content::Mcap(file) => file.embedded_metadata.as_deref(),
            Content::Sqlite(file) => file.embedded_metadata.as_deref(),
        }
    }

    /// `mcap` or `sqlite3`.
    pub fn storage_name(&self) -> &'static str {
        match self.content {
            Content::Mcap(_) => "mcap",
            Content::Sqlite(_) => "sqlite3",
        }
    }

    /// Compressions of the file itself: `zstd file`, `lz4 chunks` and the like.
    pub fn compressions(&self) -> Vec<String> {
        let mut found: Vec<String> = self.unpacked.iter().map(|_| "zstd file".to_owned()).collect();
        if let Content::Mcap(file) = &self.content {
            let chunks = file.chunks.iter().map(|chunk| &chunk.header.compression).filter(|name| !name.is_empty());
            found.extend(chunks.map(|name| format!("{name} chunks")));
        }
        found.sort();
        found.dedup();
        found
    }

    /// A spot as people are told it.
    pub fn place(&self, spot: Spot) -> Place {
        match (&self.content, spot) {
            (Content::Mcap(file), Spot::Chunk { chunk_idx, .. }) => {
                file.chunks.get(chunk_idx).map_or(Place::File, |chunk| Place::Byte(chunk.offset as u64))
            }
            (_, Spot::Row(row_id)) => Place::Row(row_id),
            (Content::Sqlite(_), Spot::Chunk { .. }) => Place::File,
        }
    }

    /// The stored bytes of one message.
    ///
    /// # Errors
    /// What is wrong there.
    pub fn read(&self, spot: Spot) -> Result<Bytes, String> {
        match (&self.content, spot) {
            (Content::Mcap(file), Spot::Chunk { chunk_idx, offset }) => file.read(chunk_idx, offset),
            (Content::Sqlite(file), Spot::Row(row_id)) => file.read_blob(row_id),
            (_, spot) => Err(format!("{spot:?} is a place in a file of another kind")),
        }
    }

    /// A pass over the messages of the wanted topics.
    pub fn cursor(&self, wanted: Vec<bool>) -> Cursor<'_> {
        match &self.content {
            Content::Mcap(file) => Cursor::Mcap(McapCursor::new(file, wanted)),
            Content::Sqlite(file) => Cursor::Sqlite(SqliteCursor::new(file, &wanted)),
        }
    }
}

/// A pass over one file in the order of log times.
pub(super) enum Cursor<'a> {
    Mcap(McapCursor<'a>),
    Sqlite(SqliteCursor<'a>),
}

impl Cursor<'_> {
    /// Log time of the next message; damage met on the way goes to `losses`.
    pub fn peek_ns(&mut self, losses: &mut VecDeque<Loss>) -> Option<i64> {
        match self {
            Self::Mcap(cursor) => cursor.peek_ns(losses),
            Self::Sqlite(cursor) => cursor.peek_ns(),
        }
    }

    /// The message whose time [`Self::peek_ns`] told.
    pub fn take(&mut self) -> Option<StoredMessage> {
        match self {
            Self::Mcap(cursor) => cursor.take(),
            Self::Sqlite(cursor) => cursor.take(),
        }
    }
}

/// Whether the name is one that rosbag2 gives to storage files.
pub(crate) fn has_storage_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    [".mcap", ".db3", ".mcap.zstd", ".db3.zstd"].iter().any(|ending| name.ends_with(ending))
}

fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut head)?;
    Ok(head)
}

fn not_a_bag(path: &Path, head: &[u8]) -> BagError {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if head.starts_with(ROS1_MAGIC) {
        return BagError::Ros1 { path: path.to_owned(), version: String::from_utf8_lossy(line).into_owned() };
    }
    let found = match head {
        [] => "an empty file".to_owned(),
        _ => format!("bytes {}", head[..head.len().min(16)].escape_ascii()),
    };
    BagError::NotABag { path: path.to_owned(), found }
}
