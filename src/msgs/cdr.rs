//! Messages to and from CDR bytes as ROS 2 sends and stores them: a 4-byte header that names the byte order, then the
//! body, whose alignment counts from the end of the header.
//!
//! Lengths in the bytes are not trusted: a sequence grows only as its elements are found, and no element is smaller than a
//! byte, so memory stays within a small multiple of the input.

use byteorder::{BigEndian, ByteOrder, LittleEndian};
use cdr_encoding::CdrDeserializer;
use serde::{Deserialize, Serialize};

/// Encapsulation identifier of plain little-endian CDR, and two bytes of options.
const HEADER_LE: [u8; 4] = [0, 1, 0, 0];

/// DDS implementations pad payloads to 4 bytes, some to 8; more than this after the last field means another type.
const MAX_PADDING: usize = 7;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdrError {
    /// Not even a header.
    #[error("a CDR message begins with a header of 4 bytes, got {got} bytes")]
    NoHeader {
        /// Length of the input.
        got: usize,
    },
    /// A header of another encoding, for instance parameter lists or XCDR2.
    #[error("CDR encapsulation is {got:#06x}, expected 0x0000 (big-endian) or 0x0001 (little-endian)")]
    Encapsulation {
        /// The identifier found.
        got: u16,
    },
    /// The body ends early, or holds a value its type does not have.
    #[error("{message} after {at} of {len} body bytes: {reason}")]
    Body {
        /// The Rust name of the message.
        message: &'static str,
        /// Bytes of the body read before the fault.
        at: usize,
        /// Length of the body.
        len: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The body goes on after the last field: another type, or another version of this one.
    #[error("{message} takes {expected} body bytes and up to {MAX_PADDING} of padding, got {got}")]
    TrailingBytes {
        /// The Rust name of the message.
        message: &'static str,
        /// Bytes of the body that the fields take.
        expected: usize,
        /// Length of the body.
        got: usize,
    },
}

/// Header and little-endian body, padded with zeros to a multiple of 4 bytes: Cyclone DDS 0.10 drops fragmented samples of
/// any other length when they come from rustdds.
///
/// # Panics
/// When a value of `T` is not expressible in CDR (a sequence that does not know its length); no message here is such.
pub fn to_bytes<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = HEADER_LE.to_vec();
    cdr_encoding::to_writer::<T, LittleEndian, _>(&mut bytes, message)
        .expect("a Vec takes all bytes and messages know their lengths");
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The message in `bytes`, header included, in either byte order. Byte slices in `T` borrow from `bytes`.
///
/// # Errors
/// Every [`CdrError`]; any input is safe.
pub fn from_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CdrError> {
    let Some((&[kind_high, kind_low, ..], body)) = bytes.split_first_chunk::<4>() else {
        return Err(CdrError::NoHeader { got: bytes.len() });
    };
    match u16::from_be_bytes([kind_high, kind_low]) {
        0 => body_from_bytes::<T, BigEndian>(body),
        1 => body_from_bytes::<T, LittleEndian>(body),
        got => Err(CdrError::Encapsulation { got }),
    }
}

fn body_from_bytes<'de, T: Deserialize<'de>, Order: ByteOrder>(body: &'de [u8]) -> Result<T, CdrError> {
    let message = short_name::<T>();
    let mut deserializer = CdrDeserializer::<Order>::new(body);
    let value = T::deserialize(&mut deserializer);
    let at = deserializer.bytes_consumed();
    let value = value.map_err(|fault| CdrError::Body { message, at, len: body.len(), reason: fault.to_string() })?;
    if body.len() - at > MAX_PADDING {
        return Err(CdrError::TrailingBytes { message, expected: at, got: body.len() });
    }
    Ok(value)
}

/// The name of a type without its path and parameters.
fn short_name<T>() -> &'static str {
    let path = std::any::type_name::<T>();
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}
