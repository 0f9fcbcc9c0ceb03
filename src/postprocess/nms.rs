//! Suppression of boxes that a better one covers.
//!
//! Detections are taken by score, best first; equal scores keep the order they came in, which after
//! [`top_peaks`](super::top_peaks) is class, then cell. A box is dropped because of a better box that was itself kept, never
//! because of a dropped one.

use super::Detection;
use crate::geometry::iou::{Footprint, reference};
use crate::model::spec::NmsSpec;

/// The detections that no better one suppresses, best score first.
///
/// Rotated suppression measures overlap by the paper's rule ([`mod@reference`]) across all classes; a ratio equal to the
/// threshold keeps the box. Circle suppression compares boxes of one class; a distance equal to the radius keeps the box.
pub fn suppress(mut detections: Vec<Detection>, spec: &NmsSpec) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    match *spec {
        NmsSpec::Rotated { iou, max_before, max_after } => {
            detections.truncate(max_before);
            let covers = |better: &Footprint, other: &Footprint| reference::footprint_iou_exceeds(better, other, iou);
            keep_uncovered(detections, max_after, |d| Footprint::new(&d.box3d), covers)
        }
        NmsSpec::Circle { radius_m, max_before, max_after } => {
            detections.truncate(max_before);
            let covers = |better: &Detection, other: &Detection| {
                better.class_idx == other.class_idx && center_distance_m(better, other) < radius_m
            };
            keep_uncovered(detections, max_after, |d| *d, covers)
        }
    }
}

/// Goes down the sorted list and keeps what no kept one covers. `prepare` is called once per detection.
fn keep_uncovered<P>(
    sorted: Vec<Detection>,
    max_after: usize,
    prepare: impl Fn(&Detection) -> P,
    covers: impl Fn(&P, &P) -> bool,
) -> Vec<Detection> {
    let mut kept = Vec::new();
    let mut kept_prepared: Vec<P> = Vec::new();
    for detection in sorted {
        if kept.len() == max_after {
            break;
        }
        let prepared = prepare(&detection);
        if !kept_prepared.iter().any(|better| covers(better, &prepared)) {
            kept.push(detection);
            kept_prepared.push(prepared);
        }
    }
    kept
}

fn center_distance_m(a: &Detection, b: &Detection) -> f64 {
    (a.box3d.center[0] - b.box3d.center[0]).hypot(a.box3d.center[1] - b.box3d.center[1])
}
