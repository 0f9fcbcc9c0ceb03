//! The TFRecord container: length, checksum of the length, payload, checksum of the payload, over and over.
//!
//! The file is mapped, so a declared length is only ever compared with what is there. A record whose length is damaged hides
//! where the next one begins; the index then looks for the next 12 bytes that are a length with its checksum.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use super::Fault;

const LENGTH: usize = 8;
const CRC: usize = 4;
const HEADER: usize = LENGTH + CRC;
/// How far behind a damaged length the next record is looked for; frames are some 5 MB.
const SEARCH: usize = 256 << 20;

/// One record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Where its payload lies; the checksum over it follows.
    Record(Range<usize>),
    /// It cannot be found: why.
    Damaged(String),
}

/// Whether a file begins with a length and its checksum, as no other kind of file does by chance.
pub(super) fn begins(path: &Path) -> bool {
    let mut header = [0; HEADER];
    let was_read = File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok();
    was_read && u32_at(&header, LENGTH) == masked_crc(&header[..LENGTH])
}

/// Finds the records of a file by their lengths, without reading payloads.
///
/// # Errors
/// When the bytes hold no record at all.
pub(super) fn index(bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
    let refuse = |reason: String| Fault { place: "file".to_owned(), reason };
    if bytes.is_empty() {
        return Err(refuse("0 bytes, expected TFRecords".to_owned()));
    }
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some(header) = bytes.get(at..at + HEADER) else {
            entries.push(Entry::Damaged(format!(
                "truncated: {} of the {HEADER} bytes of its length and checksum",
                bytes.len() - at
            )));
            break;
        };
        let length = length_of(header);
        let (stored, computed) = (u32_at(header, LENGTH), masked_crc(&header[..LENGTH]));
        let there = bytes.len() - at - HEADER;
        if stored != computed {
            let reason = format!("checksum of the length is {stored:#010x}, its {LENGTH} bytes give {computed:#010x}");
            let next = next_header(bytes, at + 1);
            if next.is_none() && entries.is_empty() {
                return Err(refuse(format!("is no TFRecord file: {reason}")));
            }
            entries.push(Entry::Damaged(reason));
            let Some(next) = next else { break };
            at = next;
            continue;
        }
        match usize::try_from(length).ok().and_then(|length| length.checked_add(CRC)).filter(|&length| length <= there) {
            Some(with_crc) => {
                let start = at + HEADER;
                entries.push(Entry::Record(start..start + with_crc - CRC));
                at = start + with_crc;
            }
            None => {
                let reason = format!("truncated: {there} bytes, its length says {length} and {CRC} of checksum");
                entries.push(Entry::Damaged(reason));
                break;
            }
        }
    }
    Ok(entries)
}

/// Compares the payload with its checksum.
///
/// # Errors
/// When they differ.
pub(super) fn verify(bytes: &[u8], payload: &Range<usize>) -> Result<(), String> {
    let (stored, computed) = (stored_crc(bytes, payload), masked_crc(&bytes[payload.clone()]));
    if stored != computed {
        return Err(format!("checksum of the data is {stored:#010x}, its {} bytes give {computed:#010x}", payload.len()));
    }
    Ok(())
}

/// The checksum written behind a payload of [`index`].
pub(super) fn stored_crc(bytes: &[u8], payload: &Range<usize>) -> u32 {
    u32_at(bytes, payload.end)
}

/// TensorFlow's masked CRC-32C.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The first offset from `from` on where a length that fits into the file stands before its checksum.
fn next_header(bytes: &[u8], from: usize) -> Option<usize> {
    let end = bytes.len().min(from.saturating_add(SEARCH));
    bytes[from..end].windows(HEADER).enumerate().find_map(|(offset, header)| {
        let at = from + offset;
        let there = (bytes.len() - at - HEADER) as u64;
        let fits = length_of(header).checked_add(CRC as u64).is_some_and(|length| length <= there);
        (fits && u32_at(header, LENGTH) == masked_crc(&header[..LENGTH])).then_some(at)
    })
}

fn length_of(header: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|idx| header[idx]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|idx| bytes[at + idx]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u64).to_le_bytes();
        [&length[..], &masked_crc(&length).to_le_bytes(), payload, &masked_crc(payload).to_le_bytes()].concat()
    }

    #[test]
    fn masked_crc_matches_the_value_of_tensorflow() {
        // RFC 3720 gives 0x8a9136aa for 32 zero bytes; rotated right by 15 and offset by hand.
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8));
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn index_of_damaged_files_keeps_what_follows() {
        let (first, second) = (record(b"first"), record(b"second one"));
        let whole = [first.clone(), second.clone()].concat();
        let place_of_second = first.len() + HEADER..first.len() + HEADER + 10;
        assert_eq!(index(&whole).unwrap(), [Entry::Record(HEADER..HEADER + 5), Entry::Record(place_of_second.clone())]);

        for broken_byte in 0..HEADER {
            let mut bytes = whole.clone();
            bytes[broken_byte] ^= 0x10;
            let entries = index(&bytes).unwrap();
            assert!(matches!(&entries[0], Entry::Damaged(reason) if reason.contains("checksum of the length")), "{entries:?}");
            assert_eq!(entries[1..], [Entry::Record(place_of_second.clone())], "byte {broken_byte}");
        }
        for cut in first.len() + 1..whole.len() {
            let entries = index(&whole[..cut]).unwrap();
            assert_eq!(entries.len(), 2);
            assert!(matches!(&entries[1], Entry::Damaged(reason) if reason.contains("truncated")), "{entries:?}");
        }
    }

    #[test]
    fn what_is_no_tfrecord_is_refused() {
        for (bytes, expected) in [(&b""[..], "0 bytes"), (b"PAR1 and more bytes", "is no TFRecord file")] {
            let fault = index(bytes).unwrap_err();
            assert!(fault.reason.contains(expected), "{fault:?}");
        }
    }

    #[test]
    fn payload_with_a_flipped_bit_is_refused() {
        let mut bytes = record(b"payload");
        let place = HEADER..HEADER + 7;
        verify(&bytes, &place).unwrap();
        bytes[HEADER] ^= 1;
        assert!(verify(&bytes, &place).unwrap_err().contains("checksum of the data"));
    }
}
