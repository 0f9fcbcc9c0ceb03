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

/// Points by cell, those above ground and those that make it.
#[derive(Debug)]
pub struct Scene {
    above_ground: HashMap<Cell, Vec<[f32; 3]>>,
    ground: HashMap<Cell, Vec<[f32; 3]>>,
}

impl Scene {
    /// Sorts finite points into cells. The ground under a cell is the lowest of its own and its neighbours', so that a cell full
    /// of an object is not taken for ground.
    pub fn new(cloud: &PointCloud) -> Self {
        let mut cells: HashMap<Cell, Vec<[f32; 3]>> = HashMap::new();
        for row in cloud.rows() {
            let point = [row[0], row[1], row[2]];
            if point.iter().all(|value| value.is_finite()) {
                cells.entry(cell_of(f64::from(point[0]), f64::from(point[1]))).or_default().push(point);
            }
        }
        let low: HashMap<Cell, f32> = cells.iter().map(|(cell, points)| (*cell, low_end(points))).collect();
        let mut scene = Self { above_ground: HashMap::new(), ground: HashMap::new() };
        for ((ix, iy), points) in cells {
            let around = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (ix + dx, iy + dy)));
            let ground = around.filter_map(|cell| low.get(&cell).copied()).fold(f32::INFINITY, f32::min);
            let (above, on) = points.into_iter().partition(|point| point[2] > ground + GROUND_CLEARANCE_M);
            scene.above_ground.insert((ix, iy), above);
            scene.ground.insert((ix, iy), on);
        }
        scene
    }

    /// Points inside a box.
    pub fn count(&self, box3d: &Box3d) -> usize {
        inside(&self.above_ground, box3d).chain(inside(&self.ground, box3d)).count()
    }

    /// Points inside a box that are not of the ground.
    pub fn above_ground<'a>(&'a self, box3d: &'a Box3d) -> impl Iterator<Item = &'a [f32; 3]> {
        inside(&self.above_ground, box3d)
    }
}

fn inside<'a>(cells: &'a HashMap<Cell, Vec<[f32; 3]>>, box3d: &'a Box3d) -> impl Iterator<Item = &'a [f32; 3]> {
    let radius = 0.5 * box3d.size[0].hypot(box3d.size[1]);
    let [x, y, _] = box3d.center;
    let (low, high) = (cell_of(x - radius, y - radius), cell_of(x + radius, y + radius));
    let extent = (high.0 - low.0 + 1).saturating_mul(high.1 - low.1 + 1);
    let is_finite = box3d.to_row().iter().all(|value| value.is_finite());
    let rows = (is_finite && extent <= MAX_CELLS_OF_BOX).then_some(low.1..=high.1);
    let near = rows.into_iter().flatten().flat_map(move |iy| (low.0..=high.0).map(move |ix| (ix, iy)));
    near.filter_map(|cell| cells.get(&cell)).flatten().filter(|point| box3d.contains(point.map(f64::from)))
}

/// The cell of a place; far beyond any sensor's reach all places share one.
fn cell_of(x: f64, y: f64) -> Cell {
    let index = |v: f64| (v / CELL_M).floor().clamp(-1e9, 1e9) as i64;
    (index(x), index(y))
}

fn low_end(points: &[[f32; 3]]) -> f32 {
    let mut heights: Vec<f32> = points.iter().map(|point| point[2]).collect();
    let at = (GROUND_SHARE * (heights.len() - 1) as f64) as usize;
    *heights.select_nth_unstable_by(at, f32::total_cmp).1
}
