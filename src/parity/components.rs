//! The voxeliser's corner cases and the box geometry.

use std::path::Path;

use tch::{Kind, Tensor};

use super::compare::{Limit, compare, exact};
use super::golden::{Companion, Golden};
use super::{Case, ParityError, boxes, losses};
use crate::voxel::{Grid, VoxelCaps, Voxelizer, Voxels, voxelize_by_sort};

pub fn run(path: &Path, case: &mut Case) -> Result<(), ParityError> {
    let golden = Golden::read(path)?;
    let companion = Companion::read(&path.with_file_name("components.json"))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match stem.as_ref() {
        "voxelize" => voxelize(&golden, &companion, case),
        "boxes" => boxes::run(&golden, case),
        "heads_losses" => losses::run(&golden, &companion, case),
        _ => {
            case.unsupported.push("this build knows no component of that name".to_owned());
            Ok(())
        }
    }
}

/// Every `NAME/coords_zyx` of the file is one run; `BASE_max<n>` shares the points and grid of `BASE`.
fn voxelize(golden: &Golden, companion: &Companion, case: &mut Case) -> Result<(), ParityError> {
    let runs: Vec<_> = golden.names().filter_map(|name| name.strip_suffix("/coords_zyx")).map(str::to_owned).collect();
    for run in runs {
        let (base, cap) = match run.rsplit_once("_max") {
            Some((base, digits)) => {
                (base, Some(digits.parse().map_err(|_| golden.content_error(&run, "does not end in a number of voxels"))?))
            }
            None => (run.as_str(), None),
        };
        let grid = Grid::new(companion.get(&[base, "range"])?, companion.get(&[base, "voxel_size"])?);
        if let Some(shape) = companion.find(&[base, "grid"])? {
            case.stages.push(exact(&format!("{run}/grid"), &grid.shape, &shape));
        }
        let caps = VoxelCaps { max_points_per_voxel: Some(companion.get(&[base, "max_points"])?), max_voxels: cap };
        let points = golden.get(&format!("{base}/points"))?;
        let (_, d) = points.size2()?;
        let rows = Vec::<f32>::try_from(points.view([-1]))?;
        if let Some(mask) = golden.find(&format!("{run}/kept_by_range_mask")) {
            let inside = |row: &[f32]| (0..2).all(|axis| grid.range_min[axis] <= row[axis] && row[axis] <= grid.range_max[axis]);
            let ours: Vec<i32> = rows.chunks_exact(d as usize).map(|row| i32::from(inside(row))).collect();
            case.stages.push(compare(&format!("{run}/kept_by_range_mask"), &Tensor::from_slice(&ours), mask, Limit::Exact));
        }
        let pillars = Voxelizer::new(grid.clone(), caps).voxelize(&rows, d as usize);
        compare_pillars(golden, &run, &pillars, case)?;
        let sorted = voxelize_by_sort(&grid, caps, points)?;
        for (name, ours) in
            [("coords_zyx", &sorted.coords), ("num_points", &sorted.num_points), ("point_index", &sorted.point_index)]
        {
            let stage = compare(&format!("{run}/{name} by sort"), ours, golden.get(&format!("{run}/{name}"))?, Limit::Exact);
            case.stages.push(stage);
        }
    }
    Ok(())
}

fn compare_pillars(golden: &Golden, run: &str, pillars: &Voxels, case: &mut Case) -> Result<(), ParityError> {
    let coords = Tensor::from_slice(pillars.coords.as_flattened()).view([-1, 3]);
    let num_points = Tensor::from_slice(&pillars.num_points);
    let point_index = Tensor::from_slice(&pillars.point_index);
    for (name, ours) in [("coords_zyx", coords), ("num_points", num_points), ("point_index", point_index)] {
        let key = format!("{run}/{name}");
        case.stages.push(compare(&key, &ours.to_kind(Kind::Int64), golden.get(&key)?, Limit::Exact));
    }
    Ok(())
}
