//! Voxels as tensors on the model's device.
//!
//! Points are kept flat and grouped by voxel: no padded slot is stored, so none is ever computed. On a GPU the points go up
//! once and the grouping is done there by sorting; on the CPU the plain voxeliser does it, which takes a table look-up per
//! point instead of a sort. Both give the same voxels in the same order.

use tch::{Device, IndexOp, Kind, TchError, Tensor};

use super::{Grid, VoxelCaps, VoxelCounts, Voxelizer};

/// Points of one cloud grouped into voxels.
///
/// # Shapes
/// N' is the number of points kept.
#[derive(Debug)]
pub struct VoxelTensors {
    /// `[N', D]` f32, grouped by voxel, in cloud order inside a voxel.
    pub points: Tensor,
    /// `[N']` i64: rows of the cloud.
    pub point_index: Tensor,
    /// `[N']` i64, ascending: the voxel of each point.
    pub voxel_of_point: Tensor,
    /// `[P, 3]` i64 as (z, y, x), in order of each voxel's first point.
    pub coords: Tensor,
    /// `[P]` i64.
    pub num_points: Tensor,
    /// Where all points went.
    pub counts: VoxelCounts,
}

impl VoxelTensors {
    /// P.
    pub fn n_voxels(&self) -> i64 {
        self.counts.voxels as i64
    }
}

/// Groups a cloud into voxels on a device.
///
/// # Shapes
/// - `points`: `[N, D]` row-major with D = `n_features`
///
/// # Errors
/// When libtorch fails, for instance for want of memory.
pub fn voxelize_on_device(
    voxelizer: &mut Voxelizer,
    points: &[f32],
    n_features: usize,
    device: Device,
) -> Result<VoxelTensors, TchError> {
    match device {
        Device::Cpu => voxelize_plain(voxelizer, points, n_features),
        _ => {
            let n_points = (points.len() / n_features) as i64;
            let on_device = Tensor::f_from_slice(points)?.f_view([n_points, n_features as i64])?.f_to_device(device)?;
            voxelize_by_sort(voxelizer.grid(), voxelizer.caps(), &on_device)
        }
    }
}

/// The plain voxeliser's result as CPU tensors.
fn voxelize_plain(voxelizer: &mut Voxelizer, points: &[f32], n_features: usize) -> Result<VoxelTensors, TchError> {
    let voxels = voxelizer.voxelize(points, n_features);
    let n_kept = voxels.point_index.len();
    let mut rows = Vec::with_capacity(n_kept * n_features);
    for point_idx in &voxels.point_index {
        let start = *point_idx as usize * n_features;
        rows.extend_from_slice(&points[start..start + n_features]);
    }
    let mut voxel_of_point = Vec::with_capacity(n_kept);
    for (voxel_idx, n) in voxels.num_points.iter().enumerate() {
        voxel_of_point.extend(std::iter::repeat_n(voxel_idx as i64, *n as usize));
    }
    let n_voxels = voxels.coords.len() as i64;
    Ok(VoxelTensors {
        points: Tensor::f_from_slice(&rows)?.f_view([n_kept as i64, n_features as i64])?,
        point_index: Tensor::f_from_slice(&voxels.point_index)?.f_to_kind(Kind::Int64)?,
        voxel_of_point: Tensor::f_from_slice(&voxel_of_point)?,
        coords: Tensor::f_from_slice(voxels.coords.as_flattened())?.f_view([n_voxels, 3])?.f_to_kind(Kind::Int64)?,
        num_points: Tensor::f_from_slice(&voxels.num_points)?.f_to_kind(Kind::Int64)?,
        counts: voxels.counts,
    })
}

/// The same by tensor operations: a stable sort by cell, then a sort of cells by their first point.
///
/// # Shapes
/// - `points`: `[N, D]` f32 on any device
///
/// # Errors
/// When libtorch fails.
pub fn voxelize_by_sort(grid: &Grid, caps: VoxelCaps, points: &Tensor) -> Result<VoxelTensors, TchError> {
    let device = points.device();
    let (n_points, _) = points.size2()?;
    let (row_of, key) = cells_in_range(grid, points)?; // [R] rows of the cloud and their cells
    let n_in_range = row_of.size1()?;

    let (key, order) = key.f_sort_stable(true, 0, false)?;
    let row_of = row_of.f_index_select(0, &order)?; // ascending inside a cell: the sort is stable
    let starts_cell = Tensor::f_ones([n_in_range], (Kind::Bool, device))?;
    if n_in_range > 1 {
        starts_cell.i(1..).f_copy_(&key.i(1..).f_ne_tensor(&key.i(..n_in_range - 1))?)?;
    }
    let start = starts_cell.f_nonzero()?.f_view([-1])?; // [S] first position of each cell
    let n_cells = start.size1()?;
    let cell_of = starts_cell.f_to_kind(Kind::Int64)?.f_cumsum(0, Kind::Int64)? - 1; // [R]
    let slot = Tensor::f_arange(n_in_range, (Kind::Int64, device))? - start.f_index_select(0, &cell_of)?;

    // Cells are numbered by their first point, as a single pass over the cloud would.
    let by_first_point = row_of.f_index_select(0, &start)?.f_argsort(0, false)?;
    let voxel_of_cell = Tensor::f_empty([n_cells], (Kind::Int64, device))?;
    let _ =
        voxel_of_cell.shallow_clone().f_index_copy_(0, &by_first_point, &Tensor::f_arange(n_cells, (Kind::Int64, device))?)?;
    let voxel = voxel_of_cell.f_index_select(0, &cell_of)?;

    let n_voxels = caps.max_voxels.map_or(n_cells, |cap| n_cells.min(cap as i64));
    let in_kept_voxel = voxel.f_lt(n_voxels)?;
    let kept = match caps.max_points_per_voxel {
        Some(cap) => in_kept_voxel.f_logical_and(&slot.f_lt(cap as i64)?)?,
        None => in_kept_voxel.shallow_clone(),
    };
    let chosen = kept.f_nonzero()?.f_view([-1])?;
    let (voxel, grouped) = voxel.f_index_select(0, &chosen)?.f_sort_stable(true, 0, false)?;
    let point_index = row_of.f_index_select(0, &chosen)?.f_index_select(0, &grouped)?;
    let num_points = Tensor::f_zeros([n_voxels], (Kind::Int64, device))?;
    let _ = num_points.shallow_clone().f_index_add_(0, &voxel, &voxel.f_ones_like()?)?;
    let key_of_voxel = key.f_index_select(0, &start)?.f_index_select(0, &by_first_point)?.i(..n_voxels);
    let (nx, ny) = (grid.shape[0] as i64, grid.shape[1] as i64);
    let coords = Tensor::f_stack(
        &[
            key_of_voxel.f_divide_scalar_mode(nx * ny, "floor")?,
            key_of_voxel.f_divide_scalar_mode(nx, "floor")?.f_remainder(ny)?,
            key_of_voxel.f_remainder(nx)?,
        ],
        1,
    )?;

    let in_kept_voxels = in_kept_voxel.f_sum(Kind::Int64)?.int64_value(&[]);
    let in_voxels = point_index.size1()?;
    Ok(VoxelTensors {
        points: points.f_index_select(0, &point_index)?,
        point_index,
        voxel_of_point: voxel,
        coords,
        num_points,
        counts: VoxelCounts {
            received: n_points as usize,
            out_of_range: (n_points - n_in_range) as usize,
            in_voxels: in_voxels as usize,
            over_point_cap: (in_kept_voxels - in_voxels) as usize,
            in_dropped_voxels: (n_in_range - in_kept_voxels) as usize,
            voxels: n_voxels as usize,
            dropped_voxels: (n_cells - n_voxels) as usize,
        },
    })
}

/// Rows of the cloud inside the grid (`[R]`, ascending) and the number of each one's cell (`[R]`), both i64.
fn cells_in_range(grid: &Grid, points: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let device = points.device();
    let xyz = points.i((.., ..3));
    let min = Tensor::f_from_slice(&grid.range_min)?.f_to_device(device)?;
    let max = Tensor::f_from_slice(&grid.range_max)?.f_to_device(device)?;
    let size = Tensor::f_from_slice(&grid.voxel_size)?.f_to_device(device)?;
    let shape = Tensor::f_from_slice(&grid.shape.map(|n| n as f32))?.f_to_device(device)?;
    let position = xyz.f_sub(&min)?.f_div(&size)?.f_floor()?;
    let in_cells = position.f_ge(0.0)?.f_logical_and(&position.f_lt_tensor(&shape)?)?;
    let in_range = xyz.f_ge_tensor(&min)?.f_logical_and(&xyz.f_le_tensor(&max)?)?;
    let inside = in_cells.f_all_dim(1, false)?.f_logical_and(&in_range.i((.., ..2)).f_all_dim(1, false)?)?;
    let row_of = inside.f_nonzero()?.f_view([-1])?;
    let cell = position.f_index_select(0, &row_of)?.f_to_kind(Kind::Int64)?;
    let (nx, ny) = (grid.shape[0] as i64, grid.shape[1] as i64);
    let key = cell.i((.., 2)) * (nx * ny) + cell.i((.., 1)) * nx + cell.i((.., 0));
    Ok((row_of, key))
}
