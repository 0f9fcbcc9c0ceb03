//! Headings against the way things move: points cannot tell front from back, velocities can.

use super::{Finding, Frames, Severity, percent};
use crate::geometry::wrap_angle;

/// Slower objects may be measured as moving any way.
const MOVING_MPS: f64 = 1.5;
/// Fewer moving objects prove nothing.
const MIN_MOVING: usize = 5;

/// Every check of this file.
pub fn check(frames: &Frames, findings: &mut Vec<Finding>) {
    let labels = frames.samples.iter().flat_map(|sample| sample.labels.iter().flatten());
    let turns: Vec<f64> = labels
        .filter_map(|label| {
            let [vx, vy] = label.velocity_mps?;
            let known = vx.hypot(vy) > MOVING_MPS && label.box3d.yaw.is_finite();
            known.then(|| wrap_angle(vy.atan2(vx) - label.box3d.yaw).to_degrees())
        })
        .collect();
    if turns.len() < MIN_MOVING {
        return;
    }
    let near =
        |degrees: f64| turns.iter().filter(|turn| wrap_angle((**turn - degrees).to_radians()).to_degrees().abs() < 30.0).count();
    for (degrees, radians) in [(180.0, "pi"), (90.0, "pi/2"), (-90.0, "-pi/2")] {
        let n = near(degrees);
        if 2 * n > turns.len() {
            let measured =
                format!("{} of {} moving objects move at {degrees} degrees to their yaw", percent(n, turns.len()), turns.len());
            let advice = format!(
                "add {radians} to the yaw of every label: the front is where the object goes, yaw 0 along +x, counter-clockwise"
            );
            findings.push(Finding::new(Severity::Error, "heading", measured, advice));
        }
    }
}
