//! Which points lie in which boxes.

use crate::geometry::Box3d;

/// Cells along the longer side of the look-up table.
const MAX_CELLS: f64 = 64.0;

/// Cells are no smaller than a car.
const MIN_CELL_M: f64 = 4.0;

/// How far beyond a box's sides, in its own x and y, a point still counts as inside when objects are cut out and counted.
///
/// # Source
/// sparsekd-spec section 1.3: the database's rule.
pub const OWNERSHIP_MARGIN_M: f64 = 1e-5;

/// The same when points make way for a pasted object (sparsekd-spec section 1.3).
pub const REMOVAL_MARGIN_M: f64 = 1e-2;

/// Boxes, ready to be asked for points. A coarse table of cells in the plane keeps a point from meeting every box.
#[derive(Debug)]
pub struct BoxIndex {
    boxes: Vec<Upright>,
    origin: [f64; 2],
    cell_m: f64,
    shape: [usize; 2],
    /// Boxes of each cell, in their order.
    cells: Vec<Vec<u32>>,
}

#[derive(Debug)]
struct Upright {
    center: [f64; 3],
    /// With the margin in x and y.
    half: [f64; 3],
    sin: f64,
    cos: f64,
}

impl BoxIndex {
    /// Of boxes that are finite, each grown by a margin in its own x and y.
    pub fn new(boxes: &[Box3d], margin_m: f64) -> Self {
        let boxes: Vec<Upright> = boxes
            .iter()
            .map(|b| {
                let (sin, cos) = b.yaw.sin_cos();
                let half = [b.size[0] / 2.0 + margin_m, b.size[1] / 2.0 + margin_m, b.size[2] / 2.0];
                Upright { center: b.center, half, sin, cos }
            })
            .collect();
        let low = |axis: usize| boxes.iter().map(|b| b.center[axis] - b.reach(axis)).fold(f64::INFINITY, f64::min);
        let high = |axis: usize| boxes.iter().map(|b| b.center[axis] + b.reach(axis)).fold(f64::NEG_INFINITY, f64::max);
        let origin = [low(0), low(1)];
        let extent = [high(0) - origin[0], high(1) - origin[1]];
        let cell_m = (extent[0].max(extent[1]) / MAX_CELLS).max(MIN_CELL_M);
        // Without boxes the extent is negative infinity, which becomes no cell at all.
        let shape = extent.map(|extent| if extent >= 0.0 { (extent / cell_m) as usize + 1 } else { 0 });
        let mut index = Self { boxes, origin, cell_m, shape, cells: vec![Vec::new(); shape[0] * shape[1]] };
        for (box_idx, b) in index.boxes.iter().enumerate() {
            let span = |axis: usize| {
                let cell = |v: f64| (((v - origin[axis]) / cell_m).max(0.0) as usize).min(shape[axis] - 1);
                cell(b.center[axis] - b.reach(axis))..=cell(b.center[axis] + b.reach(axis))
            };
            for iy in span(1) {
                for ix in span(0) {
                    index.cells[iy * shape[0] + ix].push(box_idx as u32);
                }
            }
        }
        index
    }

    /// The first box that holds the point, in the order they were given.
    pub fn first_holding(&self, point: &[f32]) -> Option<usize> {
        let at = [f64::from(point[0]), f64::from(point[1]), f64::from(point[2])];
        let position = [(at[0] - self.origin[0]) / self.cell_m, (at[1] - self.origin[1]) / self.cell_m];
        if !(0..2).all(|axis| position[axis] >= 0.0 && position[axis] < self.shape[axis] as f64) {
            return None;
        }
        let cell = &self.cells[position[1] as usize * self.shape[0] + position[0] as usize];
        cell.iter().map(|&box_idx| box_idx as usize).find(|&box_idx| self.boxes[box_idx].holds(at))
    }

    /// Points of each box; a point in several boxes counts for the first.
    ///
    /// # Shapes
    /// - `points`: rows of `n_columns` that begin with x, y, z
    pub fn count(&self, points: &[f32], n_columns: usize) -> Vec<u32> {
        let mut counts = vec![0; self.boxes.len()];
        for row in points.chunks_exact(n_columns) {
            if let Some(box_idx) = self.first_holding(row) {
                counts[box_idx] += 1;
            }
        }
        counts
    }
}

impl Upright {
    /// Half extent along a world axis.
    fn reach(&self, axis: usize) -> f64 {
        let (along, across) = if axis == 0 { (self.cos, self.sin) } else { (self.sin, self.cos) };
        self.half[0] * along.abs() + self.half[1] * across.abs()
    }

    /// Strictly inside in its own x and y, inside or on the surface in z, as the reference decides.
    fn holds(&self, at: [f64; 3]) -> bool {
        let (dx, dy) = (at[0] - self.center[0], at[1] - self.center[1]);
        let (along, across) = (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin);
        along.abs() < self.half[0] && across.abs() < self.half[1] && (at[2] - self.center[2]).abs() <= self.half[2]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn upright(center: [f64; 3], size: [f64; 3], yaw: f64) -> Box3d {
        Box3d { center, size, yaw }
    }

    #[test]
    fn first_box_wins_and_margins_are_in_the_plane_only() {
        let boxes = [upright([0.0; 3], [4.0, 2.0, 2.0], 0.0), upright([1.0, 0.0, 0.0], [4.0, 2.0, 2.0], 0.0)];
        let index = BoxIndex::new(&boxes, REMOVAL_MARGIN_M);
        let cases = [
            ([0.0, 0.0, 0.0], Some(0)),
            ([2.5, 0.0, 0.0], Some(1)),
            ([-2.005, 0.0, 0.0], Some(0)),
            ([-2.02, 0.0, 0.0], None),
            ([0.0, 1.005, 0.0], Some(0)),
            ([0.0, 0.0, 1.0], Some(0)),
            ([0.0, 0.0, 1.005], None),
        ];
        for (point, expected) in cases {
            assert_eq!(index.first_holding(&point), expected, "{point:?}");
        }
    }

    #[test]
    fn no_boxes_hold_nothing() {
        assert_eq!(BoxIndex::new(&[], OWNERSHIP_MARGIN_M).first_holding(&[0.0; 3]), None);
    }

    proptest! {
        #[test]
        fn table_gives_what_asking_every_box_gives(
            boxes in prop::collection::vec((-80.0..80.0, -80.0..80.0, 0.5..12.0, 0.3..4.0, -7.0..7.0), 0..12),
            points in prop::collection::vec((-90.0f32..90.0, -90.0f32..90.0), 100),
        ) {
            let boxes: Vec<_> = boxes.into_iter().map(|(x, y, l, w, yaw)| upright([x, y, 0.5], [l, w, 2.0], yaw)).collect();
            let index = BoxIndex::new(&boxes, OWNERSHIP_MARGIN_M);
            for (x, y) in points {
                let at = [f64::from(x), f64::from(y), 0.25];
                let plain = index.boxes.iter().position(|b| b.holds(at));
                prop_assert_eq!(index.first_holding(&[x, y, 0.25]), plain);
            }
        }
    }
}
