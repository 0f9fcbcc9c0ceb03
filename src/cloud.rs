//! Point clouds as the pipeline sees them: finite points, known columns, float32.

pub mod columns;
pub mod decode;
mod error;
pub mod layout;
mod source;

pub use error::CloudError;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Stamp;

/// A per-point quantity a network can take as input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Metres, cloud frame.
    X,
    /// Metres, cloud frame.
    Y,
    /// Metres, cloud frame.
    Z,
    /// Return strength after [`IntensityMode`].
    Intensity,
    /// Pulse elongation as Waymo's sensors report it, unscaled.
    Elongation,
    /// Seconds since the cloud's stamp.
    TimeOffset,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 6] = [Self::X, Self::Y, Self::Z, Self::Intensity, Self::Elongation, Self::TimeOffset];

    /// The name used in specs and messages to people.
    pub fn name(self) -> &'static str {
        match self {
            Feature::X => "x",
            Feature::Y => "y",
            Feature::Z => "z",
            Feature::Intensity => "intensity",
            Feature::Elongation => "elongation",
            Feature::TimeOffset => "time_offset",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done to the sensor's intensity before the network sees it; the weights dictate it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IntensityMode {
    /// As the sensor gives it.
    Raw,
    /// `tanh(intensity)`, as the reference does for Waymo.
    Tanh,
    /// Multiplied by the factor, for instance 1/255 for an 8-bit sensor.
    Scale(f32),
    /// `tanh(factor * intensity)`: an 8-bit sensor for weights made from Waymo.
    ScaleTanh(f32),
}

impl IntensityMode {
    /// The network's intensity for the sensor's.
    pub fn apply(self, raw: f32) -> f32 {
        match self {
            IntensityMode::Raw => raw,
            IntensityMode::Tanh => raw.tanh(),
            IntensityMode::Scale(factor) => factor * raw,
            IntensityMode::ScaleTanh(factor) => (factor * raw).tanh(),
        }
    }

    /// The same, but NaN for what is not finite: a mode may map infinity to a finite number.
    pub(crate) fn apply_finite(self, raw: f32) -> f32 {
        if raw.is_finite() { self.apply(raw) } else { f32::NAN }
    }
}

/// The columns of the point cloud that a network is fed, as its spec holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Columns in the order of the first layer's weights; begins with x, y, z.
    pub features: Vec<Feature>,
    /// What is done to the intensity column.
    pub intensity: IntensityMode,
    /// Constants for columns a sensor does not have. A column that is absent from a cloud and from this table is an error.
    #[serde(default)]
    pub fill_absent: BTreeMap<Feature, f32>,
}

/// One cloud, decoded: every value is finite.
///
/// # Units and frame
/// Metres, in the sensor's frame `frame_id`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PointCloud {
    /// Stamp of the message the points came from.
    pub stamp: Stamp,
    /// Coordinate frame of the points.
    pub frame_id: String,
    /// The columns of `points`; always begins with x, y, z.
    pub features: Vec<Feature>,
    /// `[N, D]` row-major with D = `features.len()`.
    pub points: Vec<f32>,
}

impl PointCloud {
    /// N.
    pub fn n_points(&self) -> usize {
        if self.features.is_empty() { 0 } else { self.points.len() / self.features.len() }
    }

    /// The rows of `points`, each of length D.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.points.chunks_exact(self.features.len().max(1))
    }
}
