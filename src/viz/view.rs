//! From metres in the cloud's frame to pixels of the map.

use super::{MAX_EDGE_PX, VizError};

/// A rectangle of the plane, in metres of the cloud's frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Lower and upper end forward.
    pub x_m: [f64; 2],
    /// Lower and upper end to the left.
    pub y_m: [f64; 2],
}

impl View {
    /// A square around the sensor.
    pub fn around(range_m: f64) -> Self {
        Self { x_m: [-range_m, range_m], y_m: [-range_m, range_m] }
    }

    /// The plane of a grid range `[xmin, ymin, zmin, xmax, ymax, zmax]`.
    pub fn of_grid(range: [f32; 6]) -> Self {
        let [x_min, y_min, _, x_max, y_max, _] = range.map(f64::from);
        Self { x_m: [x_min, x_max], y_m: [y_min, y_max] }
    }

    /// Length of the longer edge in metres.
    pub fn longest_edge_m(&self) -> f64 {
        (self.x_m[1] - self.x_m[0]).max(self.y_m[1] - self.y_m[0])
    }
}

/// A view at a scale: forward is up, so rows go down with x and columns right with -y.
#[derive(Debug, Clone, Copy)]
pub(super) struct Projection {
    pub(super) view: View,
    pub(super) px_per_m: f64,
    pub(super) width_px: u32,
    pub(super) height_px: u32,
}

impl Projection {
    pub(super) fn new(view: View, px_per_m: f64) -> Result<Self, VizError> {
        let width_px = ((view.y_m[1] - view.y_m[0]) * px_per_m).round();
        let height_px = ((view.x_m[1] - view.x_m[0]) * px_per_m).round();
        let allowed = 1.0..=f64::from(MAX_EDGE_PX);
        let ends_finite = view.x_m.iter().chain(&view.y_m).all(|end| end.is_finite());
        if !(ends_finite && px_per_m > 0.0 && allowed.contains(&width_px) && allowed.contains(&height_px)) {
            return Err(VizError::Size { width_px, height_px });
        }
        Ok(Self { view, px_per_m, width_px: width_px as u32, height_px: height_px as u32 })
    }

    /// Column and row of a point, with fractions; integer values are pixel borders.
    pub(super) fn pixel(&self, x_m: f64, y_m: f64) -> (f32, f32) {
        let column = (self.view.y_m[1] - y_m) * self.px_per_m;
        let row = (self.view.x_m[1] - x_m) * self.px_per_m;
        (column as f32, row as f32)
    }

    /// Whether any part of the axis-aligned hull of these points, given in metres, is shown.
    pub(super) fn shows(&self, corners: &[[f64; 2]]) -> bool {
        let within = |axis: usize, [low, high]: [f64; 2]| {
            let min = corners.iter().map(|corner| corner[axis]).fold(f64::INFINITY, f64::min);
            let max = corners.iter().map(|corner| corner[axis]).fold(f64::NEG_INFINITY, f64::max);
            min <= high && max >= low
        };
        within(0, self.view.x_m) && within(1, self.view.y_m)
    }
}
