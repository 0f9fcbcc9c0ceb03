//! Where points and boxes lie against the model's range, and what its caps leave of them.

use super::{Finding, Frames, Severity, Subject, percent, share};
use crate::voxel::{Grid, VoxelCounts, Voxelizer};

/// Shares of points or boxes outside of the range: more than the first is worth a warning, more than the second an error.
const LOST_POINTS: [f64; 2] = [0.6, 0.95];
const LOST_BOXES: [f64; 2] = [0.3, 0.9];
/// The same for points within x and y that are above or below the range.
const LOST_BY_Z: [f64; 2] = [0.3, 0.8];
/// The same for boxes within x and y whose centre is above or below the range.
const BOXES_LOST_BY_Z: [f64; 2] = [0.05, 0.5];
/// The same for points that found their pillar full, and for pillars that were one too many.
const OVER_POINT_CAP: [f64; 2] = [0.5, 0.9];
const OVER_PILLAR_CAP: [f64; 2] = [0.001, 0.05];

/// Every check of this file; the spec keeps to its rules.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let grid = subject.spec.grid();
    let mut voxelizer = Voxelizer::new(grid.clone(), subject.spec.caps());
    let mut totals = VoxelCounts::default();
    let mut n_beside = 0;
    let mut rows = Vec::new();
    for sample in &frames.samples {
        // Points that are not finite have their own finding and no cell.
        rows.clear();
        for row in sample.cloud.rows().filter(|row| row[..3].iter().all(|value| value.is_finite())) {
            n_beside += usize::from(!within_plane(&grid, row[0], row[1]));
            rows.extend_from_slice(&row[..3]);
        }
        add(&mut totals, voxelizer.voxelize(&rows, 3).counts);
    }
    of_points(&totals, n_beside, &grid, findings);
    of_boxes(subject, frames, &grid, findings);
    of_caps(subject, &totals, findings);
}

fn within_plane(grid: &Grid, x: f32, y: f32) -> bool {
    let inside = |axis: usize, value: f32| (grid.range_min[axis]..=grid.range_max[axis]).contains(&value);
    inside(0, x) && inside(1, y)
}

fn add(totals: &mut VoxelCounts, counts: VoxelCounts) {
    totals.received += counts.received;
    totals.out_of_range += counts.out_of_range;
    totals.in_voxels += counts.in_voxels;
    totals.over_point_cap += counts.over_point_cap;
    totals.in_dropped_voxels += counts.in_dropped_voxels;
    totals.voxels += counts.voxels;
    totals.dropped_voxels += counts.dropped_voxels;
}

fn severity(share: f64, [warning, error]: [f64; 2]) -> Option<Severity> {
    match share {
        share if share > error => Some(Severity::Error),
        share if share > warning => Some(Severity::Warning),
        _ => None,
    }
}

fn of_points(totals: &VoxelCounts, n_beside: usize, grid: &Grid, findings: &mut Vec<Finding>) {
    if let Some(severity) = severity(share(n_beside, totals.received), LOST_POINTS) {
        let measured = format!(
            "{} of the points lie outside of the range in x and y ({} to {} m, {} to {} m)",
            percent(n_beside, totals.received),
            grid.range_min[0],
            grid.range_max[0],
            grid.range_min[1],
            grid.range_max[1]
        );
        let advice = "widen the range (grid.range of the spec, range in a run's YAML), or check the cloud's frame".to_owned();
        findings.push(Finding::new(severity, "points-out-of-range", measured, advice));
    }
    let (n_above_or_below, n_in_plane) = (totals.out_of_range - n_beside.min(totals.out_of_range), totals.received - n_beside);
    if let Some(severity) = severity(share(n_above_or_below, n_in_plane), LOST_BY_Z) {
        let measured = format!(
            "{} of the points within x and y lie above or below the range, {} to {} m",
            percent(n_above_or_below, n_in_plane),
            grid.range_min[2],
            grid.range_max[2]
        );
        let advice = "set the range's z so that it holds the ground and everything on it; see also ground-height".to_owned();
        findings.push(Finding::new(severity, "points-out-of-height", measured, advice));
    }
}

fn of_boxes(subject: &Subject<'_>, frames: &Frames, grid: &Grid, findings: &mut Vec<Finding>) {
    let (mut n_boxes, mut n_beside, mut n_off_height) = (0, 0, 0);
    let mut farthest = 0.0f64;
    for label in frames.samples.iter().flat_map(|sample| sample.labels.iter().flatten()) {
        let [x, y, z] = label.box3d.center;
        if subject.model_class(&label.class).is_none() || !(x.is_finite() && y.is_finite() && z.is_finite()) {
            continue;
        }
        n_boxes += 1;
        farthest = farthest.max(x.abs()).max(y.abs());
        if !within_plane(grid, x as f32, y as f32) {
            n_beside += 1;
        } else if !(grid.range_min[2]..grid.range_max[2]).contains(&(z as f32)) {
            n_off_height += 1;
        }
    }
    if let Some(severity) = severity(share(n_beside, n_boxes), LOST_BOXES) {
        let measured = format!(
            "{} of {n_boxes} boxes have their centre outside of the range in x and y; the farthest is at {farthest:.1} m",
            percent(n_beside, n_boxes)
        );
        let advice =
            "widen the range (grid.range of the spec, range in a run's YAML), unless the smaller range is meant".to_owned();
        findings.push(Finding::new(severity, "boxes-out-of-range", measured, advice));
    }
    if let Some(severity) = severity(share(n_off_height, n_boxes - n_beside), BOXES_LOST_BY_Z) {
        let measured = format!(
            "{} of the boxes in range have their centre above or below it, {} to {} m",
            percent(n_off_height, n_boxes - n_beside),
            grid.range_min[2],
            grid.range_max[2]
        );
        let advice =
            "set the range's z so that it holds the objects, or put clouds and labels into a frame on the ground".to_owned();
        findings.push(Finding::new(severity, "boxes-out-of-height", measured, advice));
    }
}

fn of_caps(subject: &Subject<'_>, totals: &VoxelCounts, findings: &mut Vec<Finding>) {
    let in_range = totals.received - totals.out_of_range;
    if let Some(severity) = severity(share(totals.over_point_cap, in_range), OVER_POINT_CAP) {
        let measured = format!(
            "{} of the points in range find their pillar full (grid.max_points_per_voxel = {})",
            percent(totals.over_point_cap, in_range),
            subject.spec.grid.max_points_per_voxel.unwrap_or(usize::MAX)
        );
        let advice = "raise grid.max_points_per_voxel, or leave it out for dynamic voxelisation".to_owned();
        findings.push(Finding::new(severity, "points-over-cap", measured, advice));
    }
    let all = totals.voxels + totals.dropped_voxels;
    if let Some(severity) = severity(share(totals.dropped_voxels, all), OVER_PILLAR_CAP) {
        let measured = format!(
            "{} of the pillars are dropped (grid.max_voxels = {}): whole regions, the last ones in the order of the cloud, are not seen",
            percent(totals.dropped_voxels, all),
            subject.spec.grid.max_voxels.unwrap_or(usize::MAX)
        );
        let advice = "raise grid.max_voxels, or leave it out".to_owned();
        findings.push(Finding::new(severity, "voxels-over-cap", measured, advice));
    }
}
