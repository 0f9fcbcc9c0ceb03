//! Tests of `postprocess` and of the overlaps it rests on.

mod golden;
mod nms;
mod oracle;
mod overlap;
mod peaks;

use pivotal::geometry::Box3d;

/// A box on the ground plane: x, y, length, width, heading; 2 m high.
fn flat(x: f64, y: f64, length: f64, width: f64, yaw: f64) -> Box3d {
    Box3d::from_row([x, y, 0.0, length, width, 2.0, yaw])
}
