//! What a student takes from its teacher. The losses' golden values and gradients are compared by `parity`.

mod dump;
mod dump_check;
mod golden;
mod inherit;
mod labels;
mod losses;
mod making;
mod teacher;

use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights, uniform};
use pivotal::model::params::Weights;
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::ModelSpec;
use pivotal::voxel::{Voxelizer, voxelize_on_device};
use tch::{Device, Kind, Tensor};

/// A built-in model over a few metres, so that a forward pass takes milliseconds.
fn small(name: &str) -> ModelSpec {
    let mut spec = ModelSpec::builtin(name).unwrap();
    spec.grid.range = [-5.12, -7.68, -2.0, 5.12, 7.68, 4.0];
    spec
}

fn weights(spec: &ModelSpec, seed: u64) -> Weights {
    hash_weights(&expected_params(spec), seed, &HeadMultipliers { hm_weight: 1.3 })
}

/// Made-up clouds in the pillars of a spec.
fn pillars(spec: &ModelSpec, seeds: &[u64]) -> PaddedVoxels {
    let clouds: Vec<_> = seeds
        .iter()
        .map(|seed| {
            let mut rows = uniform("points", *seed, -1.0, 1.0, 5 * 600);
            for row in rows.chunks_exact_mut(5) {
                (row[0], row[1], row[2]) = (row[0] * 5.0, row[1] * 7.5, row[2] * 1.5);
            }
            let mut voxelizer = Voxelizer::new(spec.grid(), spec.caps());
            voxelize_on_device(&mut voxelizer, &rows, 5, Device::Cpu).unwrap()
        })
        .collect();
    PaddedVoxels::from_clouds(&clouds, spec.grid.max_points_per_voxel)
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    largest(&(a.to_kind(Kind::Double) - b.to_kind(Kind::Double)))
}

/// Probabilities that depend on nothing but the seed.
fn probabilities(seed: u64, shape: &[i64]) -> Tensor {
    let n = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&uniform("probability", seed, 0.001, 0.999, n)).view(shape)
}
