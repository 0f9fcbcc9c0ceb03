//! Labels in a JSON-lines file beside a bag: one line per frame.
//!
//! | key | content |
//! | --- | --- |
//! | `stamp_ns` | stamp of the cloud's header in nanoseconds; either this |
//! | `frame` | or the index of the cloud in the drive, from 0 |
//! | `frame_id` | frame of the boxes; left out: that of the cloud |
//! | `labels` | list of objects, empty where somebody looked and there is nothing |
//!
//! An object has `class` and `box` (`[x, y, z, length, width, height, yaw]`: middle of the box in metres, yaw in radians
//! counter-clockwise from +x), and where known `track_id` (text), `n_points`, `difficulty` (1 or 2), `velocity_mps`
//! (`[vx, vy]` over ground along the axes of the boxes' frame). Other keys are refused, so that a misspelt one is seen.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::labels::{LabelFault, check_box};
use super::{DataError, Label};
use crate::geometry::{Box3d, wrap_angle};

/// Longest line; a frame of a thousand objects has a fifth of a megabyte.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Which cloud a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKey {
    /// Of its header.
    StampNs(i64),
    /// In the drive.
    Index(u64),
}

/// The labels of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct SidecarFrame {
    /// From 1.
    pub line: usize,
    /// Which cloud.
    pub key: FrameKey,
    /// Frame of the boxes; empty: that of the cloud.
    pub frame_id: String,
    /// The usable ones.
    pub labels: Vec<Label>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    frame_id: String,
    labels: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    class: String,
    #[serde(rename = "box")]
    row: [Option<f64>; 7],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    track_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_points: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    difficulty: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    velocity_mps: Option<[f64; 2]>,
}

/// Reads a file. What is wrong with a line or an object is told by the second value; the rest is read.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<(Vec<SidecarFrame>, Vec<String>), DataError> {
    let io_error = |source| DataError::Io { path: path.display().to_string(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io_error)?);
    let (mut frames, mut faults) = (Vec::new(), Vec::new());
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let n_bytes = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text).map_err(io_error)?;
        if n_bytes == 0 {
            break;
        }
        if n_bytes as u64 == MAX_LINE_BYTES && !text.ends_with(b"\n") {
            faults.push(format!("line {line}: more than {MAX_LINE_BYTES} bytes; the rest of the file is not read"));
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        match parse(&text, line) {
            Ok((frame, line_faults)) => {
                frames.push(frame);
                faults.extend(line_faults.iter().map(|fault| format!("line {line}, {fault}")));
            }
            Err(reason) => faults.push(format!("line {line}: {reason}")),
        }
    }
    Ok((frames, faults))
}

fn parse(text: &[u8], line: usize) -> Result<(SidecarFrame, Vec<LabelFault>), String> {
    let parsed: Line = serde_json::from_slice(text).map_err(|fault| format!("{fault}; NaN is written as null"))?;
    let key = match (parsed.stamp_ns, parsed.frame) {
        (Some(stamp_ns), None) => FrameKey::StampNs(stamp_ns),
        (None, Some(index)) => FrameKey::Index(index),
        (None, None) => return Err("neither `stamp_ns` nor `frame`, expected one of them".to_owned()),
        (Some(_), Some(_)) => return Err("both `stamp_ns` and `frame`, expected one of them".to_owned()),
    };
    let (mut labels, mut faults) = (Vec::new(), Vec::new());
    for (index, object) in parsed.labels.into_iter().enumerate() {
        match object.into_label() {
            Ok(label) => labels.push(label),
            Err(reason) => faults.push(LabelFault { index, reason }),
        }
    }
    Ok((SidecarFrame { line, key, frame_id: parsed.frame_id, labels }, faults))
}

impl Object {
    fn into_label(self) -> Result<Label, String> {
        let mut box3d = Box3d::from_row(self.row.map(|value| value.unwrap_or(f64::NAN)));
        check_box(&box3d)?;
        box3d.yaw = wrap_angle(box3d.yaw);
        if self.class.is_empty() {
            return Err("`class` is empty".to_owned());
        }
        if let Some(level) = self.difficulty.filter(|level| !(1..=2).contains(level)) {
            return Err(format!("`difficulty` is {level}, expected 1 or 2"));
        }
        let Self { class, track_id, n_points, difficulty, velocity_mps, .. } = self;
        Ok(Label { box3d, class, track_id, n_points, difficulty, velocity_mps })
    }
}

/// One line of such a file, without the line break.
pub fn line_of(stamp_ns: i64, frame_id: &str, labels: &[Label]) -> String {
    let object = |label: &Label| Object {
        class: label.class.clone(),
        row: label.box3d.to_row().map(Some),
        track_id: label.track_id.clone(),
        n_points: label.n_points,
        difficulty: label.difficulty,
        velocity_mps: label.velocity_mps,
    };
    let labels = labels.iter().map(object).collect();
    let line = Line { stamp_ns: Some(stamp_ns), frame: None, frame_id: frame_id.to_owned(), labels };
    serde_json::json!(line).to_string()
}
