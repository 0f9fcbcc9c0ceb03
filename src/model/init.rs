//! Weights made from names and a seed: for tests, golden parity and demos without a trained student.
//!
//! Deals with the generator of the golden vectors only (`golden/README.md` section 1): every value is a function of the
//! tensor's name, its flat row-major index and the seed, so two programs agree bit for bit without sharing a file.
//! Training starts elsewhere.

use tch::{Kind, Tensor};

use crate::model::params::{ParamDecl, Weights};

/// 2^64 divided by the golden ratio: the increment of SplitMix64.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// What the generator needs beside names, shapes and the seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadMultipliers {
    /// Scale of the last weights of the heat map branch (`.hm.1.weight`) or of the anchor classifier (`conv_cls.weight`).
    pub hm_weight: f64,
}

/// The 64-bit FNV-1a hash of a name's UTF-8 bytes.
pub fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Where the stream of a tensor starts.
pub fn base(name: &str, seed: u64) -> u64 {
    fnv1a64(name) ^ seed.wrapping_mul(GOLDEN_GAMMA)
}

/// 24 random bits for flat index `index`.
pub fn bits24(base: u64, index: u64) -> u32 {
    let mut z = base.wrapping_add(index).wrapping_add(GOLDEN_GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as u32
}

/// `n` values in `[lo, hi)`, computed in f64 and rounded once to f32.
pub fn uniform(name: &str, seed: u64, lo: f64, hi: f64, n: usize) -> Vec<f32> {
    let base = base(name, seed);
    // Not `mul_add`: the generator is defined with two roundings.
    (0..n as u64).map(|index| (lo + (hi - lo) * (f64::from(bits24(base, index)) / f64::from(1_u32 << 24))) as f32).collect()
}

/// Weights for every declared tensor, all on the CPU; integer counters are i64 zeros.
pub fn hash_weights(decls: &[ParamDecl], seed: u64, multipliers: &HeadMultipliers) -> Weights {
    decls.iter().map(|decl| (decl.name.clone(), hash_tensor(decl, seed, multipliers))).collect()
}

fn hash_tensor(decl: &ParamDecl, seed: u64, multipliers: &HeadMultipliers) -> Tensor {
    match value_range(&decl.name, &decl.shape, multipliers) {
        None => Tensor::zeros(&decl.shape, (Kind::Int64, tch::Device::Cpu)),
        Some((lo, hi)) => {
            let n = decl.shape.iter().product::<i64>() as usize;
            Tensor::from_slice(&uniform(&decl.name, seed, lo, hi, n)).reshape(&decl.shape).to_kind(decl.kind)
        }
    }
}

/// `(lo, hi)` of a tensor; `None` for integer counters. The first matching row of the table wins.
fn value_range(name: &str, shape: &[i64], multipliers: &HeadMultipliers) -> Option<(f64, f64)> {
    let ends_with = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends_with(&["num_batches_tracked"]) || name == "global_step" {
        return None;
    }
    let range = if ends_with(&[".hm.1.bias", "conv_cls.bias"]) {
        (-3.4, -3.0)
    } else if ends_with(&[".dim.1.bias"]) {
        (1.0, 1.5)
    } else if ends_with(&[".center.1.bias", ".center_z.1.bias"]) {
        (0.3, 0.7)
    } else if ends_with(&[".rot.1.bias", "running_var"]) {
        (0.5, 1.5)
    } else if ends_with(&["running_mean", "bias"]) {
        (-0.1, 0.1)
    } else if shape.len() < 2 {
        (0.8, 1.2)
    } else {
        // Transposed convolutions are `[in, out, k, k]`; everything else has the outputs first.
        let transposed = shape.len() == 4 && name.contains("backbone_2d.deblocks.");
        let fan_in: i64 = if transposed { shape[0] } else { shape[1..].iter().product() };
        let bound = weight_multiplier(name, multipliers) * (6.0 / fan_in as f64).sqrt();
        (-bound, bound)
    };
    Some(range)
}

/// Keeps random boxes and scores in a useful range.
fn weight_multiplier(name: &str, multipliers: &HeadMultipliers) -> f64 {
    let table: [(&[&str], f64); 6] = [
        (&[".hm.1.weight", "conv_cls.weight"], multipliers.hm_weight),
        (&[".dim.1.weight"], 0.04),
        (&[".center.1.weight", ".center_z.1.weight"], 0.2),
        (&[".rot.1.weight"], 0.06),
        (&["conv_box.weight"], 0.06),
        (&["conv_dir_cls.weight"], 0.3),
    ];
    let row = table.iter().find(|(suffixes, _)| suffixes.iter().any(|suffix| name.ends_with(suffix)));
    row.map_or(1.0, |(_, multiplier)| *multiplier)
}
