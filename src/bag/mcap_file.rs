//! One mcap file: its topics and where its chunks are.
//!
//! The table of chunks comes from walking the records from the front, never from the index at the end: a healthy file, one that
//! was cut and one without a summary take the same path. Walking touches only the first bytes of each record.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::chunk::unpack_chunk;
use super::mcap_record::{
    Channel, ChunkHeader, Fields, MAGIC, MessageHeader, RECORD_HEADER_BYTES, RecordAt, Schema, chunk_at, find_chunk,
    footer_summary, message_index_count, op, record_at, statistics_counts,
};
use super::{Loss, Place, TopicInfo};

/// Consecutive messages outside chunks are handled like a chunk, so that they too are read piece by piece.
const LOOSE_RUN_BYTES: usize = 16 << 20;

/// Records behind suspects that may be walked in vain before rewinding ends: a bag of hours twice over, a second of work.
const MAX_REWALKED: usize = 1 << 22;

/// A run of records that is unpacked and sorted as a whole.
#[derive(Debug, Clone)]
pub(super) struct ChunkAt {
    /// Offset of the chunk record in the file.
    pub offset: usize,
    /// Its stored records; shorter than the header says if the file ends before.
    pub stored: Range<usize>,
    pub header: ChunkHeader,
    /// Messages per channel by the index records behind the chunk; empty if there are none.
    pub indexed: BTreeMap<u16, u64>,
}

impl ChunkAt {
    /// Whether all stored bytes are in the file.
    pub fn is_whole(&self) -> bool {
        self.stored.len() as u64 == self.header.stored_bytes
    }
}

/// An opened mcap file.
pub(super) struct McapFile {
    pub path: PathBuf,
    pub bytes: Bytes,
    pub topics: Vec<TopicInfo>,
    /// Channel number to index in `topics`.
    pub topic_of_channel: HashMap<u16, usize>,
    pub chunks: Vec<ChunkAt>,
    pub losses: Vec<Loss>,
    /// Metadata YAML that rosbag2 repeats inside the file since Iron.
    pub embedded_metadata: Option<String>,
}

/// What walking the file collects.
#[derive(Default)]
struct Walk {
    schemas: HashMap<u16, Schema>,
    channels: BTreeMap<u16, Channel>,
    chunks: Vec<ChunkAt>,
    losses: Vec<(usize, String, Option<u64>)>,
    counts: Option<BTreeMap<u16, u64>>,
    embedded_metadata: Option<String>,
    has_loose_messages: bool,
    summary_is_damaged: bool,
    data_end: Option<(usize, u32)>,
    footer: Option<(usize, u64, u32)>,
}

impl McapFile {
    /// Takes the whole file; `path` is only for messages.
    ///
    /// # Errors
    /// Why nothing can be read: the file does not even begin as mcap.
    pub fn open(path: &Path, bytes: Bytes) -> Result<Self, String> {
        if !bytes.starts_with(&MAGIC) {
            return Err(format!("does not begin with the mcap magic, has {} bytes", bytes.len()));
        }
        let mut walk = Walk::default();
        walk.records(&bytes);
        walk.check_sums(&bytes);
        if walk.counts.is_none() {
            walk.look_into_chunks(&bytes);
        }
        let losses = walk
            .losses
            .iter()
            .map(|(offset, reason, messages)| Loss {
                file: path.to_owned(),
                place: Place::Byte(*offset as u64),
                reason: reason.clone(),
                messages: *messages,
            })
            .collect();
        let (topics, topic_of_channel) = walk.topics();
        Ok(Self {
            path: path.to_owned(),
            bytes,
            topics,
            topic_of_channel,
            chunks: walk.chunks,
            losses,
            embedded_metadata: walk.embedded_metadata,
        })
    }

    /// The message whose record begins at `offset` of the unpacked chunk. Its checksum was compared when the cursor passed it.
    ///
    /// # Errors
    /// When there is no such record, or not any more.
    pub fn read(&self, chunk_idx: usize, offset: usize) -> Result<Bytes, String> {
        let chunk = self.chunks.get(chunk_idx).ok_or_else(|| format!("chunk {chunk_idx} of {}", self.chunks.len()))?;
        let stored = self.bytes.slice(chunk.stored.clone());
        let (records, fault) = unpack_chunk(&chunk.header.compression, stored, chunk.header.unpacked_bytes);
        let record = record_at(&records, offset).map_err(|cut| fault.unwrap_or(cut))?;
        if record.opcode != op::MESSAGE || record.body.len() < MessageHeader::BYTES {
            return Err(format!("the record at byte {offset} of the chunk is no message"));
        }
        Ok(records.slice(record.body.start + MessageHeader::BYTES..record.body.end))
    }

    /// First and last log time by the chunk headers.
    pub fn time_range_ns(&self) -> Option<(i64, i64)> {
        let start = self.chunks.iter().map(|chunk| chunk.header.start_time).min()?;
        let end = self.chunks.iter().map(|chunk| chunk.header.end_time).max()?;
        Some((i64::try_from(start).ok()?, i64::try_from(end).ok()?))
    }
}

impl Walk {
    fn records(&mut self, bytes: &[u8]) {
        let mut pos = MAGIC.len();
        // The first record of a kind that the format does not define; damage found later probably began there.
        let mut suspect = None;
        // Records walked since the suspect, and all those that were walked in vain.
        let (mut n_since, mut n_rewalked) = (0_usize, 0_usize);
        loop {
            if self.footer.is_some() && bytes.get(pos..) == Some(&MAGIC) {
                return;
            }
            let fault = match record_at(bytes, pos) {
                Ok(record) => match self.record(bytes, pos, &record) {
                    Ok(()) => {
                        if record.opcode == 0 || (record.opcode > op::DATA_END && record.opcode < op::PRIVATE) {
                            suspect.get_or_insert(pos);
                        }
                        n_since += usize::from(suspect.is_some());
                        pos = record.body.end;
                        continue;
                    }
                    Err(fault) => fault,
                },
                Err(_) if pos == bytes.len() && self.footer.is_none() => {
                    self.losses.push((pos, "the file ends without a footer: cut, or the recorder was killed".into(), None));
                    return;
                }
                Err(fault) => fault,
            };
            if let Some((header, start)) = chunk_at(bytes, pos) {
                // A chunk whose record reaches behind the end of the file: its beginning may still hold messages.
                self.chunks.push(ChunkAt { offset: pos, stored: start..bytes.len(), header, indexed: BTreeMap::new() });
                self.losses.push((pos, format!("the file is cut inside a chunk: {fault}"), None));
                return;
            }
            // Rewinds may lead to the same fault again and again; without a limit the time would be quadratic.
            let broken_at = suspect.take().filter(|_| n_rewalked <= MAX_REWALKED).unwrap_or(pos);
            n_rewalked += std::mem::take(&mut n_since);
            self.chunks.truncate(self.chunks.partition_point(|chunk| chunk.offset < broken_at));
            let next = find_chunk(bytes, broken_at + 1);
            let then = next.map_or("no chunk follows".into(), |at| format!("reading goes on at byte {at}"));
            self.losses.push((broken_at, format!("broken record: {fault}; {then}"), None));
            match next {
                Some(at) => pos = at,
                None => return,
            }
        }
    }

    fn record(&mut self, bytes: &[u8], pos: usize, record: &RecordAt) -> Result<(), String> {
        let body = &bytes[record.body.clone()];
        let malformed = |what: &str| format!("{what} record of {} bytes contradicts its own lengths", body.len());
        match record.opcode {
            op::CHUNK => {
                let (header, start) = chunk_at(bytes, pos).ok_or_else(|| malformed("chunk"))?;
                self.chunks.push(ChunkAt { offset: pos, stored: start..record.body.end, header, indexed: BTreeMap::new() });
            }
            op::MESSAGE_INDEX => {
                let (channel_id, n_messages) = message_index_count(body).ok_or_else(|| malformed("message index"))?;
                if let Some(chunk) = self.chunks.last_mut() {
                    *chunk.indexed.entry(channel_id).or_default() += n_messages;
                }
            }
            op::MESSAGE => self.loose_message(pos, record.body.end, body).ok_or_else(|| malformed("message"))?,
            op::SCHEMA | op::CHANNEL => self.definition(record.opcode, body).ok_or_else(|| malformed("schema or channel"))?,
            op::STATISTICS => self.counts = Some(statistics_counts(body).ok_or_else(|| malformed("statistics"))?),
            op::METADATA => {
                let mut fields = Fields::new(body);
                if fields.string().ok_or_else(|| malformed("metadata"))? == "rosbag2" {
                    self.embedded_metadata = fields.string_map().and_then(|mut map| map.remove("serialized_metadata"));
                }
            }
            op::DATA_END => {
                let crc = Fields::new(body).u32().ok_or_else(|| malformed("data end"))?;
                self.data_end = Some((pos, crc));
            }
            op::FOOTER => {
                let (summary_start, crc) = footer_summary(body).ok_or_else(|| malformed("footer"))?;
                self.footer = Some((pos, summary_start, crc));
            }
            _ => {}
        }
        Ok(())
    }

    /// The first definition of a number counts; the summary repeats them.
    fn definition(&mut self, opcode: u8, body: &[u8]) -> Option<()> {
        if opcode == op::SCHEMA {
            let schema = Schema::parse(body)?;
            self.schemas.entry(schema.id).or_insert(schema);
        } else {
            let channel = Channel::parse(body)?;
            self.channels.entry(channel.id).or_insert(channel);
        }
        Some(())
    }

    fn loose_message(&mut self, pos: usize, end: usize, body: &[u8]) -> Option<()> {
        let message = MessageHeader::parse(body)?;
        self.has_loose_messages = true;
        let time = message.log_time;
        match self.chunks.last_mut() {
            Some(run) if run.stored.end == pos && run.offset == run.stored.start && run.stored.len() < LOOSE_RUN_BYTES => {
                run.stored.end = end;
                run.header.start_time = run.header.start_time.min(time);
                run.header.end_time = run.header.end_time.max(time);
            }
            _ => self.chunks.push(ChunkAt {
                offset: pos,
                stored: pos..end,
                header: ChunkHeader {
                    start_time: time,
                    end_time: time,
                    unpacked_bytes: 0,
                    crc: 0,
                    compression: String::new(),
                    stored_bytes: 0,
                },
                indexed: BTreeMap::new(),
            }),
        }
        let run = self.chunks.last_mut()?;
        run.header.stored_bytes = run.stored.len() as u64;
        run.header.unpacked_bytes = run.header.stored_bytes;
        *run.indexed.entry(message.channel_id).or_default() += 1;
        Some(())
    }

    /// Checksums outside chunks. The one over all data is only computed where no chunk has its own.
    fn check_sums(&mut self, bytes: &[u8]) {
        if let Some((pos, crc)) = self.data_end.filter(|&(_, crc)| crc != 0 && self.has_loose_messages) {
            let computed = crc32fast::hash(&bytes[..pos]);
            if computed != crc {
                let reason =
                    format!("checksum of the data is {computed:#010x}, the file says {crc:#010x}; messages are unverified");
                self.losses.push((pos, reason, Some(0)));
            }
        }
        if let Some((pos, summary_start, crc)) = self.footer.filter(|&(_, start, crc)| crc != 0 && start != 0) {
            // The checksum covers everything from the summary to the footer's own checksum field.
            let end = pos + RECORD_HEADER_BYTES + 16;
            let computed = usize::try_from(summary_start).ok().and_then(|start| bytes.get(start..end)).map(crc32fast::hash);
            if computed != Some(crc) {
                let got = computed.map_or("is out of the file".into(), |sum| format!("has checksum {sum:#010x}"));
                self.losses.push((
                    pos,
                    format!("the summary {got}, the footer says {crc:#010x}; it is not needed for reading"),
                    Some(0),
                ));
                self.counts = None;
                self.summary_is_damaged = true;
            }
        }
    }

    /// Without statistics, definitions and counts are only known from inside the chunks. Damage in there is met again, and
    /// reported, when the messages are read.
    fn look_into_chunks(&mut self, bytes: &Bytes) {
        let mut counts = BTreeMap::<u16, u64>::new();
        let (schemas, channels) = match self.summary_is_damaged {
            true => (std::mem::take(&mut self.schemas), std::mem::take(&mut self.channels)),
            false => Default::default(),
        };
        for chunk in self.chunks.clone() {
            let (records, _) =
                unpack_chunk(&chunk.header.compression, bytes.slice(chunk.stored.clone()), chunk.header.unpacked_bytes);
            let mut seen = BTreeMap::<u16, u64>::new();
            let mut pos = 0;
            while let Ok(record) = record_at(&records, pos) {
                let body = &records[record.body.clone()];
                pos = record.body.end;
                match record.opcode {
                    op::SCHEMA | op::CHANNEL => {
                        let _ = self.definition(record.opcode, body);
                    }
                    op::MESSAGE => {
                        if let Some(message) = MessageHeader::parse(body) {
                            *seen.entry(message.channel_id).or_default() += 1;
                        }
                    }
                    _ => {}
                }
            }
            let known = if chunk.indexed.is_empty() { seen } else { chunk.indexed };
            for (channel_id, n_messages) in known {
                *counts.entry(channel_id).or_default() += n_messages;
            }
        }
        for (id, schema) in schemas {
            self.schemas.entry(id).or_insert(schema);
        }
        for (id, channel) in channels {
            self.channels.entry(id).or_insert(channel);
        }
        self.counts = Some(counts);
    }

    /// Channels of the same name and type are one topic.
    fn topics(&self) -> (Vec<TopicInfo>, HashMap<u16, usize>) {
        let mut topics = Vec::<TopicInfo>::new();
        let mut topic_of_channel = HashMap::new();
        for channel in self.channels.values() {
            let type_name = self.schemas.get(&channel.schema_id).map_or("", |schema| &schema.name);
            let text = |key: &str| channel.metadata.get(key).cloned().unwrap_or_default();
            let n_messages = self.counts.as_ref().and_then(|counts| counts.get(&channel.id)).copied().unwrap_or(0);
            let known = topics.iter_mut().position(|topic| topic.name == channel.topic && topic.type_name == type_name);
            let topic_idx = known.unwrap_or_else(|| {
                topics.push(TopicInfo {
                    name: channel.topic.clone(),
                    type_name: type_name.to_owned(),
                    serialization_format: channel.encoding.clone(),
                    message_count: 0,
                    offered_qos: text("offered_qos_profiles"),
                    type_hash: text("topic_type_hash"),
                });
                topics.len() - 1
            });
            topics[topic_idx].message_count = topics[topic_idx].message_count.saturating_add(n_messages);
            topic_of_channel.insert(channel.id, topic_idx);
        }
        (topics, topic_of_channel)
    }
}
