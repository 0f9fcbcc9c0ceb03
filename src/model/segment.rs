//! Per-pillar reductions over points that lie grouped by pillar.
//!
//! On the CPU these are plain loops over the tensors' memory: one pass, where the general scatter operations of libtorch take
//! several times as long. On a GPU they are scatter operations.
#![allow(unsafe_code)] // views of CPU tensors' memory as slices; kind, contiguity and device are asserted first

use tch::{Device, IndexOp, Kind, Tensor};

use super::pillar_vfe::pillar_centers;
use crate::voxel::{Grid, VoxelTensors};

/// The first PFN layer's input without padded slots: the points' columns, the offset to the mean of the pillar's points, the
/// offset to the pillar's centre.
///
/// # Shapes
/// - out: `[N', D + 6]`
pub fn decorate(pillars: &VoxelTensors, grid: &Grid) -> Tensor {
    match pillars.points.device() {
        Device::Cpu => decorate_by_loop(pillars, grid),
        _ => decorate_by_scatter(pillars, grid),
    }
}

/// Mean of all columns over the points of each voxel.
///
/// # Shapes
/// - out: `[P, D]`
pub fn segment_mean(voxels: &VoxelTensors) -> Tensor {
    match voxels.points.device() {
        Device::Cpu => segment_mean_by_loop(voxels),
        _ => segment_mean_by_scatter(voxels),
    }
}

/// Maximum over the points of each pillar.
///
/// # Shapes
/// - `values`: `[N', C]`; out: `[P, C]`
pub fn segment_max(values: &Tensor, pillars: &VoxelTensors) -> Tensor {
    match values.device() {
        Device::Cpu => segment_max_by_loop(values, pillars),
        _ => segment_max_by_scatter(values, pillars),
    }
}

/// The point of each pillar with the highest `signs` times value, channel by channel; the first of several.
///
/// # Shapes
/// - `values`: `[N', C]`; `signs`: `[C]`; `num_points`: `[P]` i64, none 0; `voxel_of_point`: `[N']` i64, ascending
/// - out: `[P, C]` i64, rows of `values`
pub fn segment_argmax(values: &Tensor, signs: &Tensor, num_points: &Tensor, voxel_of_point: &Tensor) -> Tensor {
    match values.device() {
        Device::Cpu => segment_argmax_by_loop(values, signs, num_points),
        _ => segment_argmax_by_scatter(values, signs, num_points, voxel_of_point),
    }
}

fn decorate_by_loop(pillars: &VoxelTensors, grid: &Grid) -> Tensor {
    let centers = pillar_centers(grid, &pillars.coords);
    let (n, d) = (pillars.points.size()[0], pillars.points.size()[1] as usize);
    let mut out = Tensor::empty([n, d as i64 + 6], (Kind::Float, Device::Cpu));
    let (points, centers, counts) = (floats(&pillars.points), floats(&centers), integers(&pillars.num_points));
    let out_rows = floats_mut(&mut out);
    let mut point_idx = 0;
    for (count, center) in counts.iter().zip(centers.chunks_exact(3)) {
        let count = *count as usize;
        let rows = &points[point_idx * d..(point_idx + count) * d];
        let mut mean = [0f32; 3];
        for row in rows.chunks_exact(d) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        let mean = mean.map(|sum| sum / count as f32);
        let outs = &mut out_rows[point_idx * (d + 6)..(point_idx + count) * (d + 6)];
        for (row, out) in rows.chunks_exact(d).zip(outs.chunks_exact_mut(d + 6)) {
            out[..d].copy_from_slice(row);
            for axis in 0..3 {
                out[d + axis] = row[axis] - mean[axis];
                out[d + 3 + axis] = row[axis] - center[axis];
            }
        }
        point_idx += count;
    }
    out
}

fn decorate_by_scatter(pillars: &VoxelTensors, grid: &Grid) -> Tensor {
    let xyz = pillars.points.i((.., ..3)).contiguous();
    let sum = Tensor::zeros([pillars.n_voxels(), 3], (Kind::Float, xyz.device()));
    let mean = sum.index_add(0, &pillars.voxel_of_point, &xyz) / pillars.num_points.to_kind(Kind::Float).unsqueeze(1);
    let mean = mean.index_select(0, &pillars.voxel_of_point);
    let center = pillar_centers(grid, &pillars.coords).index_select(0, &pillars.voxel_of_point);
    Tensor::cat(&[pillars.points.shallow_clone(), &xyz - mean, xyz - center], 1)
}

fn segment_mean_by_loop(voxels: &VoxelTensors) -> Tensor {
    let d = voxels.points.size()[1] as usize;
    let mut out = Tensor::zeros([voxels.n_voxels(), d as i64], (Kind::Float, Device::Cpu));
    let (points, counts) = (floats(&voxels.points), integers(&voxels.num_points));
    let mut point_idx = 0;
    for (count, mean) in counts.iter().zip(floats_mut(&mut out).chunks_exact_mut(d)) {
        let end = point_idx + *count as usize;
        for row in points[point_idx * d..end * d].chunks_exact(d) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= *count as f32);
        point_idx = end;
    }
    out
}

fn segment_mean_by_scatter(voxels: &VoxelTensors) -> Tensor {
    let sum = Tensor::zeros([voxels.n_voxels(), voxels.points.size()[1]], (Kind::Float, voxels.points.device()));
    sum.index_add(0, &voxels.voxel_of_point, &voxels.points) / voxels.num_points.to_kind(Kind::Float).unsqueeze(1)
}

fn segment_max_by_loop(values: &Tensor, pillars: &VoxelTensors) -> Tensor {
    let c = values.size()[1] as usize;
    let values = values.contiguous();
    let mut out = Tensor::empty([pillars.n_voxels(), c as i64], (Kind::Float, Device::Cpu));
    let (rows, counts) = (floats(&values), integers(&pillars.num_points));
    let mut point_idx = 0;
    for (count, highest) in counts.iter().zip(floats_mut(&mut out).chunks_exact_mut(c)) {
        highest.fill(f32::NEG_INFINITY);
        let end = point_idx + *count as usize;
        for row in rows[point_idx * c..end * c].chunks_exact(c) {
            for (high, value) in highest.iter_mut().zip(row) {
                *high = if *value > *high { *value } else { *high };
            }
        }
        point_idx = end;
    }
    out
}

fn segment_max_by_scatter(values: &Tensor, pillars: &VoxelTensors) -> Tensor {
    let lowest = Tensor::full([pillars.n_voxels(), values.size()[1]], f64::NEG_INFINITY, (values.kind(), values.device()));
    let index = pillars.voxel_of_point.unsqueeze(1).expand_as(values);
    lowest.internal_scatter_reduce(0, &index, values, "amax", true)
}

fn segment_argmax_by_loop(values: &Tensor, signs: &Tensor, num_points: &Tensor) -> Tensor {
    let c = values.size()[1] as usize;
    let values = values.contiguous();
    let (rows, signs, counts) = (floats(&values), floats(signs), integers(num_points));
    let mut out = vec![0i64; counts.len() * c];
    let mut highest = vec![0f32; c];
    let mut point_idx = 0;
    for (count, found) in counts.iter().zip(out.chunks_exact_mut(c)) {
        highest.fill(f32::NEG_INFINITY);
        found.fill(point_idx);
        for row_idx in point_idx..point_idx + count {
            let row = &rows[row_idx as usize * c..(row_idx as usize + 1) * c];
            for (((value, sign), high), found) in row.iter().zip(signs).zip(&mut highest).zip(&mut *found) {
                let value = value * sign;
                let higher = value > *high;
                *high = if higher { value } else { *high };
                *found = if higher { row_idx } else { *found };
            }
        }
        point_idx += count;
    }
    Tensor::from_slice(&out).view([counts.len() as i64, c as i64])
}

fn segment_argmax_by_scatter(values: &Tensor, signs: &Tensor, num_points: &Tensor, voxel_of_point: &Tensor) -> Tensor {
    let values = values * signs;
    let (n, c) = (values.size()[0], values.size()[1]);
    let shape = [num_points.size()[0], c];
    let index = voxel_of_point.unsqueeze(1).expand_as(&values);
    let lowest = Tensor::full(shape, f64::NEG_INFINITY, (values.kind(), values.device()));
    let highest = lowest.internal_scatter_reduce(0, &index, &values, "amax", true);
    let row = Tensor::arange(n, (Kind::Int64, values.device())).unsqueeze(1).expand_as(&values);
    let row = row.masked_fill(&values.ne_tensor(&highest.index_select(0, voxel_of_point)), n);
    // Where a value is no number nothing equals the maximum; any point will carry it on.
    let last = Tensor::full(shape, n - 1, (Kind::Int64, values.device()));
    last.internal_scatter_reduce(0, &index, &row, "amin", true)
}

fn assert_plain(tensor: &Tensor, kind: Kind) {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == kind && tensor.is_contiguous(),
        "needs a contiguous {kind:?} tensor on the CPU, got {tensor:?}"
    );
}

fn floats(tensor: &Tensor) -> &[f32] {
    assert_plain(tensor, Kind::Float);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: a contiguous f32 CPU tensor holds `numel` floats from `data_ptr` on, and lives as long as the borrow.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const f32, tensor.numel()) }
}

fn integers(tensor: &Tensor) -> &[i64] {
    assert_plain(tensor, Kind::Int64);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: as above, for i64.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr() as *const i64, tensor.numel()) }
}

fn floats_mut(tensor: &mut Tensor) -> &mut [f32] {
    assert_plain(tensor, Kind::Float);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as above; the tensors passed here were made in this file and share their memory with none.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut f32, tensor.numel()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voxel::{VoxelCaps, Voxelizer, voxelize_on_device};

    /// Points on a lattice that is no multiple of the cell, so that pillars hold different numbers of them.
    fn pillars(grid: &Grid) -> VoxelTensors {
        let points: Vec<f32> = (0..500u16)
            .flat_map(|i| {
                let t = f32::from(i);
                [(t * 0.37) % 8.0 - 4.0, (t * 0.91) % 6.0 - 3.0, (t * 0.13) % 2.0, t, 0.5]
            })
            .collect();
        let caps = VoxelCaps { max_points_per_voxel: Some(6), max_voxels: Some(60) };
        voxelize_on_device(&mut Voxelizer::new(grid.clone(), caps), &points, 5, Device::Cpu).expect("cpu")
    }

    #[test]
    fn loops_equal_scatter_operations() {
        let grid = Grid::new([-4.0, -3.0, 0.0, 4.0, 3.0, 2.0], [0.5, 0.5, 2.0]);
        let pillars = pillars(&grid);
        let (looped, scattered) = (decorate_by_loop(&pillars, &grid), decorate_by_scatter(&pillars, &grid));
        assert!((&looped - scattered).abs().max().double_value(&[]) < 1e-5);
        let (mean, scattered_mean) = (segment_mean_by_loop(&pillars), segment_mean_by_scatter(&pillars));
        assert!((mean - scattered_mean).abs().max().double_value(&[]) < 1e-4);
        let (looped, scattered) = (segment_max_by_loop(&looped, &pillars), segment_max_by_scatter(&looped, &pillars));
        assert_eq!(looped, scattered);
        let values = decorate_by_loop(&pillars, &grid).round(); // rounded, so that some are equal
        let signs = Tensor::from_slice(&[1f32, -1.0, 1.0, 1.0, -1.0, 1.0, 0.0, 1.0, 1.0, 1.0, -1.0]);
        let looped = segment_argmax_by_loop(&values, &signs, &pillars.num_points);
        assert_eq!(looped, segment_argmax_by_scatter(&values, &signs, &pillars.num_points, &pillars.voxel_of_point));
        let highest = (&values * &signs).gather(0, &looped, false);
        assert_eq!(highest, segment_max_by_loop(&(&values * &signs), &pillars));
    }
}
