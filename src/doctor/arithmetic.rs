//! The spec by itself: range against cells and strides, thresholds, limits of boxes.

use super::{Finding, Severity};
use crate::model::spec::{ModelSpec, SpecError};

/// A score threshold above this cuts recall away before evaluation sees it.
const HIGH_THRESHOLD: f32 = 0.3;
/// Ranges are proposed in multiples of a cell within this many cells of the one that is there.
const CELLS_TRIED: i64 = 64;

/// Returns whether the spec keeps to its own rules.
pub fn check(spec: &ModelSpec, findings: &mut Vec<Finding>) -> bool {
    let problems = match spec.check(&spec.name) {
        Ok(()) => Vec::new(),
        Err(SpecError::Values { problems, .. }) => problems,
        Err(other) => vec![other.to_string()],
    };
    for axis in 0..2 {
        if let Some((measured, advice)) = range_of_axis(spec, axis) {
            findings.push(Finding::new(Severity::Error, "range-arithmetic", measured, advice));
        }
    }
    // The two rules that are explained above come without a way out.
    let explained = |problem: &&String| !problem.contains("whole cells") && !problem.contains("strides' product");
    for problem in problems.iter().filter(explained) {
        let advice = "change that key of the spec.yaml; `trainer specs NAME` prints one that works".to_owned();
        findings.push(Finding::new(Severity::Error, "spec", problem.clone(), advice));
    }
    thresholds(spec, findings);
    center_limit(spec, findings);
    problems.is_empty()
}

/// What does not divide along an axis, and the nearest range that does.
fn range_of_axis(spec: &ModelSpec, axis: usize) -> Option<(String, String)> {
    let (low, high) = (f64::from(spec.grid.range[axis]), f64::from(spec.grid.range[axis + 3]));
    let cell = f64::from(spec.grid.voxel_size[axis]);
    let stride = spec.network.cell_multiple()?;
    let cells = (high - low) / cell;
    if !(cells.is_finite() && cells > 0.0) {
        return None;
    }
    let whole = (cells - cells.round()).abs() < 1e-3;
    if whole && cells.round() as i64 % stride == 0 {
        return None;
    }
    let name = ["x", "y"][axis];
    let fault =
        if whole { format!("which is no multiple of the network's strides ({stride})") } else { "which is not whole".to_owned() };
    let measured =
        format!("range along {name} is {low} to {high} m; with cells of {cell} m that makes {cells:.2} cells, {fault}");
    // Round the cell to what was written in decimal: 0.64 and not 0.6399999857.
    let cell = (cell * 1e6).round() * 1e-6;
    let middle = (low + high) / 2.0;
    let candidates =
        (cells.floor() as i64 - CELLS_TRIED..=cells.ceil() as i64 + CELLS_TRIED).filter(|n| *n > 0 && n % stride == 0);
    let nearest = |above: bool| {
        let fitting = candidates.clone().filter(|n| (*n as f64 > cells) == above);
        let n = if above { fitting.min() } else { fitting.max() };
        n.map(|n| format!("{:.2} to {:.2} ({n} cells)", middle - n as f64 * cell / 2.0, middle + n as f64 * cell / 2.0))
    };
    let proposals: Vec<String> = [nearest(false), nearest(true)].into_iter().flatten().collect();
    Some((measured, format!("set grid.range (in a run's YAML: range) along {name} to {}", proposals.join(" or "))))
}

fn thresholds(spec: &ModelSpec, findings: &mut Vec<Finding>) {
    let single =
        spec.postprocess.class_score_thresholds.iter().map(|(class, score)| (format!("class_score_thresholds.{class}"), *score));
    for (key, score) in std::iter::once(("score_threshold".to_owned(), spec.postprocess.score_threshold)).chain(single) {
        if score > HIGH_THRESHOLD {
            let measured = format!("postprocess.{key} = {score}: boxes with less never reach the evaluation, so recall is cut");
            let advice =
                format!("set postprocess.{key} to 0.1 for training and evaluation; the node has its own score_threshold");
            findings.push(Finding::new(Severity::Warning, "score-threshold", measured, advice));
        }
    }
}

fn center_limit(spec: &ModelSpec, findings: &mut Vec<Finding>) {
    let (limit, range) = (spec.postprocess.center_limit, spec.grid.range);
    for (axis, name) in ["x", "y"].iter().enumerate() {
        if limit[axis] > range[axis] || limit[axis + 3] < range[axis + 3] {
            let measured = format!(
                "postprocess.center_limit along {name} is {} to {}, narrower than grid.range, {} to {}: boxes between the two are \
                 learned and then dropped",
                limit[axis],
                limit[axis + 3],
                range[axis],
                range[axis + 3]
            );
            let advice = "widen postprocess.center_limit to at least grid.range".to_owned();
            findings.push(Finding::new(Severity::Warning, "center-limit", measured, advice));
        }
    }
}
