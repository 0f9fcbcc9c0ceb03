//! Changes to a frame that keep it true: points and boxes move together. Every step is a plain function that is told its draw;
//! [`AugmentConfig::draw`] makes the draws of a frame (sparsekd-spec section 1.3).

use std::f64::consts::PI;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::gt_sampling::GtSamplingConfig;
use super::{SampleId, chance};
use crate::geometry::{Box3d, wrap_angle};
use crate::train::{SettingError, rule};
use crate::voxel::Grid;

/// Which changes are made to training frames, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Objects of other frames pasted into free places; off unless a database is named.
    pub gt_sampling: Option<GtSamplingConfig>,
    /// Chance of a mirror image across the x axis (y changes sign); 0.5, 0 switches it off.
    pub flip_x_probability: f64,
    /// Chance of a mirror image across the y axis (x changes sign); 0.5, 0 switches it off.
    pub flip_y_probability: f64,
    /// The frame is turned about z by an angle between these; -pi/4 to pi/4, null switches it off.
    pub rotation_rad: Option<[f64; 2]>,
    /// The frame is scaled by a factor between these; 0.95 to 1.05, null switches it off.
    pub scaling: Option<[f64; 2]>,
    /// Points are put into random order, which decides which of them a full pillar keeps; true.
    pub shuffle: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            gt_sampling: None,
            flip_x_probability: 0.5,
            flip_y_probability: 0.5,
            rotation_rad: Some([-PI / 4.0, PI / 4.0]),
            scaling: Some([0.95, 1.05]),
            shuffle: true,
        }
    }
}

impl AugmentConfig {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        for (key, p) in [("flip_x_probability", self.flip_x_probability), ("flip_y_probability", self.flip_y_probability)] {
            rule((0.0..=1.0).contains(&p), key, &p, "0 to 1")?;
        }
        if let Some([low, high]) = self.rotation_rad {
            rule(-PI <= low && low <= high && high <= PI, "rotation_rad", &[low, high], "-pi <= low <= high <= pi")?;
        }
        if let Some([low, high]) = self.scaling {
            rule(0.1 <= low && low <= high && high <= 10.0, "scaling", &[low, high], "0.1 <= low <= high <= 10")?;
        }
        self.gt_sampling.as_ref().map_or(Ok(()), GtSamplingConfig::check)
    }

    /// The draws of one frame in one epoch. Each has luck of its own: switching one step off does not change the others.
    pub fn draw(&self, seed: u64, epoch: u64, id: &SampleId) -> WorldDraw {
        let uniform = |purpose: &str| chance::of_sample(seed, epoch, id, purpose).random::<f64>();
        let between = |purpose: &str, limits: Option<[f64; 2]>, off: f64| {
            limits.map_or(off, |[low, high]| low + (high - low) * uniform(purpose))
        };
        WorldDraw {
            flip_x: uniform("flip_x") < self.flip_x_probability,
            flip_y: uniform("flip_y") < self.flip_y_probability,
            rotation_rad: between("rotation", self.rotation_rad, 0.0),
            scale: between("scaling", self.scaling, 1.0),
        }
    }
}

/// What happens to a whole frame, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorldDraw {
    /// See [`flip_x`].
    pub flip_x: bool,
    /// See [`flip_y`].
    pub flip_y: bool,
    /// See [`rotate`].
    pub rotation_rad: f64,
    /// See [`scale`].
    pub scale: f64,
}

impl WorldDraw {
    /// Moves points and boxes, step by step, and wraps the headings.
    ///
    /// # Shapes
    /// - `points`: rows of `n_columns` that begin with x, y, z
    pub fn apply(&self, points: &mut [f32], n_columns: usize, boxes: &mut [Box3d]) {
        if self.flip_x {
            flip_x(points, n_columns, boxes);
        }
        if self.flip_y {
            flip_y(points, n_columns, boxes);
        }
        rotate(points, n_columns, boxes, self.rotation_rad);
        scale(points, n_columns, boxes, self.scale);
        for b in boxes {
            b.yaw = wrap_angle(b.yaw);
        }
    }

    /// The same for single points, all steps at once: equal to [`WorldDraw::apply`] to the last bit.
    pub fn point_mover(&self) -> PointMover {
        let (sin, cos) = self.rotation_rad.sin_cos();
        let sign = |flip: bool| if flip { -1.0 } else { 1.0 };
        PointMover {
            sign_x: sign(self.flip_y),
            sign_y: sign(self.flip_x),
            sin: sin as f32,
            cos: cos as f32,
            scale: self.scale as f32,
        }
    }
}

/// A [`WorldDraw`] ready for many points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PointMover {
    sign_x: f32,
    sign_y: f32,
    sin: f32,
    cos: f32,
    scale: f32,
}

impl PointMover {
    /// Where a point goes.
    #[inline]
    pub fn moved(&self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        let (x, y) = (self.sign_x * x, self.sign_y * y);
        let [x, y] = turned([x, y], self.sin, self.cos);
        [x * self.scale, y * self.scale, z * self.scale]
    }
}

#[inline]
fn turned([x, y]: [f32; 2], sin: f32, cos: f32) -> [f32; 2] {
    [x * cos - y * sin, x * sin + y * cos]
}

/// The mirror image across the x axis: y and headings change sign.
pub fn flip_x(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d]) {
    for row in points.chunks_exact_mut(n_columns) {
        row[1] = -row[1];
    }
    for b in boxes {
        b.center[1] = -b.center[1];
        b.yaw = -b.yaw;
    }
}

/// The mirror image across the y axis: x changes sign, a heading becomes -(heading + pi).
pub fn flip_y(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d]) {
    for row in points.chunks_exact_mut(n_columns) {
        row[0] = -row[0];
    }
    for b in boxes {
        b.center[0] = -b.center[0];
        b.yaw = -(b.yaw + PI);
    }
}

/// Turns the frame about z, counter-clockwise.
pub fn rotate(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d], angle_rad: f64) {
    let (sin, cos) = angle_rad.sin_cos();
    for row in points.chunks_exact_mut(n_columns) {
        [row[0], row[1]] = turned([row[0], row[1]], sin as f32, cos as f32);
    }
    for b in boxes {
        let [x, y, _] = b.center;
        (b.center[0], b.center[1]) = (x * cos - y * sin, x * sin + y * cos);
        b.yaw += angle_rad;
    }
}

/// Scales positions and sizes.
pub fn scale(points: &mut [f32], n_columns: usize, boxes: &mut [Box3d], factor: f64) {
    for row in points.chunks_exact_mut(n_columns) {
        for value in &mut row[..3] {
            *value *= factor as f32;
        }
    }
    for b in boxes {
        b.center = b.center.map(|v| v * factor);
        b.size = b.size.map(|v| v * factor);
    }
}

/// Whether a point stays: within the range in x and y, borders inclusive. The voxeliser decides about z.
#[inline]
pub fn point_in_range(grid: &Grid, x: f32, y: f32) -> bool {
    grid.range_min[0] <= x && x <= grid.range_max[0] && grid.range_min[1] <= y && y <= grid.range_max[1]
}

/// Whether a box stays: at least one of its eight corners within the range, z included, borders inclusive.
pub fn box_in_range(grid: &Grid, b: &Box3d) -> bool {
    let within = |axis: usize, v: f64| f64::from(grid.range_min[axis]) <= v && v <= f64::from(grid.range_max[axis]);
    let in_height = [-0.5, 0.5].iter().any(|side| within(2, b.center[2] + side * b.size[2]));
    in_height && b.footprint().iter().any(|&[x, y]| within(0, x) && within(1, y))
}
