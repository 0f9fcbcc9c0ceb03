//! Headings against the way things move: points cannot tell front from back, velocities can.

use super::{Finding, Frames, Severity, counted, percent};
use crate::geometry::wrap_angle;

/// Slower objects may be measured as moving any way.
const MOVING_MPS: f64 = 1.5;
/// Fewer moving objects prove nothing.
const MIN_MOVING: usize = 5;
/// Objects that move alike do so within this many degrees; those that move along their yaw, within it of 0.
const ALIKE_DEGREES: f64 = 30.0;
/// Directions tried, in degrees.
const STEP_DEGREES: usize = 10;
/// From here on objects go backwards.
const BACKWARDS_DEGREES: f64 = 150.0;
/// Turns this near to 90 degrees may be a fault of the yaw as well as of the velocity.
const ACROSS_DEGREES: f64 = 15.0;

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
    let Some((degrees, n)) = common(&turns).filter(|(degrees, n)| degrees.abs() > ALIKE_DEGREES && 2 * n > turns.len()) else {
        return;
    };
    let measured = format!(
        "{} of {} at about {degrees:.0} degrees to their yaw",
        percent(n, turns.len()),
        counted(turns.len(), "moving object")
    );
    // A box across its points would be told of by the points; a reversed one only by its motion.
    let (severity, advice) = if degrees.abs() > BACKWARDS_DEGREES {
        let advice = "add pi to the yaw of every label: the front is where the object goes; yaw is 0 along +x, counter-clockwise";
        (Severity::Error, advice.to_owned())
    } else {
        let velocities = format!(
            "the velocities are in another frame than the boxes (the world's?): turn them by {:.0} degrees, or leave them out",
            -degrees
        );
        let advice = match degrees.abs() - 90.0 {
            beyond if beyond.abs() < ACROSS_DEGREES => {
                let quarter = if degrees > 0.0 { "pi/2" } else { "-pi/2" };
                format!("if `alignment` tells to turn yaw, add {quarter} to it; else {velocities}")
            }
            _ => velocities,
        };
        (Severity::Warning, advice)
    };
    findings.push(Finding::new(severity, "heading", measured, advice));
}

/// The direction that most turns are near to, as the mean of those, and their number.
fn common(turns: &[f64]) -> Option<(f64, usize)> {
    let difference = |turn: f64, from: f64| wrap_angle((turn - from).to_radians()).to_degrees();
    let near = |from: f64| turns.iter().map(move |turn| difference(*turn, from)).filter(|turn| turn.abs() < ALIKE_DEGREES);
    let directions = (0..360).step_by(STEP_DEGREES).map(f64::from);
    let from = directions.max_by_key(|from| near(*from).count())?;
    let n = near(from).count();
    Some((difference(from + near(from).sum::<f64>() / n.max(1) as f64, 0.0), n))
}
