//! What the weights dictate: architecture, grid, classes, input features, thresholds. Travels beside the weights.

mod anchor;
mod network;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cloud::{Feature, InputSpec, IntensityMode};
use crate::voxel::{Grid, VoxelCaps};
pub use anchor::{AnchorHeadSpec, AnchorSpec};
pub use network::{Backbone3dSpec, BackboneSpec, FrontSpec, HeadSpec, NetworkSpec, PillarNetSpec, VoxelNetSpec};

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

impl NmsSpec {
    /// The same with another overlap from which on boxes suppress each other; `None` where they do so by distance.
    pub fn with_iou(self, iou: f64) -> Option<Self> {
        match self {
            Self::Rotated { max_before, max_after, .. } => Some(Self::Rotated { iou, max_before, max_after }),
            Self::Circle { .. } => None,
        }
    }
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
    /// Values that break rules, all of them.
    #[error("{origin}: {}", .problems.join("; "))]
    Values {
        /// File or name of the spec.
        origin: String,
        /// One `key = value: rule` each.
        problems: Vec<String>,
    },
    /// No spec of that name is built in.
    #[error("no built-in spec is called `{name}`; there are: {}", ModelSpec::builtin_names().join(", "))]
    UnknownName {
        /// What was asked for.
        name: String,
    },
}

/// Highest cap of the voxeliser: its counts are i32.
const MAX_CAP: usize = i32::MAX as usize;
/// Most cells along an axis.
const MAX_CELLS: usize = 8192;

/// The specs of `config/models`, part of the binary so that it works from any folder.
const BUILTIN: [(&str, &str); 11] = [
    ("cp-pillar", include_str!("../../config/models/cp-pillar.yaml")),
    ("cp-pillar-v0.4", include_str!("../../config/models/cp-pillar-v0.4.yaml")),
    ("cp-pillar-v0.48", include_str!("../../config/models/cp-pillar-v0.48.yaml")),
    ("cp-pillar-v0.64", include_str!("../../config/models/cp-pillar-v0.64.yaml")),
    ("cp-pillar-v0.64-s", include_str!("../../config/models/cp-pillar-v0.64-s.yaml")),
    ("cp-pillar-v0.64-xs", include_str!("../../config/models/cp-pillar-v0.64-xs.yaml")),
    ("cp-pillar-v0.64-xxs", include_str!("../../config/models/cp-pillar-v0.64-xxs.yaml")),
    ("cp-voxel", include_str!("../../config/models/cp-voxel.yaml")),
    ("cp-voxel-s", include_str!("../../config/models/cp-voxel-s.yaml")),
    ("cp-voxel-xs", include_str!("../../config/models/cp-voxel-xs.yaml")),
    ("cp-voxel-xxs", include_str!("../../config/models/cp-voxel-xxs.yaml")),
];

impl ModelSpec {
    /// Names of the built-in specs.
    pub fn builtin_names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _)| *name).collect()
    }

    /// The built-in spec of that name.
    ///
    /// # Errors
    /// [`SpecError::UnknownName`] with the names there are.
    pub fn builtin(name: &str) -> Result<Self, SpecError> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::from_yaml(text, name),
            None => Err(SpecError::UnknownName { name: name.to_owned() }),
        }
    }

    /// Parses and checks a `spec.yaml`; `origin` names it in errors.
    ///
    /// # Errors
    /// [`SpecError::Syntax`] for unknown keys and wrong types, [`SpecError::Values`] with every rule that is broken.
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, SpecError> {
        let spec = Self::from_yaml_unchecked(text, origin)?;
        spec.check(origin)?;
        Ok(spec)
    }

    /// Parses a `spec.yaml` that may break its own rules, for those who tell how to mend it.
    ///
    /// # Errors
    /// [`SpecError::Syntax`].
    pub fn from_yaml_unchecked(text: &str, origin: &str) -> Result<Self, SpecError> {
        serde_saphyr::from_str(text).map_err(|error| SpecError::Syntax { origin: origin.to_owned(), message: error.to_string() })
    }

    /// The text of a `spec.yaml` that [`Self::from_yaml`] reads back to an equal spec.
    ///
    /// # Errors
    /// [`SpecError::Syntax`] when a value cannot be written.
    pub fn to_yaml(&self) -> Result<String, SpecError> {
        serde_saphyr::to_string(self).map_err(|error| SpecError::Syntax { origin: self.name.clone(), message: error.to_string() })
    }

    /// The grid in the arithmetic of the voxeliser.
    pub fn grid(&self) -> Grid {
        Grid::new(self.grid.range, self.grid.voxel_size)
    }

    /// The caps of the voxeliser.
    pub fn caps(&self) -> VoxelCaps {
        VoxelCaps { max_points_per_voxel: self.grid.max_points_per_voxel, max_voxels: self.grid.max_voxels }
    }

    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// [`SpecError::Values`] with one entry for each broken rule.
    pub fn check(&self, origin: &str) -> Result<(), SpecError> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, key: &str, value: &dyn std::fmt::Debug, rule: &str| {
            if !holds {
                problems.push(format!("{key} = {value:?}: {rule}"));
            }
        };
        rule(self.format == 1, "format", &self.format, "this build reads format 1");
        rule(!self.classes.is_empty(), "classes", &self.classes, "needs at least one class");
        let distinct: std::collections::BTreeSet<_> = self.classes.iter().collect();
        rule(distinct.len() == self.classes.len(), "classes", &self.classes, "names must differ");
        self.check_input(&mut rule);
        self.check_grid(&mut rule);
        self.network.check(&self.grid(), &mut rule);
        self.postprocess.check(&self.classes, &mut rule);
        if problems.is_empty() { Ok(()) } else { Err(SpecError::Values { origin: origin.to_owned(), problems }) }
    }

    fn check_input(&self, rule: Rule<'_>) {
        let features = &self.input.features;
        rule(features.starts_with(&[Feature::X, Feature::Y, Feature::Z]), "input.features", features, "must begin with x, y, z");
        let distinct: std::collections::BTreeSet<_> = features.iter().collect();
        rule(distinct.len() == features.len(), "input.features", features, "columns must differ");
        for (feature, value) in &self.input.fill_absent {
            let fillable = features[3.min(features.len())..].contains(feature);
            rule(fillable, "input.fill_absent", feature, "must be one of input.features after x, y, z");
            rule(value.is_finite(), "input.fill_absent", value, "must be finite");
        }
        if let IntensityMode::Scale(factor) | IntensityMode::ScaleTanh(factor) = self.input.intensity {
            rule(factor.is_finite() && factor > 0.0, "input.intensity", &factor, "the factor must be positive and finite");
        }
    }

    fn check_grid(&self, rule: Rule<'_>) {
        let GridSpec { range, voxel_size, max_points_per_voxel, max_voxels } = &self.grid;
        for (axis, name) in ["x", "y", "z"].iter().enumerate() {
            let extent = f64::from(range[axis + 3]) - f64::from(range[axis]);
            let cells = extent / f64::from(voxel_size[axis]);
            let valid = extent.is_finite() && extent > 0.0 && voxel_size[axis] > 0.0;
            rule(valid, "grid.range", range, &format!("{name} needs min < max and a positive voxel_size, all finite"));
            let whole = (cells - cells.round()).abs() < 1e-3 && (1.0..=MAX_CELLS as f64).contains(&cells.round());
            rule(
                !valid || whole,
                "grid.voxel_size",
                voxel_size,
                &format!("must divide the range along {name} into 1 to {MAX_CELLS} whole cells, gives {cells:.4}"),
            );
        }
        for (key, cap) in [("grid.max_points_per_voxel", max_points_per_voxel), ("grid.max_voxels", max_voxels)] {
            let countable = cap.is_none_or(|cap| (1..=MAX_CAP).contains(&cap));
            rule(countable, key, cap, &format!("1 to {MAX_CAP}, or absent to keep all"));
        }
    }
}

/// Takes whether a rule holds, the key, its value, and the rule in words.
type Rule<'a> = &'a mut dyn FnMut(bool, &str, &dyn std::fmt::Debug, &str);

impl PostprocessSpec {
    fn check(&self, classes: &[String], rule: Rule<'_>) {
        rule((1..=4096).contains(&self.max_peaks), "postprocess.max_peaks", &self.max_peaks, "1 to 4096");
        let score = |s: f32| (0.0..1.0).contains(&s);
        rule(score(self.score_threshold), "postprocess.score_threshold", &self.score_threshold, "0 <= score < 1");
        for (class, threshold) in &self.class_score_thresholds {
            let key = "postprocess.class_score_thresholds";
            rule(classes.contains(class), key, class, "no such class");
            rule(score(*threshold), key, threshold, "0 <= score < 1");
        }
        let key = "postprocess.distance_score_thresholds";
        for entry in &self.distance_score_thresholds {
            rule(score(entry.score) && entry.from_m >= 0.0, key, entry, "0 <= score < 1 and from_m >= 0");
        }
        let sorted = self.distance_score_thresholds.windows(2).all(|pair| pair[0].from_m < pair[1].from_m);
        rule(sorted, key, &self.distance_score_thresholds, "from_m must increase");
        for axis in 0..3 {
            let (low, high) = (self.center_limit[axis], self.center_limit[axis + 3]);
            rule(low < high, "postprocess.center_limit", &self.center_limit, "min < max on each axis");
        }
        let (NmsSpec::Rotated { max_before, max_after, .. } | NmsSpec::Circle { max_before, max_after, .. }) = self.nms;
        rule((1..=4096).contains(&max_before), "postprocess.nms.max_before", &max_before, "1 to 4096");
        rule((1..=4096).contains(&max_after), "postprocess.nms.max_after", &max_after, "1 to 4096");
        match self.nms {
            NmsSpec::Rotated { iou, .. } => {
                rule((0.0..=2.0).contains(&iou), "postprocess.nms.iou", &iou, "0 to 2 (above 1: no suppression)")
            }
            NmsSpec::Circle { radius_m, .. } => {
                rule(radius_m.is_finite() && radius_m >= 0.0, "postprocess.nms.radius_m", &radius_m, "0 or more");
            }
        }
    }
}
