//! Points to voxels: the grid, its caps, and the plain voxeliser that is the oracle for the tensor one.

mod tensor;
mod voxelize;

pub use tensor::{VoxelTensors, voxelize_by_sort, voxelize_on_device};
pub use voxelize::{Voxelizer, Voxels};

use serde::{Deserialize, Serialize};

/// The cells of a network's input. Every operation on it is f32, as in the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Lower corner x, y, z in metres.
    pub range_min: [f32; 3],
    /// Upper corner x, y, z in metres.
    pub range_max: [f32; 3],
    /// Edge lengths of a cell in metres.
    pub voxel_size: [f32; 3],
    /// Number of cells along x, y, z: extent / voxel size, rounded.
    pub shape: [usize; 3],
}

impl Grid {
    /// Derives the cell counts from range (`[xmin, ymin, zmin, xmax, ymax, zmax]`) and cell size, both in metres.
    pub fn new(range: [f32; 6], voxel_size: [f32; 3]) -> Self {
        let range_min = [range[0], range[1], range[2]];
        let range_max = [range[3], range[4], range[5]];
        let shape = std::array::from_fn(|axis| {
            let extent = f64::from(range_max[axis]) - f64::from(range_min[axis]);
            (extent / f64::from(voxel_size[axis])).round() as usize
        });
        Self { range_min, range_max, voxel_size, shape }
    }

    /// The cell (x, y, z) of a point, or `None` outside the grid.
    ///
    /// x and y are tested against the range as well, borders inclusive: rounding in the division could otherwise let points
    /// just beyond the border in.
    #[inline]
    pub fn cell_of(&self, point: [f32; 3]) -> Option<[usize; 3]> {
        let inside = |axis: usize| self.range_min[axis] <= point[axis] && point[axis] <= self.range_max[axis];
        if !inside(0) || !inside(1) {
            return None;
        }
        let mut cell = [0; 3];
        for axis in 0..3 {
            let position = ((point[axis] - self.range_min[axis]) / self.voxel_size[axis]).floor();
            if !(position >= 0.0 && position < self.shape[axis] as f32) {
                return None;
            }
            cell[axis] = position as usize;
        }
        Some(cell)
    }

    /// Row-major number of a cell (x, y, z): x runs fastest.
    #[inline]
    pub fn key(&self, cell: [usize; 3]) -> usize {
        (cell[2] * self.shape[1] + cell[1]) * self.shape[0] + cell[0]
    }
}

/// How many points and voxels are kept; `None` keeps all (dynamic voxelisation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoxelCaps {
    /// Points kept per voxel, in cloud order (T).
    pub max_points_per_voxel: Option<usize>,
    /// Voxels kept, in order of their first point.
    pub max_voxels: Option<usize>,
}

/// Where the points of a cloud went. `received = out_of_range + in_voxels + over_point_cap + in_dropped_voxels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VoxelCounts {
    /// Points given to the voxeliser.
    pub received: usize,
    /// Points outside the grid.
    pub out_of_range: usize,
    /// Points stored in voxels.
    pub in_voxels: usize,
    /// Points dropped because their voxel was full.
    pub over_point_cap: usize,
    /// Points dropped because their voxel came after the last one kept.
    pub in_dropped_voxels: usize,
    /// Voxels kept (P).
    pub voxels: usize,
    /// Voxels dropped by the cap.
    pub dropped_voxels: usize,
}
