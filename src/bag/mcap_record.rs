//! The records of an mcap file that reading a bag needs, out of bytes that nobody has checked.
//!
//! The mcap crate's own parser is not used here: it reserves whatever length a string declares (up to 4 GiB), panics on an
//! attachment shorter than its trailer, and stops at the first damaged record, where a recovering reader must go on.
//!
//! # Source
//! The MCAP specification, <https://mcap.dev/spec>.

use std::collections::BTreeMap;
use std::ops::Range;

/// First and last eight bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"\x89MCAP0\r\n";

/// Opcode and length in front of every record.
pub(super) const RECORD_HEADER_BYTES: usize = 9;

pub(super) mod op {
    pub const FOOTER: u8 = 0x02;
    pub const SCHEMA: u8 = 0x03;
    pub const CHANNEL: u8 = 0x04;
    pub const MESSAGE: u8 = 0x05;
    pub const CHUNK: u8 = 0x06;
    pub const MESSAGE_INDEX: u8 = 0x07;
    pub const STATISTICS: u8 = 0x0B;
    pub const METADATA: u8 = 0x0C;
    pub const DATA_END: u8 = 0x0F;
    /// From here on opcodes are private to applications.
    pub const PRIVATE: u8 = 0x80;
}

/// Position of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordAt {
    pub opcode: u8,
    pub body: Range<usize>,
}

/// The record that begins at `pos`, or what is wrong with it.
pub(super) fn record_at(bytes: &[u8], pos: usize) -> Result<RecordAt, String> {
    let left = bytes.len().saturating_sub(pos);
    let mut fields = Fields::new(bytes.get(pos..).unwrap_or_default());
    let (Some(opcode), Some(declared)) = (fields.u8(), fields.u64()) else {
        return Err(format!("a record needs {RECORD_HEADER_BYTES} bytes in front, {left} are left"));
    };
    let start = pos + RECORD_HEADER_BYTES;
    match usize::try_from(declared).ok().and_then(|len| start.checked_add(len)) {
        Some(end) if end <= bytes.len() => Ok(RecordAt { opcode, body: start..end }),
        _ => Err(format!("record with opcode {opcode:#04x} declares {declared} bytes, {} are left", bytes.len() - start)),
    }
}

/// Little-endian fields read one after the other; `None` where the bytes end.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// As many bytes as the 32-bit length in front says.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.counted()?).ok()
    }

    /// A string of at most `max_bytes`, else `None` before its bytes are looked at.
    fn short_string(&mut self, max_bytes: usize) -> Option<&'a str> {
        let bytes = self.counted().filter(|bytes| bytes.len() <= max_bytes)?;
        std::str::from_utf8(bytes).ok()
    }

    pub fn string_map(&mut self) -> Option<BTreeMap<String, String>> {
        let mut entries = Fields::new(self.counted()?);
        let mut map = BTreeMap::new();
        while !entries.rest.is_empty() {
            map.insert(entries.string()?.to_owned(), entries.string()?.to_owned());
        }
        Some(map)
    }
}

/// Name of a message type and its number within the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    pub id: u16,
    pub name: String,
}

impl Schema {
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        Some(Self { id: fields.u16()?, name: fields.string()?.to_owned() })
    }
}

/// A topic as one publisher filled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channel {
    pub id: u16,
    pub schema_id: u16,
    pub topic: String,
    pub encoding: String,
    pub metadata: BTreeMap<String, String>,
}

impl Channel {
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        Some(Self {
            id: fields.u16()?,
            schema_id: fields.u16()?,
            topic: fields.string()?.to_owned(),
            encoding: fields.string()?.to_owned(),
            metadata: fields.string_map()?,
        })
    }
}

/// What precedes the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageHeader {
    pub channel_id: u16,
    pub log_time: u64,
    pub publish_time: u64,
}

impl MessageHeader {
    /// Encoded length.
    pub const BYTES: usize = 22;

    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let channel_id = fields.u16()?;
        let _sequence = fields.u32()?;
        Some(Self { channel_id, log_time: fields.u64()?, publish_time: fields.u64()? })
    }
}

/// What precedes the records of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub start_time: u64,
    pub end_time: u64,
    pub unpacked_bytes: u64,
    pub crc: u32,
    pub compression: String,
    pub stored_bytes: u64,
}

/// Longest name of a compression; the format's own have four bytes at most.
const MAX_COMPRESSION_BYTES: usize = 16;

impl ChunkHeader {
    /// Also gives the encoded length of the header.
    pub fn parse(body: &[u8]) -> Option<(Self, usize)> {
        let mut fields = Fields::new(body);
        let header = Self {
            start_time: fields.u64()?,
            end_time: fields.u64()?,
            unpacked_bytes: fields.u64()?,
            crc: fields.u32()?,
            compression: fields.short_string(MAX_COMPRESSION_BYTES)?.to_owned(),
            stored_bytes: fields.u64()?,
        };
        Some((header, body.len() - fields.rest().len()))
    }
}

/// Channel and number of messages of one message-index record, or `None` if its length contradicts itself.
pub(super) fn message_index_count(body: &[u8]) -> Option<(u16, u64)> {
    const ENTRY_BYTES: usize = 16;
    let mut fields = Fields::new(body);
    let channel_id = fields.u16()?;
    let entries = fields.counted()?;
    (fields.rest().is_empty() && entries.len() % ENTRY_BYTES == 0).then_some((channel_id, (entries.len() / ENTRY_BYTES) as u64))
}

/// Messages of each channel, from the statistics record.
pub(super) fn statistics_counts(body: &[u8]) -> Option<BTreeMap<u16, u64>> {
    const FIXED_BYTES: usize = 8 + 2 + 4 * 4 + 2 * 8;
    let mut entries = Fields::new(Fields::new(body.get(FIXED_BYTES..)?).counted()?);
    let mut counts = BTreeMap::new();
    while !entries.rest.is_empty() {
        counts.insert(entries.u16()?, entries.u64()?);
    }
    Some(counts)
}

/// Where the summary section begins and its checksum, from the footer record.
pub(super) fn footer_summary(body: &[u8]) -> Option<(u64, u32)> {
    let mut fields = Fields::new(body);
    let summary_start = fields.u64()?;
    let _summary_offset_start = fields.u64()?;
    let crc = fields.u32()?;
    fields.rest().is_empty().then_some((summary_start, crc))
}

/// Offset of the next chunk record at or after `from` whose lengths agree with each other: the way on after damage.
pub(super) fn find_chunk(bytes: &[u8], from: usize) -> Option<usize> {
    let mut pos = from;
    while let Some(step) = bytes.get(pos..)?.iter().position(|&byte| byte == op::CHUNK) {
        pos += step;
        if chunk_at(bytes, pos).is_some_and(|(header, _)| matches!(header.compression.as_str(), "" | "zstd" | "lz4")) {
            return Some(pos);
        }
        pos += 1;
    }
    None
}

/// Header of the chunk record at `pos` and where its stored bytes begin, if the record is a chunk that agrees with itself.
/// Its end may lie behind the end of the file.
pub(super) fn chunk_at(bytes: &[u8], pos: usize) -> Option<(ChunkHeader, usize)> {
    let mut fields = Fields::new(bytes.get(pos..)?);
    let opcode = fields.u8()?;
    let declared = fields.u64()?;
    let (header, header_bytes) = ChunkHeader::parse(fields.rest())?;
    let consistent = opcode == op::CHUNK
        && header.start_time <= header.end_time
        && header.stored_bytes.checked_add(header_bytes as u64) == Some(declared)
        && (!header.compression.is_empty() || header.stored_bytes == header.unpacked_bytes);
    consistent.then_some((header, pos + RECORD_HEADER_BYTES + header_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_with_an_overlong_compression_name_is_refused() {
        for (n_bytes, accepted) in [(0, true), (4, true), (16, true), (17, false)] {
            let mut body = vec![0; 28];
            body.extend(u32::to_le_bytes(n_bytes));
            body.extend(vec![b'z'; n_bytes as usize]);
            body.extend([0; 8]);
            assert_eq!(ChunkHeader::parse(&body).is_some(), accepted, "name of {n_bytes} bytes");
        }
    }
}
