//! The plain voxeliser: single-threaded, one pass, the oracle for the tensor one and the fast path on the CPU.

use std::collections::HashMap;

use super::{Grid, VoxelCaps, VoxelCounts};

/// Points of one cloud grouped into cells.
///
/// # Shapes
/// - `coords`: `[P, 3]` as (z, y, x), in order of each cell's first point
/// - `num_points`: `[P]`
/// - `point_index`: `[sum of num_points]`, rows of the cloud, grouped by cell and in cloud order inside a cell
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Voxels {
    /// Cell of each voxel.
    pub coords: Vec<[i32; 3]>,
    /// Points kept in each voxel.
    pub num_points: Vec<i32>,
    /// Rows of the cloud.
    pub point_index: Vec<i32>,
    /// Where all points went.
    pub counts: VoxelCounts,
}

/// Cells up to this number are looked up in a table, more in a hash map.
const MAX_TABLE_CELLS: usize = 1 << 22;
const EMPTY: u32 = u32::MAX;

/// A voxeliser with its scratch memory, reused from cloud to cloud.
#[derive(Debug)]
pub struct Voxelizer {
    grid: Grid,
    caps: VoxelCaps,
    table: Vec<u32>,
    map: HashMap<usize, u32>,
    voxel_and_slot: Vec<(u32, u32)>,
}

impl Voxelizer {
    /// A voxeliser for one grid.
    pub fn new(grid: Grid, caps: VoxelCaps) -> Self {
        let n_cells = grid.shape.iter().product();
        let table = if n_cells <= MAX_TABLE_CELLS { vec![EMPTY; n_cells] } else { Vec::new() };
        Self { grid, caps, table, map: HashMap::new(), voxel_and_slot: Vec::new() }
    }

    /// The grid it fills.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The caps it keeps to.
    pub fn caps(&self) -> VoxelCaps {
        self.caps
    }

    /// Groups points into cells.
    ///
    /// Cells are numbered in order of their first point. Past `max_voxels` no new cell is opened, but open ones go on filling;
    /// a full cell drops later points. Every dropped point is counted.
    ///
    /// # Shapes
    /// - `points`: `[N, D]` row-major with D = `n_features`, columns beginning with x, y, z; finite
    ///
    /// # Source
    /// sparsekd-spec section 1.4: x and y within the range, borders inclusive; cell = floor((p - min) / size) in f32.
    pub fn voxelize(&mut self, points: &[f32], n_features: usize) -> Voxels {
        let max_points = self.caps.max_points_per_voxel.unwrap_or(usize::MAX);
        let max_voxels = self.caps.max_voxels.unwrap_or(EMPTY as usize).min(EMPTY as usize - 1);
        let mut voxels = Voxels::default();
        let mut dropped_cells = std::collections::HashSet::new();
        self.voxel_and_slot.clear();
        for row in points.chunks_exact(n_features) {
            voxels.counts.received += 1;
            let Some(cell) = self.grid.cell_of([row[0], row[1], row[2]]) else {
                voxels.counts.out_of_range += 1;
                self.voxel_and_slot.push((EMPTY, 0));
                continue;
            };
            let key = self.grid.key(cell);
            let known = if self.table.is_empty() { self.map.get(&key).copied().unwrap_or(EMPTY) } else { self.table[key] };
            let voxel = if known != EMPTY {
                known
            } else if voxels.coords.len() < max_voxels {
                let new = voxels.coords.len() as u32;
                if self.table.is_empty() {
                    self.map.insert(key, new);
                } else {
                    self.table[key] = new;
                }
                voxels.coords.push([cell[2] as i32, cell[1] as i32, cell[0] as i32]);
                voxels.num_points.push(0);
                new
            } else {
                voxels.counts.in_dropped_voxels += 1;
                dropped_cells.insert(key);
                self.voxel_and_slot.push((EMPTY, 0));
                continue;
            };
            let slot = voxels.num_points[voxel as usize];
            if (slot as usize) < max_points {
                voxels.num_points[voxel as usize] += 1;
                voxels.counts.in_voxels += 1;
                self.voxel_and_slot.push((voxel, slot as u32));
            } else {
                voxels.counts.over_point_cap += 1;
                self.voxel_and_slot.push((EMPTY, 0));
            }
        }
        voxels.counts.voxels = voxels.coords.len();
        voxels.counts.dropped_voxels = dropped_cells.len();
        self.group(&mut voxels);
        self.forget(&voxels);
        voxels
    }

    /// Fills `point_index` from the voxel and slot of each point.
    fn group(&self, voxels: &mut Voxels) {
        let mut start = Vec::with_capacity(voxels.num_points.len());
        let mut total = 0u32;
        for n in &voxels.num_points {
            start.push(total);
            total += *n as u32;
        }
        voxels.point_index = vec![0; total as usize];
        for (point_idx, (voxel, slot)) in self.voxel_and_slot.iter().enumerate() {
            if *voxel != EMPTY {
                voxels.point_index[(start[*voxel as usize] + slot) as usize] = point_idx as i32;
            }
        }
    }

    /// Clears only the cells that were used.
    fn forget(&mut self, voxels: &Voxels) {
        self.map.clear();
        if !self.table.is_empty() {
            for [z, y, x] in &voxels.coords {
                let key = self.grid.key([*x as usize, *y as usize, *z as usize]);
                self.table[key] = EMPTY;
            }
        }
    }
}
