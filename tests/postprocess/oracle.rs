//! Slow, plain versions of what the library does fast.

use pivotal::geometry::Box3d;
use pivotal::postprocess::Detection;

/// Shared area by integration over x: between neighbouring break points (corners, and crossings of edge lines) the common
/// height of two convex shapes is linear, so the value in the middle times the width is exact. No clipping, no cases.
pub fn overlap_by_slabs(a: &Box3d, b: &Box3d) -> f64 {
    let shapes = [around(a, a), around(b, a)];
    let edges = shapes.map(|corners| std::array::from_fn::<_, 4, _>(|i| (corners[i], corners[(i + 1) % 4])));
    let mut breaks: Vec<f64> = shapes.iter().flatten().map(|corner| corner[0]).collect();
    for &(p, p_end) in &edges[0] {
        for &(q, q_end) in &edges[1] {
            let (dp, dq) = ([p_end[0] - p[0], p_end[1] - p[1]], [q_end[0] - q[0], q_end[1] - q[1]]);
            let cross = dp[0] * dq[1] - dp[1] * dq[0];
            let share = ((q[0] - p[0]) * dq[1] - (q[1] - p[1]) * dq[0]) / cross;
            if (0.0..=1.0).contains(&share) {
                breaks.push(p[0] + share * dp[0]);
            }
        }
    }
    breaks.sort_by(f64::total_cmp);
    let height_at = |x: f64| {
        let mut low = f64::NEG_INFINITY;
        let mut high = f64::INFINITY;
        for shape in &edges {
            let ys = shape.iter().filter(|(p, q)| p[0].min(q[0]) < x && x < p[0].max(q[0]));
            let ys: Vec<f64> = ys.map(|(p, q)| p[1] + (x - p[0]) / (q[0] - p[0]) * (q[1] - p[1])).collect();
            if ys.is_empty() {
                return 0.0;
            }
            low = low.max(ys.iter().copied().fold(f64::INFINITY, f64::min));
            high = high.min(ys.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        (high - low).max(0.0)
    };
    breaks.windows(2).map(|pair| (pair[1] - pair[0]) * height_at((pair[0] + pair[1]) / 2.0)).sum()
}

/// The 1 cm rule as described, without any shortcut: all points, sorted by arc tangent around their mean.
pub fn overlap_by_reference_rule(a: &Box3d, b: &Box3d) -> f64 {
    let (corners_a, corners_b) = (around(a, a), around(b, a));
    let mut points = Vec::new();
    for i in 0..4 {
        for j in 0..4 {
            let (p, p_end, q, q_end) = (corners_a[i], corners_a[(i + 1) % 4], corners_b[j], corners_b[(j + 1) % 4]);
            let (dp, dq) = ([p_end[0] - p[0], p_end[1] - p[1]], [q_end[0] - q[0], q_end[1] - q[1]]);
            let cross = dp[0] * dq[1] - dp[1] * dq[0];
            let along_p = ((q[0] - p[0]) * dq[1] - (q[1] - p[1]) * dq[0]) / cross;
            let along_q = ((q[0] - p[0]) * dp[1] - (q[1] - p[1]) * dp[0]) / cross;
            if along_p > 0.0 && along_p < 1.0 && along_q > 0.0 && along_q < 1.0 {
                points.push([p[0] + along_p * dp[0], p[1] + along_p * dp[1]]);
            }
        }
    }
    for (corners, other) in [(corners_a, b), (corners_b, a)] {
        let grown = Box3d::from_row([
            other.center[0] - a.center[0],
            other.center[1] - a.center[1],
            0.0,
            other.size[0] + 0.02,
            other.size[1] + 0.02,
            1.0,
            other.yaw,
        ]);
        points.extend(corners.into_iter().filter(|corner| grown.contains([corner[0], corner[1], 0.0])));
    }
    let count = points.len() as f64;
    let mean = [points.iter().map(|p| p[0]).sum::<f64>() / count, points.iter().map(|p| p[1]).sum::<f64>() / count];
    let angle = |p: &[f64; 2]| (p[1] - mean[1]).atan2(p[0] - mean[0]);
    points.sort_by(|p, q| angle(p).total_cmp(&angle(q)));
    let doubled: f64 = (0..points.len())
        .map(|i| {
            let (p, q) = (points[i], points[(i + 1) % points.len()]);
            p[0] * q[1] - p[1] * q[0]
        })
        .sum();
    doubled.abs() / 2.0
}

/// Ratio of the rotated suppression by [`overlap_by_reference_rule`].
pub fn iou_by_reference_rule(a: &Box3d, b: &Box3d) -> f64 {
    let shared = overlap_by_reference_rule(a, b);
    shared / (a.size[0] * a.size[1] + b.size[0] * b.size[1] - shared).max(1e-8)
}

/// Suppression by the full table of who covers whom.
pub fn suppress_by_table(detections: &[Detection], covers: impl Fn(&Detection, &Detection) -> bool) -> Vec<Detection> {
    let mut sorted = detections.to_vec();
    sorted.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap());
    let mut alive = vec![true; sorted.len()];
    for better in 0..sorted.len() {
        for other in better + 1..sorted.len() {
            if alive[better] && covers(&sorted[better], &sorted[other]) {
                alive[other] = false;
            }
        }
    }
    sorted.into_iter().zip(alive).filter(|(_, alive)| *alive).map(|(detection, _)| detection).collect()
}

/// Corners of `b` around the centre of `origin`.
fn around(b: &Box3d, origin: &Box3d) -> [[f64; 2]; 4] {
    let moved = Box3d { center: [b.center[0] - origin.center[0], b.center[1] - origin.center[1], 0.0], ..*b };
    moved.footprint()
}
