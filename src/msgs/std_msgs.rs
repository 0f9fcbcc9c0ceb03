//! `std_msgs`: what other packages build on.

use serde::{Deserialize, Serialize};

use super::builtin_interfaces::Time;
use crate::time::Stamp;

/// When and in which frame the rest of the message is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// When it was measured.
    pub stamp: Time,
    /// Coordinate frame.
    pub frame_id: String,
}

impl Header {
    /// From a stamp and the name of a frame.
    pub fn new(stamp: Stamp, frame_id: impl Into<String>) -> Self {
        Self { stamp: stamp.into(), frame_id: frame_id.into() }
    }
}

/// Red, green, blue, opacity, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ColorRGBA {
    pub r: f32,
    pub g: f32,
    pub b: f32,
    pub a: f32,
}
