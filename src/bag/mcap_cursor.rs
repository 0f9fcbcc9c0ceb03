//! The messages of one mcap file in the order of their log times.
//!
//! Chunks are unpacked when the time has come for their first message, so only chunks that overlap in time are held at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;

use super::chunk::unpack_chunk;
use super::mcap_file::{ChunkAt, McapFile};
use super::mcap_record::{MessageHeader, op, record_at};
use super::storage::{Spot, StoredMessage};
use super::{Loss, Place};

/// A position in the file's messages.
pub(super) struct McapCursor<'a> {
    file: &'a McapFile,
    /// By topic of the file.
    wanted: Vec<bool>,
    /// Indices of `file.chunks`, latest start first.
    waiting: Vec<usize>,
    /// Messages of unpacked chunks.
    ready: BinaryHeap<Reverse<Ready>>,
}

/// Ordered by log time, then position in the file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ready {
    log_time_ns: i64,
    chunk_idx: usize,
    /// Of the record in the unpacked chunk.
    offset: usize,
    topic_idx: usize,
    publish_time: u64,
    data: Bytes,
}

impl<'a> McapCursor<'a> {
    pub fn new(file: &'a McapFile, wanted: Vec<bool>) -> Self {
        let mut waiting: Vec<usize> = (0..file.chunks.len()).collect();
        waiting.sort_by_key(|&idx| Reverse((file.chunks[idx].header.start_time, idx)));
        Self { file, wanted, waiting, ready: BinaryHeap::new() }
    }

    /// Log time of the next message; unpacks what is needed to know it.
    pub fn peek_ns(&mut self, losses: &mut VecDeque<Loss>) -> Option<i64> {
        while let Some(&chunk_idx) = self.waiting.last() {
            let chunk = &self.file.chunks[chunk_idx];
            let head = self.ready.peek().map(|Reverse(head)| head.log_time_ns);
            if head.is_some_and(|head| i64::try_from(chunk.header.start_time).is_ok_and(|start| start > head)) {
                break;
            }
            self.waiting.pop();
            self.unpack(chunk_idx, chunk, losses);
        }
        self.ready.peek().map(|Reverse(head)| head.log_time_ns)
    }

    /// The message whose time [`Self::peek_ns`] told.
    pub fn take(&mut self) -> Option<StoredMessage> {
        let Reverse(head) = self.ready.pop()?;
        Some(StoredMessage {
            topic_idx: head.topic_idx,
            log_time_ns: head.log_time_ns,
            publish_time_ns: i64::try_from(head.publish_time).ok(),
            place: Place::Byte(self.file.chunks[head.chunk_idx].offset as u64),
            spot: Spot::Chunk { chunk_idx: head.chunk_idx, offset: head.offset },
            data: Ok(head.data),
        })
    }

    fn wants(&self, channel_id: u16) -> Option<usize> {
        self.file.topic_of_channel.get(&channel_id).copied().filter(|&topic_idx| self.wanted[topic_idx])
    }

    fn unpack(&mut self, chunk_idx: usize, chunk: &ChunkAt, losses: &mut VecDeque<Loss>) {
        let promised: u64 =
            chunk.indexed.iter().filter(|&(&id, _)| self.wants(id).is_some()).fold(0, |sum, (_, n)| sum.saturating_add(*n));
        let is_unwanted = |id: &u16| self.file.topic_of_channel.contains_key(id) && self.wants(*id).is_none();
        if chunk.is_whole() && !chunk.indexed.is_empty() && chunk.indexed.keys().all(is_unwanted) {
            return;
        }
        let stored = self.file.bytes.slice(chunk.stored.clone());
        let (records, mut fault) = unpack_chunk(&chunk.header.compression, stored, chunk.header.unpacked_bytes);
        let unverified = (fault.is_none() && chunk.is_whole() && chunk.header.crc != 0)
            .then(|| crc32fast::hash(&records))
            .filter(|&computed| computed != chunk.header.crc);

        let mut found = 0;
        let mut unnamed = BTreeMap::<u16, u64>::new();
        let mut pos = 0;
        while pos < records.len() {
            let record = match record_at(&records, pos) {
                Ok(record) => record,
                Err(cut) => {
                    fault.get_or_insert_with(|| format!("{cut} at byte {pos} of the chunk"));
                    break;
                }
            };
            let offset = pos;
            pos = record.body.end;
            if record.opcode != op::MESSAGE {
                continue;
            }
            let header = MessageHeader::parse(&records[record.body.clone()]);
            let log_time_ns = header.and_then(|header| i64::try_from(header.log_time).ok());
            let (Some(header), Some(log_time_ns)) = (header, log_time_ns) else {
                fault.get_or_insert_with(|| format!("a message at byte {pos} of the chunk has no valid header"));
                continue;
            };
            if !self.file.topic_of_channel.contains_key(&header.channel_id) {
                *unnamed.entry(header.channel_id).or_default() += 1;
            }
            if let Some(topic_idx) = self.wants(header.channel_id) {
                found += 1;
                self.ready.push(Reverse(Ready {
                    log_time_ns,
                    chunk_idx,
                    offset,
                    topic_idx,
                    publish_time: header.publish_time,
                    data: records.slice(record.body.start + MessageHeader::BYTES..record.body.end),
                }));
            }
        }
        if !chunk.is_whole() {
            // The cut itself was reported when the file was opened.
            fault = None;
        }
        let mut report = |reason: String, messages: Option<u64>| {
            losses.push_back(Loss { file: self.file.path.clone(), place: Place::Byte(chunk.offset as u64), reason, messages });
        };
        if let Some(computed) = unverified {
            let said = chunk.header.crc;
            let missing = promised.saturating_sub(found);
            report(
                format!(
                    "checksum of the chunk is {computed:#010x}, its header says {said:#010x}; {found} messages delivered unverified"
                ),
                Some(missing),
            );
        } else if let Some(reason) = fault {
            report(reason, (!chunk.indexed.is_empty()).then(|| promised.saturating_sub(found)));
        }
        for (channel_id, n_messages) in unnamed {
            report(format!("messages of channel {channel_id}, which no channel record describes"), Some(n_messages));
        }
    }
}
