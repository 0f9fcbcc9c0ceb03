//! Unpacking: mcap chunks, zstd messages, zstd files. What was unpacked before a fault is kept.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;

use super::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, MAX_UNPACKED_FILE_BYTES};

/// First four bytes of a zstd frame.
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// The records of a chunk, and why they are fewer bytes than declared if they are.
pub(super) fn unpack_chunk(compression: &str, stored: Bytes, declared: u64) -> (Bytes, Option<String>) {
    if compression.is_empty() {
        return (stored, None);
    }
    if declared > MAX_CHUNK_BYTES {
        return (Bytes::new(), Some(format!("chunk declares {declared} bytes unpacked, the limit is {MAX_CHUNK_BYTES}")));
    }
    let unpacked = match compression {
        "zstd" => {
            zstd::stream::read::Decoder::with_buffer(&stored[..]).map(|decoder| read_up_to(decoder, declared, stored.len()))
        }
        "lz4" => lz4::Decoder::new(&stored[..]).map(|decoder| read_up_to(decoder, declared, stored.len())),
        other => return (Bytes::new(), Some(format!("chunk compression {other:?} is unknown, expected zstd, lz4 or none"))),
    };
    match unpacked {
        Ok((bytes, fault)) => {
            let short = (bytes.len() as u64) < declared;
            let reason = fault.map(|fault| format!("{compression} chunk: {fault}; {} of {declared} bytes unpacked", bytes.len()));
            let reason =
                reason.or_else(|| short.then(|| format!("{compression} chunk: {} of {declared} bytes unpacked", bytes.len())));
            (bytes.into(), reason)
        }
        Err(fault) => (Bytes::new(), Some(format!("{compression} chunk: {fault}"))),
    }
}

/// One message of a bag with compression mode `message`.
pub(super) fn unpack_message(stored: &[u8]) -> Result<Bytes, String> {
    let declared = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    if let Some(declared) = declared.filter(|&declared| declared > MAX_MESSAGE_BYTES) {
        return Err(format!("zstd message declares {declared} bytes, the limit is {MAX_MESSAGE_BYTES}"));
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(|fault| format!("zstd message: {fault}"))?;
    match read_up_to(decoder, declared.unwrap_or(MAX_MESSAGE_BYTES), stored.len()) {
        (bytes, None) => Ok(bytes.into()),
        (bytes, Some(fault)) => Err(format!("zstd message: {fault}; {} bytes unpacked", bytes.len())),
    }
}

/// Up to `limit` bytes; room is made from what is stored, not from what is declared.
fn read_up_to(decoder: impl Read, limit: u64, stored_bytes: usize) -> (Vec<u8>, Option<io::Error>) {
    const USUAL_RATIO: usize = 8;
    let limit_len = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(limit_len.min(stored_bytes.saturating_mul(USUAL_RATIO)) + 1);
    // One byte more than allowed: it shows excess, and makes the decoder check the end of its frame.
    let fault = decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes).err();
    if bytes.len() > limit_len {
        bytes.truncate(limit_len);
        return (bytes, Some(io::Error::other(format!("unpacks to more than {limit} bytes"))));
    }
    (bytes, fault)
}

/// Unpacks a zstd file into `target`; gives the fault that ended it early, what came before it stays in `target`.
///
/// # Errors
/// When a file cannot be opened or written.
pub(super) fn unpack_file(packed: &Path, target: &mut File) -> io::Result<Option<String>> {
    let mut decoder = zstd::stream::read::Decoder::new(File::open(packed)?)?;
    let mut block = vec![0; 1 << 20];
    let mut written = 0_u64;
    loop {
        match decoder.read(&mut block) {
            Ok(0) => return Ok(None),
            Ok(n) if written + n as u64 > MAX_UNPACKED_FILE_BYTES => {
                return Ok(Some(format!("unpacks to more than {MAX_UNPACKED_FILE_BYTES} bytes; cut there")));
            }
            Ok(n) => {
                target.write_all(&block[..n])?;
                written += n as u64;
            }
            Err(fault) => return Ok(Some(format!("zstd file: {fault}; {written} bytes unpacked"))),
        }
    }
}
