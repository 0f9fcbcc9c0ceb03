//! Weights of a network that has learned nothing yet, as the reference and PyTorch set them.
//!
//! The golden vectors' generator (`model::init`) makes numbers that are easy to repeat elsewhere; these make a network that learns.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::model::center_head::REGRESSION_BRANCHES;
use crate::model::expected_params;
use crate::model::init::fnv1a64;
use crate::model::params::{ParamDecl, Weights};
use crate::model::spec::ModelSpec;

/// Bias of the heat map's last convolution: every cell begins near probability 0.1, so that the many empty ones do not drown the
/// first steps.
const HEAT_MAP_BIAS: f64 = -2.19;

/// Bias of the anchor head's classes: every anchor begins at probability 0.01.
const ANCHOR_CLASS_BIAS: f64 = -4.595_119_850_134_59;

/// Deviation of the weights of the anchor head's boxes: they begin as the anchors themselves.
const ANCHOR_BOX_DEVIATION: f64 = 1e-3;

/// Weights for every tensor of a spec, f32 on the CPU. Each tensor depends only on the seed, its name and its shape.
///
/// # Source
/// sparsekd-spec sections 2.4 and 2.8 for the heads. Where it is silent, PyTorch's defaults as OpenPCDet leaves them: convolutions, transposed
/// convolutions and linear layers uniform within 1 / sqrt(fan-in), their biases too, norms 1 and 0.
pub fn fresh_weights(spec: &ModelSpec, seed: u64) -> Weights {
    let decls = expected_params(spec);
    decls.iter().map(|decl| (decl.name.clone(), fresh_tensor(decl, &decls, seed))).collect()
}

/// How a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    Constant(f64),
    /// Evenly in ± this.
    Uniform(f64),
    /// Normal with mean 0 and this deviation.
    Normal(f64),
}

fn fresh_tensor(decl: &ParamDecl, decls: &[ParamDecl], seed: u64) -> Tensor {
    let n_values = decl.shape.iter().product::<i64>() as usize;
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv1a64(&decl.name).to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    let mut uniform = move || random.random::<f64>();
    let values: Vec<f32> = match start(decl, decls) {
        Start::Constant(value) => return Tensor::full(&decl.shape, value, (decl.kind, Device::Cpu)),
        Start::Uniform(bound) => (0..n_values).map(|_| (bound * (2.0 * uniform() - 1.0)) as f32).collect(),
        Start::Normal(deviation) => (0..n_values).map(|_| (deviation * normal(&mut uniform)) as f32).collect(),
    };
    Tensor::from_slice(&values).view(decl.shape.as_slice()).to_kind(Kind::Float)
}

fn start(decl: &ParamDecl, decls: &[ParamDecl]) -> Start {
    let (path, last) = decl.name.rsplit_once('.').unwrap_or(("", &decl.name));
    let of_regression =
        REGRESSION_BRANCHES.iter().any(|(branch, _)| path.starts_with(&format!("dense_head.heads_list.0.{branch}.")));
    let layer = decls.iter().find(|other| other.name == format!("{path}.weight"));
    match (last, layer) {
        ("running_mean", _) => Start::Constant(0.0),
        ("running_var", _) => Start::Constant(1.0),
        // A layer with one-dimensional weights is a norm.
        (_, Some(layer)) if layer.shape.len() == 1 => Start::Constant(if last == "bias" { 0.0 } else { 1.0 }),
        ("bias", _) if of_regression => Start::Constant(0.0),
        ("bias", _) if path.ends_with(".hm.1") => Start::Constant(HEAT_MAP_BIAS),
        ("bias", _) if path.ends_with(".conv_cls") => Start::Constant(ANCHOR_CLASS_BIAS),
        ("weight", _) if path.ends_with(".conv_box") => Start::Normal(ANCHOR_BOX_DEVIATION),
        (_, Some(layer)) if of_regression => Start::Normal((2.0 / fan_in(&layer.shape)).sqrt()),
        (_, Some(layer)) => Start::Uniform(1.0 / fan_in(&layer.shape).sqrt()),
        (_, None) => Start::Constant(0.0),
    }
}

/// Values per entry of the first axis. For a transposed convolution, `[in, out, k, k]`, that is its outputs: so PyTorch counts them.
fn fan_in(shape: &[i64]) -> f64 {
    shape[1..].iter().product::<i64>() as f64
}

/// Standard normal, by Box and Muller.
fn normal(uniform: &mut impl FnMut() -> f64) -> f64 {
    let (radius, angle) = (1.0 - uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
