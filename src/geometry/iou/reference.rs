//! The overlap of the paper's code (OpenPCDet's rotated suppression), needed wherever the paper's boxes must come out.
//!
//! The shared region is taken as the polygon through these points, in order of their angle around their mean:
//!
//! * crossings of an edge of one footprint with an edge of the other, inside both edges;
//! * corners of either footprint that are less than 1 cm outside the other, measured along the other's two axes.
//!
//! The second rule makes the overlap larger than the geometric one, by up to 1 cm times the length of a nearly touching
//! side, and gives neighbours within 1 cm a small overlap. Ratios of boxes of a few centimetres can therefore exceed 1.
//!
//! # Source
//! Behaviour after OpenPCDet 0.5.2 `ops/iou3d_nms`; evaluated in f64 where that uses f32.

use super::{Box3d, Footprint, ROUNDING_SLACK, fan_area, from_to, height_overlap, rectangle};

/// How far outside a footprint a corner may lie along each axis and still count as inside.
const CORNER_TOLERANCE_M: f64 = 0.01;

/// How far outside a footprint rounding may put a true crossing of two edges.
const CROSSING_TOLERANCE_M: f64 = 1e-9;

/// Lower bound of the joint area in [`bev_iou`].
const MIN_JOINT_AREA_M2: f64 = 1e-8;

/// Lower bound of the joint volume in [`iou3d`].
const MIN_JOINT_VOLUME_M3: f64 = 1e-6;

/// 16 pairs of edges and 8 corners.
const MAX_POINTS: usize = 24;

/// Area in square metres that two footprints share under the 1 cm rule.
pub fn bev_overlap(a: &Box3d, b: &Box3d) -> f64 {
    footprint_overlap(&Footprint::new(a), &Footprint::new(b))
}

/// Shared area over joint area under the 1 cm rule.
pub fn bev_iou(a: &Box3d, b: &Box3d) -> f64 {
    let (a, b) = (Footprint::new(a), Footprint::new(b));
    ratio(footprint_overlap(&a, &b), a.area, b.area)
}

/// Shared volume over joint volume; the 1 cm rule applies in the plane only.
pub fn iou3d(a: &Box3d, b: &Box3d) -> f64 {
    let shared = bev_overlap(a, b) * height_overlap(a, b);
    let volume = |b: &Box3d| b.size[0] * b.size[1] * b.size[2];
    if shared > 0.0 { shared / (volume(a) + volume(b) - shared).max(MIN_JOINT_VOLUME_M3) } else { 0.0 }
}

/// Whether [`bev_iou`] of the two exceeds a threshold; decided without the polygon where bounds suffice.
pub fn footprint_iou_exceeds(a: &Footprint, b: &Footprint, threshold: f64) -> bool {
    if !a.bounds_meet(b, CORNER_TOLERANCE_M) {
        return 0.0 > threshold;
    }
    // The ratio grows with the overlap, so a bound of the overlap bounds it.
    if ratio(overlap_bound(a, b), a.area, b.area) <= threshold {
        return false;
    }
    ratio(footprint_overlap(a, b), a.area, b.area) > threshold
}

/// [`bev_overlap`] of prepared footprints.
pub fn footprint_overlap(a: &Footprint, b: &Footprint) -> f64 {
    let meet = a.is_measurable() && b.is_measurable() && a.bounds_meet(b, CORNER_TOLERANCE_M);
    if meet && overlap_bound(a, b) > 0.0 { polygon_area(a, b) } else { 0.0 }
}

fn ratio(shared: f64, area_a: f64, area_b: f64) -> f64 {
    shared / (area_a + area_b - shared).max(MIN_JOINT_AREA_M2)
}

/// An area the overlap cannot exceed. All points of the polygon lie in both footprints grown by the tolerance; along the axes of
/// either footprint, that region is no longer and no wider than the intervals the two grown footprints share there.
fn overlap_bound(a: &Footprint, b: &Footprint) -> f64 {
    shared_bounds_along(a, b).min(shared_bounds_along(b, a)) * ROUNDING_SLACK
}

fn shared_bounds_along(frame: &Footprint, other: &Footprint) -> f64 {
    let (x, y, sin, cos) = frame.relative(other);
    let (sin, cos) = (sin.abs(), cos.abs());
    let frame_half = frame.half_size.map(|half| (half + CORNER_TOLERANCE_M) * ROUNDING_SLACK);
    let [half_l, half_w] = other.half_size.map(|half| (half + CORNER_TOLERANCE_M) * ROUNDING_SLACK);
    let shared =
        |offset: f64, half_a: f64, half_b: f64| (half_a + half_b - offset.abs()).min(2.0 * half_a).min(2.0 * half_b).max(0.0);
    shared(x, frame_half[0], half_l * cos + half_w * sin) * shared(y, frame_half[1], half_l * sin + half_w * cos)
}

fn polygon_area(a: &Footprint, b: &Footprint) -> f64 {
    // Coordinates around one of the centres keep digits that a far-away origin would cost.
    let origin = a.center;
    let (corners_a, corners_b) = (corners_around(a, origin), corners_around(b, origin));
    let mut points = [[0.0; 2]; MAX_POINTS];
    let mut n_points = 0;
    let mut push = |point| {
        points[n_points] = point;
        n_points += 1;
    };
    for edge_a in edges(&corners_a) {
        for edge_b in edges(&corners_b) {
            // Rounding can make collinear edges cross anywhere on their common line; such a crossing counts where both boxes are.
            if let Some(point) = crossing(edge_a, edge_b)
                && [a, b].iter().all(|f| is_inside(point, f, origin, CROSSING_TOLERANCE_M))
            {
                push(point);
            }
        }
    }
    for (corners, other) in [(&corners_a, b), (&corners_b, a)] {
        for &corner in corners {
            if is_inside(corner, other, origin, CORNER_TOLERANCE_M) {
                push(corner);
            }
        }
    }
    let points = &mut points[..n_points];
    order_around_mean(points);
    fan_area(points)
}

fn corners_around(f: &Footprint, origin: [f64; 2]) -> [[f64; 2]; 4] {
    rectangle(from_to(origin, f.center), f.half_size, (f.sin, f.cos))
}

fn edges(corners: &[[f64; 2]; 4]) -> [[[f64; 2]; 2]; 4] {
    std::array::from_fn(|start| [corners[start], corners[(start + 1) % 4]])
}

/// Where two segments cross, if each has the ends of the other strictly on its two sides.
fn crossing([p, p_end]: [[f64; 2]; 2], [q, q_end]: [[f64; 2]; 2]) -> Option<[f64; 2]> {
    let side = |from: [f64; 2], to: [f64; 2], of: [f64; 2]| {
        let (along, across) = (from_to(from, to), from_to(from, of));
        along[0] * across[1] - along[1] * across[0]
    };
    let (p_side, p_end_side) = (side(q, q_end, p), side(q, q_end, p_end));
    let (q_side, q_end_side) = (side(p, p_end, q), side(p, p_end, q_end));
    if !(p_side * p_end_side < 0.0 && q_side * q_end_side < 0.0) {
        return None;
    }
    let share = p_side / (p_side - p_end_side);
    Some([p[0] + share * (p_end[0] - p[0]), p[1] + share * (p_end[1] - p[1])])
}

fn is_inside(point: [f64; 2], f: &Footprint, origin: [f64; 2], tolerance_m: f64) -> bool {
    let [dx, dy] = from_to(from_to(origin, f.center), point);
    let (along, across) = (dx * f.cos + dy * f.sin, dy * f.cos - dx * f.sin);
    along.abs() < f.half_size[0] + tolerance_m && across.abs() < f.half_size[1] + tolerance_m
}

/// Counter-clockwise. The key grows with the angle but needs no arc tangent.
fn order_around_mean(points: &mut [[f64; 2]]) {
    let count = points.len() as f64;
    let mean = points.iter().fold([0.0; 2], |sum, p| [sum[0] + p[0] / count, sum[1] + p[1] / count]);
    let key = |point: &[f64; 2]| {
        let [dx, dy] = from_to(mean, *point);
        let run = dx.abs() + dy.abs();
        let slope = if run > 0.0 { dx / run } else { 1.0 };
        if dy < 0.0 { slope - 1.0 } else { 1.0 - slope }
    };
    points.sort_unstable_by(|p, q| key(p).total_cmp(&key(q)));
}
