//! One sqlite3 storage file, schema 1 to 4.
//!
//! The keys of all messages are read first (the blobs are not touched for that), sorted, and each blob is read when its turn comes.
//! SQLite has no checksums: a flipped bit inside a message stays unseen here, only broken structure shows.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, OptionalExtension};
use tempfile::TempPath;

use super::sqlite_connect::{Connected, connect, require_tables, stored_bytes};
use super::sqlite_scan::{Key, Scanned, scan};
use super::storage::{Spot, StoredMessage};
use super::{Loss, MAX_MESSAGE_BYTES, Place, TopicInfo};

/// An opened sqlite3 file.
pub(super) struct SqliteFile {
    pub topics: Vec<TopicInfo>,
    pub losses: Vec<Loss>,
    /// Metadata YAML that rosbag2 repeats inside the file since schema 3.
    pub embedded_metadata: Option<String>,
    keys: Vec<Key>,
    /// With the write-ahead log beside it; no message can be larger.
    file_bytes: u64,
    connection: Mutex<Connection>,
    /// What the connection reads instead of a file that ends inside a page; removed with it.
    _copy: Option<TempPath>,
}

impl SqliteFile {
    /// Opens `content_path`; `path` is the name for messages.
    ///
    /// # Errors
    /// Why nothing can be read, usually because the tables themselves are damaged.
    pub fn open(content_path: &Path, path: &Path) -> Result<Self, String> {
        let Connected { connection, faults: file_faults, copy } = connect(content_path)?;
        require_tables(&connection)?;
        let (topics, topic_of_id) = read_topics(&connection).map_err(|fault| format!("sqlite, table topics: {fault}"))?;
        let file_bytes = stored_bytes(content_path);
        let embedded_metadata = connection
            .query_row("SELECT metadata FROM metadata ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .ok()
            .flatten();
        let Scanned { keys, faults, unnamed } =
            scan(&connection, &topic_of_id).map_err(|fault| format!("sqlite, table messages: {fault}"))?;
        let loss = |place, reason, messages| Loss { file: path.to_owned(), place, reason, messages };
        let mut losses: Vec<Loss> = file_faults.into_iter().map(|reason| loss(Place::File, reason, None)).collect();
        losses.extend(faults.into_iter().map(|(row_id, reason, messages)| loss(Place::Row(row_id), reason, messages)));
        losses.extend(unnamed.into_iter().map(|(topic_id, n_messages)| {
            loss(Place::File, format!("messages of topic id {topic_id}, which the table topics does not have"), Some(n_messages))
        }));
        let mut file =
            Self { topics, losses, embedded_metadata, keys, file_bytes, connection: Mutex::new(connection), _copy: copy };
        for key in &file.keys {
            file.topics[key.topic_idx].message_count += 1;
        }
        Ok(file)
    }

    /// First and last log time.
    pub fn time_range_ns(&self) -> Option<(i64, i64)> {
        Some((self.keys.first()?.log_time_ns, self.keys.last()?.log_time_ns))
    }

    /// One message; threads take turns.
    pub fn read_blob(&self, row_id: i64) -> Result<Bytes, String> {
        // A panic of another thread leaves nothing half done: the connection only reads.
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = connection.blob_open(MAIN_DB, "messages", "data", row_id, true).map_err(|fault| format!("sqlite: {fault}"))?;
        let n_bytes = blob.len();
        let limit = self.file_bytes.min(MAX_MESSAGE_BYTES);
        if n_bytes as u64 > limit {
            return Err(format!("message declares {n_bytes} bytes, the file has {}", self.file_bytes));
        }
        let mut data = vec![0; n_bytes];
        blob.read_at_exact(&mut data, 0).map_err(|fault| format!("sqlite: {fault}"))?;
        Ok(data.into())
    }
}

/// A pass over the wanted messages.
pub(super) struct SqliteCursor<'a> {
    file: &'a SqliteFile,
    keys: std::iter::Peekable<std::vec::IntoIter<Key>>,
}

impl<'a> SqliteCursor<'a> {
    /// `wanted` is by topic of the file.
    pub fn new(file: &'a SqliteFile, wanted: &[bool]) -> Self {
        let keys: Vec<Key> = file.keys.iter().copied().filter(|key| wanted[key.topic_idx]).collect();
        Self { file, keys: keys.into_iter().peekable() }
    }

    /// Log time of the next message.
    pub fn peek_ns(&mut self) -> Option<i64> {
        self.keys.peek().map(|key| key.log_time_ns)
    }

    /// The message whose time [`Self::peek_ns`] told.
    pub fn take(&mut self) -> Option<StoredMessage> {
        let key = self.keys.next()?;
        Some(StoredMessage {
            topic_idx: key.topic_idx,
            log_time_ns: key.log_time_ns,
            publish_time_ns: None,
            place: Place::Row(key.row_id),
            spot: Spot::Row(key.row_id),
            data: self.file.read_blob(key.row_id),
        })
    }
}

fn read_topics(connection: &Connection) -> rusqlite::Result<(Vec<TopicInfo>, HashMap<i64, usize>)> {
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info('topics')")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    // Schema 1 has the first four columns, 2 adds the profiles, 4 the hash.
    let column = |name: &'static str| if columns.iter().any(|column| column == name) { name } else { "''" };
    let query = format!(
        "SELECT id, name, {}, {}, {}, {} FROM topics ORDER BY id",
        column("type"),
        column("serialization_format"),
        column("offered_qos_profiles"),
        column("type_description_hash")
    );
    let mut topics = Vec::<TopicInfo>::new();
    let mut topic_of_id = HashMap::new();
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let topic = TopicInfo {
            name: row.get(1)?,
            type_name: row.get(2)?,
            serialization_format: row.get(3)?,
            message_count: 0,
            offered_qos: row.get(4)?,
            type_hash: row.get(5)?,
        };
        let known = topics.iter().position(|known| known.name == topic.name && known.type_name == topic.type_name);
        topic_of_id.insert(row.get(0)?, known.unwrap_or(topics.len()));
        if known.is_none() {
            topics.push(topic);
        }
    }
    Ok((topics, topic_of_id))
}
