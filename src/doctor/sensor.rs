//! What the sensor's numbers mean: metres, intensity's scale, height of the origin; and all of it against what weights saw.

use super::{Finding, Frames, Severity, Subject};
use crate::cloud::{Feature, IntensityMode};
use crate::data::statistics::Percentiles;

/// Clouds whose 99th percentile of |x| and |y| lies outside of this many metres are hardly in metres.
const PLAUSIBLE_REACH_M: [f64; 2] = [4.0, 1000.0];
/// A network's input should not be much larger.
const LARGE_INPUT: f64 = 2.0;
/// tanh of more is 1 as far as a network can tell.
const SATURATED: f64 = 0.97;
/// A network's input that stays below is as good as none.
const TINY_INPUT: f64 = 0.02;
/// Ground nearer to the lower end of the range is lost on slopes.
const GROUND_MARGIN_M: f64 = 0.3;
/// The range should reach this far above ground: the height of people and cars.
const OBJECT_HEIGHT_M: f64 = 2.0;
/// Ground that lies this much higher or lower than in the data of the weights moves every object out of what they know.
const GROUND_SHIFT_M: f64 = 0.4;
/// Factor between medians from which data count as of another kind.
const OTHER_INTENSITY: f64 = 4.0;
const OTHER_POINTS: f64 = 3.0;
const OTHER_SIZE: f64 = 1.4;

/// Every check of this file.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    units(frames, findings);
    intensity(subject, frames, findings);
    ground(subject, frames, findings);
    against_weights(subject, frames, findings);
}

fn column(frames: &Frames, feature: Feature) -> Option<Percentiles> {
    frames.statistics.columns.get(&feature).copied()
}

fn units(frames: &Frames, findings: &mut Vec<Finding>) {
    let reach = |axis: Percentiles| axis.p01.abs().max(axis.p99.abs());
    let (Some(x), Some(y)) = (column(frames, Feature::X), column(frames, Feature::Y)) else { return };
    let reach = reach(x).max(reach(y));
    let [low, high] = PLAUSIBLE_REACH_M;
    if reach > 0.0 && !(low..high).contains(&reach) {
        let unit = if reach >= high { "millimetres or map coordinates" } else { "kilometres, or scaled" };
        let measured = format!("99 % of the points lie within {reach:.3} of the origin in x and y: {unit}?");
        let advice =
            "convert to metres around the sensor; a cloud in map coordinates needs `target_frame=` of the vehicle".to_owned();
        findings.push(Finding::new(Severity::Error, "units", measured, advice));
    }
}

fn intensity(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let input = &subject.spec.input;
    let (true, Some(raw)) = (input.features.contains(&Feature::Intensity), column(frames, Feature::Intensity)) else { return };
    let fed = |value: f64| f64::from(input.intensity.apply(value as f32));
    let (median, high) = (fed(raw.p50), fed(raw.p99));
    let mode = match input.intensity {
        IntensityMode::Raw => "raw".to_owned(),
        IntensityMode::Tanh => "tanh".to_owned(),
        IntensityMode::Scale(factor) => format!("scale: {factor}"),
        IntensityMode::ScaleTanh(factor) => format!("scale_tanh: {factor}"),
    };
    let measured = |what: &str| {
        format!(
            "{what}: sensor's intensity 1 % {:.3}, median {:.3}, 99 % {:.3}, max {:.3}; with input.intensity {mode} the network is fed \
             a median of {median:.3} and 99 % {high:.3}",
            raw.p01, raw.p50, raw.p99, raw.max
        )
    };
    let factor = likely_factor(&raw);
    let squashed = matches!(input.intensity, IntensityMode::Tanh | IntensityMode::ScaleTanh(_));
    let advice = |factor: f64| {
        let mode = if squashed { "scale_tanh" } else { "scale" };
        format!(
            "set input.intensity: {{{mode}: {factor:.6}}} in the spec, or `intensity_scale={factor:.6}` behind the source; weights \
             that exist keep their spec's mode, so scale the source"
        )
    };
    if raw.max == raw.min {
        let advice = "the column carries nothing; use another field (`fields=intensity:NAME`), or leave it out of input.features";
        findings.push(Finding::new(Severity::Warning, "intensity-constant", measured("all the same"), advice.to_owned()));
    } else if (squashed && median > SATURATED) || (!squashed && high > LARGE_INPUT) {
        findings.push(Finding::new(Severity::Error, "intensity-scale", measured("far too large"), advice(factor)));
    } else if high < TINY_INPUT {
        findings.push(Finding::new(Severity::Error, "intensity-scale", measured("as good as zero"), advice(factor)));
    }
}

/// What brings the sensor's intensity to about 0 to 1.
fn likely_factor(raw: &Percentiles) -> f64 {
    match raw.max {
        max if max <= 2.0 => 1.0,
        max if max <= 100.0 => 0.01,
        max if max <= 255.0 => 1.0 / 255.0,
        max if max <= 65_535.0 && raw.p99 > 255.0 => 1.0 / 65_535.0,
        _ => 1.0 / raw.p99.max(1e-9),
    }
}

fn ground(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let Some(ground) = frames.statistics.ground_z_m else { return };
    let (low, high) = (f64::from(subject.spec.grid.range[2]), f64::from(subject.spec.grid.range[5]));
    let ground = ground.p50;
    let problem = if ground < low || ground > high {
        Some((Severity::Error, "outside of"))
    } else if ground < low + GROUND_MARGIN_M {
        Some((Severity::Warning, "at the very bottom of"))
    } else if ground + OBJECT_HEIGHT_M > high {
        Some((Severity::Error, "so high that cars and people reach out of"))
    } else {
        None
    };
    let Some((severity, where_)) = problem else { return };
    let measured = format!("the ground around the origin is at z = {ground:.2} m, {where_} the range's z, {low} to {high} m");
    let extent = high - low;
    let proposed = (ground - extent / 3.0, ground + 2.0 * extent / 3.0);
    let advice = format!(
        "put the clouds into a frame on the ground (`target_frame=base_link` behind the source), or set the range's z to {:.1} to {:.1}",
        proposed.0, proposed.1
    );
    findings.push(Finding::new(severity, "ground-height", measured, advice));
}

fn against_weights(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let Some(seen) = subject.seen else { return };
    let ours = &frames.statistics;
    if let (Some(seen), Some(ours)) = (seen.ground_z_m, ours.ground_z_m)
        && (ours.p50 - seen.p50).abs() > GROUND_SHIFT_M
    {
        let shift = seen.p50 - ours.p50;
        let measured = format!("ground at z = {:.2} m, the weights saw it at {:.2} m", ours.p50, seen.p50);
        let advice = format!(
            "raise the clouds by {shift:.2} m: `target_frame=` of a frame at that height, or tf from the sensor's frame to it; without \
             that every object is at a height the weights do not know"
        );
        findings.push(Finding::new(Severity::Error, "height-against-weights", measured, advice));
    }
    if let (Some(theirs), Some(raw)) = (seen.columns.get(&Feature::Intensity), ours.columns.get(&Feature::Intensity))
        && subject.spec.input.features.contains(&Feature::Intensity)
        && differ(theirs.p50, raw.p50, OTHER_INTENSITY)
    {
        let factor = theirs.p50 / raw.p50;
        let measured = format!(
            "the sensor's intensity has median {:.4} and 99 % {:.4}, the weights saw {:.4} and {:.4}",
            raw.p50, raw.p99, theirs.p50, theirs.p99
        );
        let advice = if factor.is_finite() && factor > 0.0 {
            format!(
                "`intensity_scale={factor:.6}` behind the source brings the medians together; on a node, intensity_mode and intensity_factor"
            )
        } else {
            "a column of zeros cannot be scaled; use another field (`fields=intensity:NAME`)".to_owned()
        };
        findings.push(Finding::new(Severity::Error, "intensity-against-weights", measured, advice));
    }
    if let (Some(theirs), Some(points)) = (seen.points_per_frame, ours.points_per_frame)
        && differ(theirs.p50, points.p50, OTHER_POINTS)
    {
        let measured = format!("{:.0} points per frame, the weights saw {:.0}", points.p50, theirs.p50);
        let advice = "expect less from these weights on a sensor of other density; fine-tune on some of these frames".to_owned();
        findings.push(Finding::new(Severity::Warning, "density-against-weights", measured, advice));
    }
    for (class, theirs) in &seen.classes {
        let Some(labels) = ours.classes.get(class) else { continue };
        let sizes = [
            ("length", theirs.length_m, labels.length_m),
            ("width", theirs.width_m, labels.width_m),
            ("height", theirs.height_m, labels.height_m),
        ];
        for (name, theirs, ours) in sizes {
            if differ(theirs.p50, ours.p50, OTHER_SIZE) {
                let measured = format!("{class}: median {name} {:.2} m, the weights saw {:.2} m", ours.p50, theirs.p50);
                let advice =
                    "check that both call the same objects by this name and measure them alike; otherwise fine-tune".to_owned();
                findings.push(Finding::new(Severity::Warning, "size-against-weights", measured, advice));
            }
        }
    }
}

/// Whether two medians are further apart than a factor.
fn differ(a: f64, b: f64, factor: f64) -> bool {
    a.max(b) > factor * a.min(b) && a.max(b) > 0.0
}
