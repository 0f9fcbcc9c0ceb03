//! TensorBoard's event files: scalars only.
//!
//! The format is TFRecord (length, masked CRC-32C of it, bytes, masked CRC-32C of them) around protobuf messages of a few fields, so the
//! maintained crates `prost` and `crc32c` do the work. The crates made for it were tried: `tboard` 0.1.1 needs `protoc` on the building
//! machine, `tfrecord` 0.15 brings 50 crates with an HTTPS client for its build script, `tensorboard-rs` is marked inactive.
//!
//! # Source
//! tensorflow/tsl `event.proto`, `summary.proto`; TFRecord in `tensorflow/core/lib/io/record_writer.h`.

use std::io::{self, Write};

use prost::Message;

/// One event: the file's version, or scalars of a step.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Of the run.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// `brain.Event:2`, in the first event of a file.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// In the others.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

/// Scalars of one step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Scalar>,
}

/// A number with its name.
#[derive(Clone, PartialEq, Message)]
pub struct Scalar {
    /// Parts before a `/` make groups.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The number.
    #[prost(float, tag = "2")]
    pub simple_value: f32,
}

/// The event every file begins with.
pub fn version_event(wall_time: f64) -> Event {
    Event { wall_time, step: 0, file_version: Some("brain.Event:2".to_owned()), summary: None }
}

/// Scalars of a step.
pub fn scalar_event(wall_time: f64, step: u64, scalars: impl IntoIterator<Item = (String, f64)>) -> Event {
    let value = scalars.into_iter().map(|(tag, value)| Scalar { tag, simple_value: value as f32 }).collect();
    Event { wall_time, step: step as i64, file_version: None, summary: Some(Summary { value }) }
}

/// Appends one event as a record.
///
/// # Errors
/// The writer's.
pub fn write_record(out: &mut impl Write, event: &Event) -> io::Result<()> {
    let bytes = event.encode_to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(&bytes);
    record.extend(masked_crc(&bytes).to_le_bytes());
    // In one piece, so that a reader that watches the file seldom meets half a record.
    out.write_all(&record)
}

/// CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
