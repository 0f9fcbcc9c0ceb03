//! An anchor head's maps to boxes in metres, and the thresholds on them.

use tch::{Kind, Tensor};

use super::boxes::Filters;
use super::{Decoded, Detection, PostprocessError};
use crate::geometry::Box3d;
use crate::model::anchor_head::{AnchorMaps, at_anchors};
use crate::model::anchors::{Anchors, BOX_VALUES, decode};
use crate::model::spec::PostprocessSpec;

/// By how much a logit may lie below that of the lowest threshold and still be looked at: more than any rounding of a sigmoid.
const LOGIT_MARGIN: f64 = 1e-3;

/// Boxes of the anchors that reach the thresholds, best first.
///
/// An anchor counts by its best class, the first of equal ones. Kept are boxes whose score reaches the threshold of their class and that
/// of their distance (centre heads demand more than the threshold: so the paper's code has it), and whose centre lies in `center_limit`,
/// borders included. Only anchors over the lowest threshold are looked at, and only they leave the device.
///
/// Order: logit descending, then class, row, column, anchor.
///
/// # Shapes
/// - `maps`: B = 1, as many rows, columns and anchors as `anchors` has
///
/// # Errors
/// When a map has another shape, or libtorch fails.
pub fn decode_anchors(
    maps: &AnchorMaps,
    anchors: &Anchors,
    classes: &[String],
    spec: &PostprocessSpec,
) -> Result<Decoded, PostprocessError> {
    let per_anchor = [classes.len(), BOX_VALUES, anchors.directions.n_bins];
    let [a, h, w] = [anchors.kinds.len(), anchors.ys.len(), anchors.xs.len()];
    let named = [("class logits", &maps.cls), ("boxes", &maps.boxes), ("directions", &maps.direction)];
    for ((tensor, map), n) in named.into_iter().zip(per_anchor) {
        let expected = [1, a * n, h, w].map(|n| n as i64);
        if map.size() != expected {
            return Err(PostprocessError::Shape { tensor, expected: format!("{expected:?}"), got: map.size() });
        }
    }

    let mut decoded = Decoded { detections: Vec::new(), n_non_finite: 0 };
    let filters = Filters::new(classes, spec);
    let index = over_threshold(&maps.cls, [a, classes.len(), h, w], filters.lowest_score())?;
    let parts = [&maps.cls, &maps.boxes, &maps.direction].map(|map| at_anchors(map, a, &index).to_kind(Kind::Float));
    let columns = per_anchor.iter().sum::<usize>();
    let rows = Vec::<f32>::try_from(Tensor::f_cat(&parts, 1)?.f_reshape([-1])?)?;
    let index = Vec::<i64>::try_from(&index)?;

    let mut found: Vec<(f32, usize, Detection)> = Vec::new();
    for (row, anchor) in rows.chunks_exact(columns.max(1)).zip(index) {
        let (anchor, (logits, rest)) = (anchor as usize, row.split_at(classes.len()));
        let Some((code, directions)) = rest.split_first_chunk::<BOX_VALUES>() else { continue };
        let (class_idx, logit) = first_highest(logits);
        // In f64, so that devices whose f32 sigmoids differ in the last bit give the same score.
        let score = (1.0 / (1.0 + f64::from(-logit).exp())) as f32;
        if score < filters.class_score(class_idx) {
            continue;
        }
        let mut values = decode(code, &anchors.row(anchor));
        values[6] = anchors.directions.heading_in(first_highest(directions).0, values[6]);
        if row.iter().any(|value| value.is_nan()) || values.iter().any(|value| !value.is_finite()) {
            decoded.n_non_finite += 1;
            continue;
        }
        let reaches = filters.distance_score(&values).is_none_or(|threshold| score >= threshold);
        if reaches && filters.is_centered(&values) {
            let detection = Detection { box3d: Box3d::from_row(values.map(f64::from)), score, class_idx };
            found.push((logit, anchor, detection));
        }
    }
    found.sort_by(|(logit_a, anchor_a, a), (logit_b, anchor_b, b)| {
        logit_b.total_cmp(logit_a).then(a.class_idx.cmp(&b.class_idx)).then(anchor_a.cmp(anchor_b))
    });
    decoded.detections = found.into_iter().map(|(_, _, detection)| detection).collect();
    Ok(decoded)
}

/// Numbers of the anchors whose best class may reach a score, ascending, `[n]` on the map's device. What is not a number may be anything.
fn over_threshold(cls: &Tensor, shape: [usize; 4], score: f32) -> Result<Tensor, PostprocessError> {
    let [a, k, h, w] = shape.map(|n| n as i64);
    let threshold = (f64::from(score) / (1.0 - f64::from(score))).ln() - LOGIT_MARGIN;
    let best = cls.f_reshape([a, k, h * w])?.f_amax([1], false)?.f_to_kind(Kind::Float)?; // [A, H W]
    let at = best.f_lt(threshold)?.f_logical_not()?.f_transpose(0, 1)?.f_nonzero()?; // [n, 2]: cell, anchor
    Ok((at.f_select(1, 0)? * a).f_add(&at.f_select(1, 1)?)?)
}

/// Position and value of the first highest value; of the first that is not a number, if there is one.
fn first_highest(values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (idx, &value) in values.iter().enumerate() {
        if value.is_nan() {
            return (idx, value);
        }
        if value > best.1 {
            best = (idx, value);
        }
    }
    best
}
