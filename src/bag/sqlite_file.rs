//! One sqlite3 storage file, schema 1 to 4.
//!
//! The keys of all messages are read first (the blobs are not touched for that), sorted, and each blob is read when its turn comes.
//! Where the table's tree is damaged the scan goes on behind the damage. SQLite has no checksums: a flipped bit inside a message
//! stays unseen here, only broken structure shows.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension, Row};

use super::storage::StoredMessage;
use super::{Loss, MAX_MESSAGE_BYTES, Place, TopicInfo};

/// How many unreadable ids are tried one by one before the steps grow.
const SINGLE_STEPS: u32 = 1024;

/// An opened sqlite3 file.
pub(super) struct SqliteFile {
    pub topics: Vec<TopicInfo>,
    pub losses: Vec<Loss>,
    /// Metadata YAML that rosbag2 repeats inside the file since schema 3.
    pub embedded_metadata: Option<String>,
    keys: Vec<Key>,
    file_bytes: u64,
    connection: Connection,
}

/// Ordered by log time, then row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    log_time_ns: i64,
    row_id: i64,
    topic_idx: usize,
}

impl SqliteFile {
    /// Opens `content_path`; `path` is the name for messages.
    ///
    /// # Errors
    /// Why nothing can be read, usually because the tables themselves are damaged.
    pub fn open(content_path: &Path, path: &Path) -> Result<Self, String> {
        let (connection, journal_fault) = connect(content_path).map_err(|fault| format!("sqlite: {fault}"))?;
        let (topics, topic_of_id) = read_topics(&connection).map_err(|fault| format!("sqlite, table topics: {fault}"))?;
        let file_bytes = std::fs::metadata(content_path).map(|meta| meta.len()).unwrap_or(0);
        let embedded_metadata = connection
            .query_row("SELECT metadata FROM metadata ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .ok()
            .flatten();
        let mut scan = Scan {
            connection: &connection,
            topic_of_id: &topic_of_id,
            keys: Vec::new(),
            faults: Vec::new(),
            unnamed: BTreeMap::new(),
        };
        scan.run().map_err(|fault| format!("sqlite, table messages: {fault}"))?;
        let Scan { mut keys, faults, unnamed, .. } = scan;
        keys.sort_unstable();
        let loss = |place, reason, messages| Loss { file: path.to_owned(), place, reason, messages };
        let mut losses: Vec<Loss> = journal_fault.into_iter().map(|reason| loss(Place::File, reason, None)).collect();
        losses.extend(faults.into_iter().map(|(row_id, reason, messages)| loss(Place::Row(row_id), reason, messages)));
        losses.extend(unnamed.into_iter().map(|(topic_id, n_messages)| {
            loss(Place::File, format!("messages of topic id {topic_id}, which the table topics does not have"), Some(n_messages))
        }));
        let mut file = Self { topics, losses, embedded_metadata, keys, file_bytes, connection };
        for key in &file.keys {
            file.topics[key.topic_idx].message_count += 1;
        }
        Ok(file)
    }

    /// First and last log time.
    pub fn time_range_ns(&self) -> Option<(i64, i64)> {
        Some((self.keys.first()?.log_time_ns, self.keys.last()?.log_time_ns))
    }

    fn read_blob(&self, row_id: i64) -> Result<Bytes, String> {
        let blob =
            self.connection.blob_open(MAIN_DB, "messages", "data", row_id, true).map_err(|fault| format!("sqlite: {fault}"))?;
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
            data: self.file.read_blob(key.row_id),
        })
    }
}

/// Opens without writing anything beside the file. A recording that was interrupted may have left a write-ahead log; reading that
/// needs a folder that can be written, and where it cannot the file is taken as it is and the reason given.
fn connect(path: &Path) -> rusqlite::Result<(Connection, Option<String>)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let pending = ["-wal", "-journal"].into_iter().find(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        std::fs::metadata(PathBuf::from(name)).is_ok_and(|meta| meta.len() > 0)
    });
    let mut journal_fault = None;
    if let Some(ending) = pending {
        let opened = Connection::open_with_flags(uri(path, "mode=ro"), flags).and_then(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).map(|()| connection)
        });
        match opened {
            Ok(connection) => return secured(connection).map(|connection| (connection, None)),
            Err(fault) => {
                journal_fault =
                    Some(format!("the {ending} file beside it cannot be replayed ({fault}); its messages are missing"))
            }
        }
    }
    let connection = Connection::open_with_flags(uri(path, "mode=ro&immutable=1"), flags)?;
    Ok((secured(connection)?, journal_fault))
}

/// A file from elsewhere may hold any schema: nothing in it may run, and cells are checked before use.
fn secured(connection: Connection) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn uri(path: &Path, query: &str) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri + "?" + query
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

/// Collects the keys of the table `messages`.
struct Scan<'a> {
    connection: &'a Connection,
    topic_of_id: &'a HashMap<i64, usize>,
    keys: Vec<Key>,
    /// First row id that is missing, why, and how many ids are missing.
    faults: Vec<(i64, String, Option<u64>)>,
    /// Messages per topic id that the file does not describe.
    unnamed: BTreeMap<i64, u64>,
}

impl Scan<'_> {
    fn run(&mut self) -> rusqlite::Result<()> {
        let mut probe = self.connection.prepare("SELECT id, topic_id, timestamp FROM messages WHERE id = ?1")?;
        let max_id: Option<i64> = self.connection.query_row("SELECT max(id) FROM messages", [], |row| row.get(0)).unwrap_or(None);
        let mut from = i64::MIN;
        loop {
            let (last, fault) = self.ascend(from)?;
            let Some(fault) = fault else { return Ok(()) };
            // Ids count from 1. A row that is found but cannot be scanned from is passed over, so every round moves on.
            let gap = last.map_or(if from == i64::MIN { 1 } else { from.saturating_add(1) }, |id| id.saturating_add(1));
            let next = first_readable(gap, max_id.unwrap_or(i64::MAX), |id| probe.exists([id]).unwrap_or(false));
            let n_missing = next.and_then(|id| u64::try_from(id - gap).ok());
            self.faults.push((gap, format!("sqlite: {fault}"), n_missing));
            match next {
                Some(id) => from = id,
                None => return Ok(()),
            }
        }
    }

    /// Rows in ascending order until the end or a fault; gives the last id read.
    fn ascend(&mut self, from: i64) -> rusqlite::Result<(Option<i64>, Option<String>)> {
        let query = "SELECT id, topic_id, timestamp FROM messages NOT INDEXED WHERE id >= ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([from])?;
        let mut last = None;
        loop {
            match rows.next() {
                Ok(None) => return Ok((last, None)),
                Ok(Some(row)) => match self.row(row, last) {
                    Ok(row_id) => last = Some(row_id),
                    Err(fault) => return Ok((last, Some(fault))),
                },
                Err(fault) => return Ok((last, Some(fault.to_string()))),
            }
        }
    }

    fn row(&mut self, row: &Row<'_>, last: Option<i64>) -> Result<i64, String> {
        let row_id: i64 = row.get(0).map_err(|fault| fault.to_string())?;
        if last.is_some_and(|last| row_id <= last) {
            return Err(format!("row {row_id} comes again"));
        }
        let (topic_id, log_time_ns) = match (row.get::<_, i64>(1), row.get::<_, i64>(2)) {
            (Ok(topic_id), Ok(log_time_ns)) => (topic_id, log_time_ns),
            (Err(fault), _) | (_, Err(fault)) => {
                self.faults.push((row_id, fault.to_string(), Some(1)));
                return Ok(row_id);
            }
        };
        match self.topic_of_id.get(&topic_id) {
            Some(&topic_idx) => self.keys.push(Key { log_time_ns, row_id, topic_idx }),
            None => *self.unnamed.entry(topic_id).or_default() += 1,
        }
        Ok(row_id)
    }
}

/// First id in `gap..=max` that can be read: one by one, then in growing steps and back by halves.
fn first_readable(gap: i64, max: i64, mut readable: impl FnMut(i64) -> bool) -> Option<i64> {
    let (mut missed, mut step) = (gap.checked_sub(1)?, 1_i64);
    let mut tries = 0;
    loop {
        let id = missed.checked_add(step)?;
        if id > max {
            return None;
        }
        if readable(id) {
            let mut found = id;
            while found - missed > 1 {
                let middle = missed + (found - missed) / 2;
                if readable(middle) { found = middle } else { missed = middle }
            }
            return Some(found);
        }
        missed = id;
        tries += 1;
        if tries > SINGLE_STEPS {
            step = step.checked_mul(2)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn first_readable_finds_the_row_behind_a_gap() {
        for (gap, max, good_from, expected) in [
            (1, 10, 1, Some(1)),
            (3, 10, 7, Some(7)),
            (3, 10, 11, None),
            (1, i64::MAX, 5_000, Some(5_000)),
            (1, i64::MAX, 1_000_000, Some(1_000_000)),
            (i64::MAX, i64::MAX, 0, Some(i64::MAX)),
        ] {
            assert_eq!(first_readable(gap, max, |id| id >= good_from), expected, "gap {gap}, good from {good_from}");
        }
    }

    #[test]
    fn uri_keeps_every_byte_of_a_path() {
        assert_eq!(uri(Path::new("/a b/ä?#%.db3"), "mode=ro"), "file:/a%20b/%C3%A4%3F%23%25.db3?mode=ro");
    }
}
