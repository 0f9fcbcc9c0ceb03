//! Point clouds as the pipeline sees them: finite points, known columns, float32.

pub mod layout;

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
