//! Sparse convolution against its definition, dense convolution and the reference's numbers.

mod dense;
mod fused;
mod pairs;

use pivotal::sparse::{ConvShape, Lattice, Sites};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Distinct cells in no order.
fn random_cells(seed: u64, lattice: &Lattice, n: usize) -> Vec<[i64; 4]> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < n {
        keys.insert(dice.random_range(0..lattice.n_cells()));
    }
    let mut cells: Vec<[i64; 4]> = keys.into_iter().map(|key| lattice.site(key)).collect();
    cells.shuffle(&mut dice);
    cells
}

fn tensor_of(cells: &[[i64; 4]]) -> Tensor {
    Tensor::from_slice(cells.as_flattened()).view([-1, 4])
}

fn sites_of(cells: &[[i64; 4]], lattice: Lattice) -> Sites {
    Sites::from_coords(&tensor_of(cells), lattice).unwrap().0
}

/// Values in (-1, 1) that a seed names.
fn random_values(seed: u64, shape: &[i64]) -> Tensor {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| dice.random_range(-1.0..1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

fn to_vec(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).to_device(Device::Cpu).contiguous().view([-1])).unwrap()
}

fn to_vec_f32(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().to_kind(Kind::Float).contiguous().view([-1])).unwrap()
}

/// Lattice, share of occupied cells, convolution: the backbone's kinds and odd ones.
fn cases() -> Vec<(&'static str, Lattice, f64, ConvShape)> {
    let lattice = |batch, shape| Lattice::new(batch, shape).unwrap();
    let strided = |kernel, stride, padding| ConvShape::strided(kernel, stride, padding).unwrap();
    let cube = ConvShape::submanifold([3; 3]).unwrap();
    vec![
        ("submanifold", lattice(2, [7, 9, 11]), 0.2, cube),
        ("submanifold, full", lattice(1, [4, 5, 6]), 1.0, cube),
        ("submanifold, flat kernel", lattice(1, [5, 6, 7]), 0.3, ConvShape::submanifold([1, 3, 5]).unwrap()),
        ("submanifold, one cell wide", lattice(2, [1, 1, 70]), 0.5, cube),
        ("stride 2", lattice(2, [7, 9, 11]), 0.1, strided([3; 3], [2; 3], [1; 3])),
        ("stride 2, even extents", lattice(1, [6, 8, 140]), 0.05, strided([3; 3], [2; 3], [1; 3])),
        ("stride 2, padding 0 1 1", lattice(2, [9, 8, 8]), 0.1, strided([3; 3], [2; 3], [0, 1, 1])),
        ("last of the backbone", lattice(2, [5, 6, 6]), 0.2, strided([3, 1, 1], [2, 1, 1], [0; 3])),
        ("stride 1", lattice(1, [5, 6, 7]), 0.05, strided([3; 3], [1; 3], [1; 3])),
        ("stride beyond the kernel", lattice(1, [8, 9, 10]), 0.3, strided([2; 3], [3, 2, 4], [1, 0, 1])),
        ("kernel 1", lattice(1, [3, 4, 5]), 0.4, strided([1; 3], [1; 3], [0; 3])),
        ("no site", lattice(1, [5, 6, 7]), 0.0, strided([3; 3], [2; 3], [1; 3])),
        ("no site, submanifold", lattice(1, [5, 6, 7]), 0.0, cube),
        ("sites that reach nothing", lattice(1, [1, 1, 4]), 0.0, strided([1; 3], [3; 3], [0; 3])),
    ]
}

fn n_sites(lattice: &Lattice, share: f64) -> usize {
    (lattice.n_cells() as f64 * share) as usize
}
