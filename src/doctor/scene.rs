//! The points of one frame, ready to be asked what lies inside a box.

use std::collections::HashMap;

use crate::cloud::PointCloud;
use crate::geometry::Box3d;

/// Edge of a cell of the look-up table and of the ground's map.
const CELL_M: f64 = 2.0;
/// Points this near to the ground, or below it, belong to it.
const GROUND_CLEARANCE_M: f32 = 0.3;
/// The ground of a cell is the height that this share of its points does not exceed.
const GROUND_SHARE: f64 = 0.05;
/// Boxes that reach over more cells are no objects of a street.
const MAX_CELLS_OF_BOX: i64 = 4096;

type Cell = (i64, i64);

/// Points by cell, with a mark on those above ground.
#[derive(Debug)]
pub struct Scene {
    cells: HashMap<Cell, Vec<([f32; 3], bool)>>,
}

impl Scene {
    /// Sorts finite points into cells. The ground under a cell is the lowest of its own and its neighbours', so that a cell full
    /// of an object is not taken for ground.
    pub fn new(cloud: &PointCloud) -> Self {
        let mut cells: HashMap<Cell, Vec<([f32; 3], bool)>> = HashMap::new();
        for row in cloud.rows() {
            let point = [row[0], row[1], row[2]];
            if point.iter().all(|value| value.is_finite()) {
                cells.entry(cell_of(f64::from(point[0]), f64::from(point[1]))).or_default().push((point, false));
            }
        }
        let low: HashMap<Cell, f32> = cells.iter().map(|(cell, points)| (*cell, low_end(points))).collect();
        for (&(ix, iy), points) in &mut cells {
            let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (ix + dx, iy + dy)));
            let ground = around.filter_map(|cell| low.get(&cell).copied()).fold(f32::INFINITY, f32::min);
            for (point, above_ground) in points {
                *above_ground = point[2] > ground + GROUND_CLEARANCE_M;
            }
        }
        Self { cells }
    }

    /// Points inside a box: all, and those above ground.
    pub fn count(&self, box3d: &Box3d) -> [usize; 2] {
        let radius = 0.5 * box3d.size[0].hypot(box3d.size[1]);
        let [x, y, _] = box3d.center;
        if !box3d.to_row().iter().all(|value| value.is_finite()) {
            return [0, 0];
        }
        let (low, high) = (cell_of(x - radius, y - radius), cell_of(x + radius, y + radius));
        let extent = (high.0 - low.0 + 1).saturating_mul(high.1 - low.1 + 1);
        if extent > MAX_CELLS_OF_BOX {
            return [0, 0];
        }
        let mut counts = [0, 0];
        for cell in (low.1..=high.1).flat_map(|iy| (low.0..=high.0).map(move |ix| (ix, iy))) {
            for (point, above_ground) in self.cells.get(&cell).map_or(&[][..], Vec::as_slice) {
                if box3d.contains(point.map(f64::from)) {
                    counts[0] += 1;
                    counts[1] += usize::from(*above_ground);
                }
            }
        }
        counts
    }
}

fn cell_of(x: f64, y: f64) -> Cell {
    ((x / CELL_M).floor() as i64, (y / CELL_M).floor() as i64)
}

fn low_end(points: &[([f32; 3], bool)]) -> f32 {
    let mut heights: Vec<f32> = points.iter().map(|(point, _)| point[2]).collect();
    let at = (GROUND_SHARE * (heights.len() - 1) as f64) as usize;
    *heights.select_nth_unstable_by(at, f32::total_cmp).1
}
