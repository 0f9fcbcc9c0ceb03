//! What the weights dictate: architecture, grid, classes, input features, thresholds. Travels beside the weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cloud::{Feature, IntensityMode};
use crate::voxel::{Grid, VoxelCaps};

/// The spec of one detector, as `spec.yaml` holds it. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Version of this file format; 1.
    pub format: u32,
    /// Name of the model, for people.
    pub name: String,
    /// Class names in the order of the heat map's channels (K).
    pub classes: Vec<String>,
    /// What the network is fed.
    pub input: InputSpec,
    /// Range and cells.
    pub grid: GridSpec,
    /// Layers.
    pub network: NetworkSpec,
    /// From head maps to boxes.
    pub postprocess: PostprocessSpec,
}

/// The columns of the point cloud.
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

/// Range, cell size and caps of the voxeliser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSpec {
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres.
    pub range: [f32; 6],
    /// Edge lengths of a cell in metres.
    pub voxel_size: [f32; 3],
    /// Points kept per cell; absent for dynamic voxelisation, which keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_points_per_voxel: Option<usize>,
    /// Cells kept; absent for dynamic voxelisation, which keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_voxels: Option<usize>,
}

/// The layers of one of the network families.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NetworkSpec {
    /// PillarVFE, scatter, BaseBEVBackbone, CenterHead.
    Pillar(PillarNetSpec),
}

/// CP-Pillar and its students (sparsekd-spec section 2.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PillarNetSpec {
    /// Output channels of the two PFN layers; the first is doubled by concatenation, so its linear layer has half.
    pub vfe_filters: Vec<i64>,
    /// The 2-D backbone.
    pub backbone_2d: BackboneSpec,
    /// Channels of the head's shared convolution and of each branch.
    pub head_channels: i64,
}

/// BaseBEVBackbone: one entry per block in every list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Convolutions after the first one of each block.
    pub layer_nums: Vec<usize>,
    /// Stride of each block's first convolution.
    pub strides: Vec<i64>,
    /// Channels of each block.
    pub filters: Vec<i64>,
    /// Stride and kernel of each block's transposed convolution.
    pub upsample_strides: Vec<i64>,
    /// Channels of each transposed convolution.
    pub upsample_filters: Vec<i64>,
}

/// From head maps to boxes (sparsekd-spec section 2.7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostprocessSpec {
    /// Peaks kept per class and then overall.
    pub max_peaks: usize,
    /// Boxes with this score or less are dropped.
    pub score_threshold: f32,
    /// Thresholds of single classes, used instead of `score_threshold`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub class_score_thresholds: BTreeMap<String, f32>,
    /// Thresholds by distance in the plane; the last entry whose `from_m` is not beyond the box adds its minimum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distance_score_thresholds: Vec<DistanceThreshold>,
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres; boxes whose centre is outside are dropped (borders inclusive).
    pub center_limit: [f32; 6],
    /// Suppression of overlapping boxes.
    pub nms: NmsSpec,
}

/// A score threshold from some distance on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceThreshold {
    /// Metres from the sensor axis in the plane.
    pub from_m: f32,
    /// Boxes at that distance or farther with this score or less are dropped.
    pub score: f32,
}

/// Which boxes suppress which.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NmsSpec {
    /// Class-agnostic, rotated bird's-eye IoU, as in the paper.
    Rotated {
        /// Boxes that overlap a better one by more are dropped.
        iou: f64,
        /// Best boxes considered.
        max_before: usize,
        /// Boxes kept.
        max_after: usize,
    },
    /// Per class, by distance of centres in the plane.
    Circle {
        /// Metres; boxes of the same class whose centre is nearer to a better one are dropped.
        radius_m: f64,
        /// Best boxes considered.
        max_before: usize,
        /// Boxes kept.
        max_after: usize,
    },
}

/// Why a spec was refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not YAML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {message}")]
    Syntax {
        /// File or name of the spec.
        origin: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A value that breaks a rule.
    #[error("{origin}: {key} = {value}: {rule}")]
    Value {
        /// File or name of the spec.
        origin: String,
        /// Path of the key.
        key: String,
        /// The value found.
        value: String,
        /// The rule it breaks.
        rule: String,
    },
    /// No spec of that name is built in.
    #[error("no built-in spec is called `{name}`; there are: {known}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}
