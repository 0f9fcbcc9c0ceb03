//! A whole bag: folder or single file, its splits merged by log time.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::chunk::{ZSTD_MAGIC, unpack_message};
use super::metadata::{FILE_NAME, Metadata, TopicMetadata, find_file};
use super::storage::{Cursor, StorageFile, Unusable, has_storage_name};
use super::{BagError, BagMessage, BagSummary, Loss, MessageAt, Payload, Place, TopicInfo};

/// A bag opened for reading.
pub struct BagReader {
    path: PathBuf,
    topics: Vec<TopicInfo>,
    summary: BagSummary,
    notes: Vec<String>,
    losses: Vec<Loss>,
    files: Vec<StorageFile>,
    /// Per file: index in `topics` of each of the file's topics.
    topic_maps: Vec<Vec<usize>>,
    message_mode: MessageMode,
}

/// Whether messages are compressed one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageMode {
    Plain,
    Zstd,
    /// Nothing says so: a CDR message begins with a zero byte, a zstd frame never does.
    ByFirstBytes,
}

impl BagReader {
    /// Opens a bag folder, or a single storage file (`.mcap`, `.db3`, also `.zstd` of these; the content decides, not the name).
    ///
    /// Damage does not fail: it is in [`Self::losses`] and among the items of [`Self::messages`].
    ///
    /// # Errors
    /// When there is nothing to read: no such path, no storage file, a ROS 1 bag, another kind of file, or every storage file
    /// damaged beyond opening.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BagError> {
        let path = path.as_ref();
        let io_error = |source| BagError::Io { path: path.to_owned(), source };
        let is_folder = std::fs::metadata(path).map_err(io_error)?.is_dir();
        let mut notes = Vec::new();
        let mut losses = Vec::new();
        let (metadata, named) = if is_folder {
            let found = storage_files_in(path).map_err(io_error)?;
            let metadata = read_metadata(path, &mut notes);
            let named = files_to_read(path, metadata.as_ref(), found, &mut notes, &mut losses)?;
            (metadata, named)
        } else {
            (None, vec![(path.to_owned(), None)])
        };
        let mut files = Vec::new();
        for (file_path, promised) in named {
            match StorageFile::open(&file_path) {
                Ok(file) => files.push(file),
                Err(Unusable::Damaged(loss)) => losses.push(Loss { messages: loss.messages.or(promised), ..loss }),
                Err(Unusable::Error(error)) if !is_folder => return Err(error),
                Err(Unusable::Error(error)) => {
                    losses.push(Loss { file: file_path, place: Place::File, reason: error.to_string(), messages: promised });
                }
            }
        }
        if files.is_empty() {
            return Err(BagError::NothingReadable { path: path.to_owned(), losses });
        }
        Ok(Self::assemble(path, metadata, files, notes, losses))
    }

    fn assemble(
        path: &Path,
        metadata: Option<Metadata>,
        files: Vec<StorageFile>,
        notes: Vec<String>,
        mut losses: Vec<Loss>,
    ) -> Self {
        let mut topics = Vec::new();
        let listed = metadata.iter().flat_map(|metadata| metadata.topics_with_message_count.iter().flatten());
        for topic in listed {
            topics.push(topic_of_metadata(&topic.topic_metadata, topic.message_count.unwrap_or(0)));
        }
        let counts_are_promised = !topics.is_empty();
        let mut topic_maps = Vec::new();
        for file in &files {
            losses.extend_from_slice(&file.losses);
            topic_maps.push(file.topics().iter().map(|topic| merge_topic(&mut topics, topic, counts_are_promised)).collect());
        }
        let embedded = files.iter().find_map(|file| Metadata::parse_embedded(file.embedded_metadata()?));
        let message_mode = match metadata.as_ref().or(embedded.as_ref()) {
            Some(known) if known.has_compressed_messages() => MessageMode::Zstd,
            Some(_) => MessageMode::Plain,
            None => MessageMode::ByFirstBytes,
        };
        let summary = summarise(&files, metadata.as_ref(), embedded.as_ref(), message_mode, &topics);
        Self { path: path.to_owned(), topics, summary, notes, losses, files, topic_maps, message_mode }
    }

    /// Every topic, in the order of the metadata, then of the files.
    pub fn topics(&self) -> &[TopicInfo] {
        &self.topics
    }

    /// What the bag says about itself.
    pub fn summary(&self) -> &BagSummary {
        &self.summary
    }

    /// What a person should know though no message is lost by it: no metadata, files that the metadata does not name.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Damage found while opening; [`Self::messages`] gives it again before anything else, then what is only met while reading.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// One message again, from any thread: [`BagMessage::at`] of this reader says which. A compressed chunk is unpacked for it.
    ///
    /// # Errors
    /// What is wrong at that place.
    ///
    /// # Panics
    /// With the place of another, larger bag.
    pub fn read(&self, at: MessageAt) -> Result<Payload, Loss> {
        let MessageAt { topic_idx, file_idx, spot } = at;
        let file = &self.files[file_idx];
        let data = file.read(spot).and_then(|data| self.message_mode.unpack(data));
        data.map_err(|reason| self.lost_message(topic_idx, file_idx, file.place(spot), &reason))
    }

    fn lost_message(&self, topic_idx: usize, file_idx: usize, place: Place, reason: &str) -> Loss {
        let reason = format!("topic {}: {reason}", self.topics[topic_idx].name);
        Loss { file: self.files[file_idx].path.clone(), place, reason, messages: Some(1) }
    }

    /// The messages of the wanted topics by log time; equal times keep the order of the files, then of the positions in a file.
    ///
    /// An `Err` is one [`Loss`]; the pass goes on behind it. The last item is an `Err` with [`Place::Total`] if fewer messages were
    /// found than promised.
    pub fn messages(&self, wanted: impl Fn(&TopicInfo) -> bool) -> Messages<'_> {
        let wanted: Vec<bool> = self.topics.iter().map(wanted).collect();
        let promised = self
            .topics
            .iter()
            .zip(&wanted)
            .filter(|(_, wanted)| **wanted)
            .fold(0_u64, |sum, (topic, _)| sum.saturating_add(topic.message_count));
        let cursors = self
            .files
            .iter()
            .zip(&self.topic_maps)
            .map(|(file, map)| file.cursor(map.iter().map(|&topic_idx| wanted[topic_idx]).collect()));
        Messages {
            bag: self,
            cursors: cursors.collect(),
            losses: self.losses.iter().cloned().collect(),
            promised,
            found: 0,
            is_done: false,
        }
    }
}

impl MessageMode {
    fn unpack(self, stored: Payload) -> Result<Payload, String> {
        let is_packed = match self {
            Self::Plain => false,
            Self::Zstd => true,
            Self::ByFirstBytes => stored.starts_with(&ZSTD_MAGIC),
        };
        if is_packed { unpack_message(&stored) } else { Ok(stored) }
    }
}

/// One pass over a bag; see [`BagReader::messages`].
pub struct Messages<'a> {
    bag: &'a BagReader,
    cursors: Vec<Cursor<'a>>,
    losses: VecDeque<Loss>,
    promised: u64,
    found: u64,
    is_done: bool,
}

impl Messages<'_> {
    /// Messages promised on the wanted topics, for progress.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// Messages delivered so far.
    pub fn found(&self) -> u64 {
        self.found
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<BagMessage, Loss>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(loss) = self.losses.pop_front() {
            return Some(Err(loss));
        }
        if self.is_done {
            return None;
        }
        let mut first: Option<(i64, usize)> = None;
        for (file_idx, cursor) in self.cursors.iter_mut().enumerate() {
            if let Some(time) = cursor.peek_ns(&mut self.losses)
                && first.is_none_or(|(earliest, _)| time < earliest)
            {
                first = Some((time, file_idx));
            }
        }
        if let Some(loss) = self.losses.pop_front() {
            return Some(Err(loss));
        }
        let Some((file_idx, stored)) = first.and_then(|(_, file_idx)| Some((file_idx, self.cursors[file_idx].take()?))) else {
            self.is_done = true;
            return (self.found < self.promised).then(|| Err(self.balance()));
        };
        let data = stored.data.and_then(|data| self.bag.message_mode.unpack(data));
        let topic_idx = self.bag.topic_maps[file_idx][stored.topic_idx];
        Some(match data {
            Ok(data) => {
                self.found += 1;
                let at = MessageAt { topic_idx, file_idx, spot: stored.spot };
                Ok(BagMessage { topic_idx, log_time_ns: stored.log_time_ns, publish_time_ns: stored.publish_time_ns, data, at })
            }
            Err(reason) => Err(self.bag.lost_message(topic_idx, file_idx, stored.place, &reason)),
        })
    }
}

impl Messages<'_> {
    fn balance(&self) -> Loss {
        Loss {
            file: self.bag.path.clone(),
            place: Place::Total { promised: self.promised, found: self.found },
            reason: if self.bag.summary.metadata_version.is_some() {
                "promised by metadata.yaml"
            } else {
                "promised by the storage"
            }
            .into(),
            messages: Some(self.promised - self.found),
        }
    }
}

/// Storage files of a folder; `bag_2` comes before `bag_10`.
fn storage_files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && has_storage_name(&path) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| natural_key(&path.file_name().unwrap_or_default().to_string_lossy()));
    Ok(found)
}

/// Text with every run of digits preceded by its length, so that numbers sort by value.
fn natural_key(name: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for run in name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        if run[0].is_ascii_digit() {
            let value = &run[run.iter().take_while(|&&byte| byte == b'0').count()..];
            // `0` and above sorts like a digit would among letters.
            key.push(b'0');
            key.extend((value.len() as u64).to_be_bytes());
            key.extend(value);
        } else {
            key.extend(run);
        }
    }
    key
}

fn read_metadata(folder: &Path, notes: &mut Vec<String>) -> Option<Metadata> {
    let path = folder.join(FILE_NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(fault) => {
            notes.push(format!("{FILE_NAME} cannot be read ({fault}); the storage files of the folder are read as they are"));
            return None;
        }
    };
    match Metadata::parse(&text) {
        Ok(metadata) => {
            notes.extend(metadata.gaps());
            Some(metadata)
        }
        Err(fault) => {
            notes.push(format!("{FILE_NAME} is not valid ({fault}); the storage files of the folder are read as they are"));
            None
        }
    }
}

/// The files the metadata names, or all that were found; each with the messages promised.
fn files_to_read(
    folder: &Path,
    metadata: Option<&Metadata>,
    found: Vec<PathBuf>,
    notes: &mut Vec<String>,
    losses: &mut Vec<Loss>,
) -> Result<Vec<(PathBuf, Option<u64>)>, BagError> {
    let named = metadata.map(Metadata::files).unwrap_or_default();
    let mut files: Vec<(PathBuf, Option<u64>)> = Vec::new();
    for (name, promised) in &named {
        match find_file(folder, name) {
            Some(path) if files.iter().any(|(known, _)| *known == path) => notes.push(format!("{FILE_NAME} names {name} twice")),
            Some(path) => files.push((path, *promised)),
            None => losses.push(Loss {
                file: folder.join(name),
                place: Place::File,
                reason: format!("named by {FILE_NAME}, not in the folder"),
                messages: *promised,
            }),
        }
    }
    if named.is_empty() {
        files = found.into_iter().map(|path| (path, None)).collect();
    } else {
        for path in found.iter().filter(|path| !files.iter().any(|(known, _)| known == *path)) {
            notes.push(format!("{} is not named by {FILE_NAME} and is not read", path.display()));
        }
    }
    if files.is_empty() && losses.is_empty() {
        return Err(nothing_in(folder, notes));
    }
    Ok(files)
}

/// A folder without storage files; a ROS 1 bag in it is named.
fn nothing_in(folder: &Path, notes: &[String]) -> BagError {
    let ros1 = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).find_map(|path| {
        let is_bag = path.extension().is_some_and(|extension| extension == "bag");
        match is_bag.then(|| StorageFile::open(&path)) {
            Some(Err(Unusable::Error(error @ BagError::Ros1 { .. }))) => Some(error),
            _ => None,
        }
    });
    ros1.unwrap_or_else(|| BagError::NoStorage { path: folder.to_owned(), notes: notes.join("; ") })
}

fn topic_of_metadata(topic: &TopicMetadata, message_count: u64) -> TopicInfo {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    TopicInfo {
        name: text(&topic.name),
        type_name: text(&topic.type_name),
        serialization_format: text(&topic.serialization_format),
        message_count,
        offered_qos: topic.qos_text(),
        type_hash: text(&topic.type_description_hash),
    }
}

/// Index of the file's topic among the bag's; what the metadata leaves out is filled in from the file.
fn merge_topic(topics: &mut Vec<TopicInfo>, topic: &TopicInfo, counts_are_promised: bool) -> usize {
    let known = topics.iter().position(|known| {
        known.name == topic.name
            && (known.type_name == topic.type_name || known.type_name.is_empty() || topic.type_name.is_empty())
    });
    let Some(topic_idx) = known else {
        topics.push(topic.clone());
        return topics.len() - 1;
    };
    let known = &mut topics[topic_idx];
    if !counts_are_promised {
        known.message_count = known.message_count.saturating_add(topic.message_count);
    }
    for (field, value) in [
        (&mut known.type_name, &topic.type_name),
        (&mut known.serialization_format, &topic.serialization_format),
        (&mut known.offered_qos, &topic.offered_qos),
        (&mut known.type_hash, &topic.type_hash),
    ] {
        if field.is_empty() {
            field.clone_from(value);
        }
    }
    topic_idx
}

fn summarise(
    files: &[StorageFile],
    metadata: Option<&Metadata>,
    embedded: Option<&Metadata>,
    message_mode: MessageMode,
    topics: &[TopicInfo],
) -> BagSummary {
    let storages: BTreeSet<&str> = files.iter().map(StorageFile::storage_name).collect();
    let mut compressions: BTreeSet<String> = files.iter().flat_map(StorageFile::compressions).collect();
    if message_mode == MessageMode::Zstd {
        compressions.insert("zstd messages".to_owned());
    }
    let join = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join("+") };
    let ranges: Vec<(i64, i64)> = files.iter().filter_map(StorageFile::time_range_ns).collect();
    let start_ns = ranges.iter().map(|range| range.0).min();
    let end_ns = ranges.iter().map(|range| range.1).max();
    let distro = [metadata, embedded].into_iter().flatten().find_map(|metadata| metadata.ros_distro.clone());
    BagSummary {
        storage: join(storages.into_iter().collect()),
        compression: join(compressions.iter().map(String::as_str).collect()),
        files: files.iter().map(|file| file.path.clone()).collect(),
        start_ns,
        duration_ns: end_ns.zip(start_ns).and_then(|(end, start)| end.checked_sub(start)),
        message_count: topics.iter().fold(0, |sum, topic| sum.saturating_add(topic.message_count)),
        ros_distro: distro.filter(|distro| !distro.is_empty()),
        metadata_version: metadata.and_then(|metadata| metadata.version),
    }
}
