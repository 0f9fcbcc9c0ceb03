//! The oriented box every other module talks about.

use std::f64::consts::{PI, TAU};

/// A box standing upright: rotated about +z only.
///
/// # Units and frame
/// Metres and radians, in the frame of the cloud. `size` is length (along the heading), width, height; `center` is the
/// middle of the box, not its foot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Box3d {
    /// x, y, z of the middle.
    pub center: [f64; 3],
    /// Length, width, height.
    pub size: [f64; 3],
    /// Heading of the length axis, counter-clockwise from +x.
    pub yaw: f64,
}

impl Box3d {
    /// From the row `[x, y, z, dx, dy, dz, heading]` that the reference code uses everywhere.
    pub fn from_row(row: [f64; 7]) -> Self {
        Self { center: [row[0], row[1], row[2]], size: [row[3], row[4], row[5]], yaw: row[6] }
    }

    /// The row `[x, y, z, dx, dy, dz, heading]`.
    pub fn to_row(self) -> [f64; 7] {
        let ([x, y, z], [dx, dy, dz]) = (self.center, self.size);
        [x, y, z, dx, dy, dz, self.yaw]
    }

    /// Corners of the footprint, counter-clockwise, starting front left: (+l, +w), (-l, +w), (-l, -w), (+l, -w).
    pub fn footprint(&self) -> [[f64; 2]; 4] {
        let half_size = [self.size[0] / 2.0, self.size[1] / 2.0];
        rectangle([self.center[0], self.center[1]], half_size, self.yaw.sin_cos())
    }

    /// Whether a point lies inside or on the surface.
    pub fn contains(&self, point: [f64; 3]) -> bool {
        let (sin, cos) = self.yaw.sin_cos();
        let (dx, dy) = (point[0] - self.center[0], point[1] - self.center[1]);
        let (along, across) = (dx * cos + dy * sin, -dx * sin + dy * cos);
        along.abs() <= self.size[0] / 2.0
            && across.abs() <= self.size[1] / 2.0
            && (point[2] - self.center[2]).abs() <= self.size[2] / 2.0
    }

    /// Whether the middle, seen from above, lies in a range `[xmin, ymin, zmin, xmax, ymax, zmax]`, upper borders excluded.
    pub fn has_middle_in(&self, range: [f32; 6]) -> bool {
        let within = |axis: usize| (f64::from(range[axis])..f64::from(range[axis + 3])).contains(&self.center[axis]);
        within(0) && within(1)
    }

    /// Distance of the middle from the sensor axis, in the plane.
    pub fn range(&self) -> f64 {
        self.center[0].hypot(self.center[1])
    }
}

/// Corners of a rectangle around `center`, turned by the angle of that sine and cosine, in the order of [`Box3d::footprint`].
pub(super) fn rectangle([x, y]: [f64; 2], [half_l, half_w]: [f64; 2], (sin, cos): (f64, f64)) -> [[f64; 2]; 4] {
    [(half_l, half_w), (-half_l, half_w), (-half_l, -half_w), (half_l, -half_w)]
        .map(|(along, across)| [x + along * cos - across * sin, y + along * sin + across * cos])
}

/// The same angle in [-pi, pi).
pub fn wrap_angle(angle: f64) -> f64 {
    (angle + PI).rem_euclid(TAU) - PI
}
