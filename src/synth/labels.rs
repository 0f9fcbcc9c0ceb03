//! The truth about a frame: one box per object, with the number of returned points inside.

use nalgebra::{Isometry3, Point3, Vector3};

use super::motion::State;
use super::world::Object;
use super::{Difficulty, LabeledBox};
use crate::geometry::{Box3d, wrap_angle};

/// Labels are drawn this much wider than the body on every side and above, as people do, so that noise stays inside.
const LOOSENESS_M: f64 = 0.03;
const CELL_M: f64 = 4.0;

/// The label of an object without its points.
pub fn label(object: &Object, state: &State, ego_from_world: &Isometry3<f64>, track_id: u64) -> LabeledBox {
    let ego_from_body = ego_from_world * state.world_from_body;
    let rotation = ego_from_body.rotation.to_rotation_matrix();
    let ahead = rotation * Vector3::x();
    let yaw = ahead.y.atan2(ahead.x);
    // The label turns about z only; on uneven ground it holds the tilted body.
    let upright = nalgebra::Rotation3::from_axis_angle(&Vector3::z_axis(), -yaw) * rotation;
    let half = Vector3::from(object.size_m) * 0.5;
    let extent = upright.matrix().abs() * half * 2.0;
    let middle = ego_from_body * Point3::new(0.0, 0.0, half.z);
    let size = [extent.x + 2.0 * LOOSENESS_M, extent.y + 2.0 * LOOSENESS_M, extent.z + LOOSENESS_M];
    let along = Vector3::new(state.heading.cos(), state.heading.sin(), 0.0) * state.speed_mps;
    let velocity = ego_from_world.rotation * along;
    LabeledBox {
        box3d: Box3d { center: [middle.x, middle.y, middle.z + 0.5 * LOOSENESS_M], size, yaw: wrap_angle(yaw) },
        class: object.class,
        track_id,
        n_points: 0,
        difficulty: Difficulty::Level2,
        velocity_mps: [velocity.x, velocity.y],
    }
}

/// Fills in the number of points of each box and the difficulty that follows from it.
///
/// # Shapes
/// `points`: rows that begin with x, y, z, each `n_columns` long.
pub fn count_points(labels: &mut [LabeledBox], points: &[f32], n_columns: usize, reach_m: f64) {
    let n_cells = (2.0 * reach_m / CELL_M).ceil() as usize + 1;
    let cell_of = |v: f64| ((v + reach_m) / CELL_M).clamp(0.0, (n_cells - 1) as f64) as usize;
    let mut cells: Vec<Vec<usize>> = vec![Vec::new(); n_cells * n_cells];
    for (label_idx, label) in labels.iter().enumerate() {
        let ([x, y, _], radius) = (label.box3d.center, 0.5 * label.box3d.size[0].hypot(label.box3d.size[1]));
        for iy in cell_of(y - radius)..=cell_of(y + radius) {
            for ix in cell_of(x - radius)..=cell_of(x + radius) {
                cells[iy * n_cells + ix].push(label_idx);
            }
        }
    }
    for row in points.chunks_exact(n_columns) {
        let point = [f64::from(row[0]), f64::from(row[1]), f64::from(row[2])];
        for &label_idx in &cells[cell_of(point[1]) * n_cells + cell_of(point[0])] {
            if labels[label_idx].box3d.contains(point) {
                labels[label_idx].n_points += 1;
            }
        }
    }
    for label in labels {
        label.difficulty = Difficulty::of(label.n_points);
    }
}
