//! Overlaps of box pairs as the official C++ routine gives them.

use pivotal::eval::config::BoxType;
use pivotal::eval::overlap::{Extent, iou};
use pivotal::geometry::Box3d;
use serde::Deserialize;

use crate::support::shared;

#[derive(Deserialize)]
struct Pair {
    kind: String,
    a: [f64; 7],
    b: [f64; 7],
    iou3d: f64,
    iou2d: f64,
    geometric3d: f64,
}

fn overlap(a: [f64; 7], b: [f64; 7], box_type: BoxType) -> f64 {
    let [a, b] = [a, b].map(|row| Extent::new(&Box3d::from_row(row), box_type));
    iou(&a, &b, box_type)
}

#[test]
fn overlaps_of_all_pairs_are_official_except_where_the_official_routine_is_wrong() {
    let file = std::fs::read(shared("data/waymo-metrics/iou_pairs.json")).unwrap();
    let pairs: Vec<Pair> = serde_json::from_slice(&file).unwrap();
    assert!(pairs.len() > 1000);
    for (index, Pair { kind, a, b, iou3d, iou2d, geometric3d }) in pairs.into_iter().enumerate() {
        let got = (overlap(a, b, BoxType::Upright3d), overlap(a, b, BoxType::Rotated2d));
        let tolerance = if kind.starts_with("degenerate") { 1e-7 } else { 1e-12 };
        assert!((got.0 - geometric3d).abs() < tolerance, "pair {index} ({kind}): {} in space, truly {geometric3d}", got.0);
        if kind != "degenerate_official_wrong" {
            assert!((got.0 - iou3d).abs() < tolerance, "pair {index} ({kind}): {} in space, officially {iou3d}", got.0);
            assert!((got.1 - iou2d).abs() < tolerance, "pair {index} ({kind}): {} in the plane, officially {iou2d}", got.1);
        }
    }
}

#[test]
fn boxes_along_the_axes_overlap_whatever_their_headings() {
    let (a, b) = ([0.0, 0.0, 5.0, 4.0, 2.0, 1.0, 0.3], [1.0, 0.5, -5.0, 4.0, 2.0, 1.0, 2.0]);
    let shared_area = 3.0 * 1.5;
    assert!((overlap(a, b, BoxType::AxisAligned2d) - shared_area / (16.0 - shared_area)).abs() < 1e-12);
}
