//! Where in a laser's range image a box can show up.

use std::f32::consts::{PI, TAU};
use std::ops::Range;

use parry3d::math::Vec3;

use super::sensor::LaserSpec;

/// Cone about a box: every ray from the origin that meets the box lies inside.
pub struct Window {
    azimuth: f32,
    /// Left and right of `azimuth`; pi when the box stands over or under the laser.
    half_width: f32,
    low: f32,
    high: f32,
    /// No point of the box is nearer.
    pub min_range: f32,
}

impl Window {
    /// The window of the box with this middle and these half edges, in the laser's frame.
    pub fn of(middle: Vec3, edges: [Vec3; 3]) -> Self {
        let azimuth = middle.y.atan2(middle.x);
        let corners: [Vec3; 8] = std::array::from_fn(|corner| {
            let side = |bit: usize| if corner >> bit & 1 == 1 { 1.0 } else { -1.0 };
            middle + edges[0] * side(0) + edges[1] * side(1) + edges[2] * side(2)
        });
        let turn = |corner: &Vec3| ((corner.y.atan2(corner.x) - azimuth + 3.0 * PI).rem_euclid(TAU) - PI).abs();
        let half_width = corners.iter().map(turn).fold(0.0, f32::max);
        let around = half_width > 0.49 * PI;
        // Distance from the z axis, from below: the box lies beyond each line that separates it from the axis.
        let separation = |direction: Vec3| {
            let flat = Vec3::new(direction.x, direction.y, 0.0).normalize_or_zero();
            let (low, high) = corners.iter().fold((f32::MAX, f32::MIN), |(low, high), corner| {
                let along = flat.dot(*corner);
                (low.min(along), high.max(along))
            });
            low.max(-high).max(0.0)
        };
        let near =
            if around { 0.0 } else { [middle, edges[0], edges[1], edges[2]].map(separation).into_iter().fold(0.0, f32::max) };
        let far = corners.iter().map(|corner| corner.x.hypot(corner.y)).fold(0.0, f32::max);
        let (low_z, high_z) =
            corners.iter().fold((f32::MAX, f32::MIN), |(low, high), corner| (low.min(corner.z), high.max(corner.z)));
        let above = low_z.max(-high_z).max(0.0);
        Self {
            azimuth,
            half_width: if around { PI } else { half_width },
            low: low_z.atan2(if low_z < 0.0 { near } else { far }),
            high: high_z.atan2(if high_z < 0.0 { far } else { near }),
            min_range: near.hypot(above),
        }
    }

    /// First column and number of columns, both generous; `None` outside of the laser's span.
    pub fn columns(&self, laser: &LaserSpec) -> Option<(usize, usize)> {
        let (n, span) = (laser.n_columns as i64, laser.span_rad as f32);
        if self.half_width >= PI {
            return Some((0, laser.n_columns));
        }
        let column_of = |azimuth: f32| (0.5 - azimuth / span) * n as f32;
        let first = (column_of(self.azimuth + self.half_width) - 1.0).floor() as i64;
        let last = (column_of(self.azimuth - self.half_width) + 1.0).ceil() as i64;
        if span < 0.999 * TAU {
            // A sector does not wrap, but the azimuth does: a window behind the laser may reach in over either edge.
            let turn = (TAU / span * n as f32) as i64;
            let (first, last) = if first > n { (first - turn, last - turn) } else { (first, last) };
            let (first, last) = if last < 0 { (first + turn, last + turn) } else { (first, last) };
            let (first, last) = (first.max(0), last.min(n - 1));
            return (first <= last).then_some((first as usize, (last - first + 1) as usize));
        }
        Some((first.rem_euclid(n) as usize, (last - first + 1).min(n) as usize))
    }

    /// Beams whose elevation lies in the window.
    pub fn rows(&self, elevations_rad: &[f64]) -> Range<usize> {
        let (low, high) = (f64::from(self.low) - 1e-4, f64::from(self.high) + 1e-4);
        elevations_rad.partition_point(|&elevation| elevation > high)
            ..elevations_rad.partition_point(|&elevation| elevation >= low)
    }
}
