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
    let findings_of = [(180.0, "pi"), (90.0, "pi/2"), (-90.0, "-pi/2")];
    for (degrees, radians) in findings_of.into_iter().filter(|(degrees, _)| 2 * near(*degrees) > turns.len()) {
        let n = near(degrees);
        let measured =
            format!("{} of {} moving objects move at {degrees} degrees to their yaw", percent(n, turns.len()), turns.len());
        // A box across its points would be told of by the points; a reversed one only by its motion.
        let (severity, advice) = if degrees == 180.0 {
            let advice =
                "add pi to the yaw of every label: the front is where the object goes; yaw is 0 along +x, counter-clockwise";
            (Severity::Error, advice.to_owned())
        } else {
            let advice = format!(
                "if `alignment` tells to turn yaw, add {radians} to it; else boxes are right and velocities are in another frame: turn those by {} degrees",
                -degrees
            );
            (Severity::Warning, advice)
        };
        findings.push(Finding::new(severity, "heading", measured, advice));
    }
}
