//! The sparse 3-D backbones, VoxelResBackBone8x and VoxelBackBone8x, layer by layer as the reference runs them, with MeanVFE before and
//! height compression behind (sparsekd-spec sections 2.2 and 2.8).

mod norm_rows;
mod tape;

use std::rc::Rc;

use tch::{IndexOp, Kind, Tensor};

use super::layers::{BACKBONE_NORM, BatchNorm, Mode};
use super::params::Params;
use super::pillar_vfe::PaddedVoxels;
use super::spec::Backbone3dSpec;
use crate::sparse::{
    self, ConvShape, Lattice, Pairs, Rulebooks, Sites, SparseError, convolve, offsets_first, pairs_of, strided_keys,
};
use crate::voxel::Grid;
pub use tape::Tape;

/// A sparse convolution with what stands around it: `convolution, norm, maybe an addition, ReLU`.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseConvSpec {
    /// Name of the convolution in the reference's state dict.
    pub path: String,
    /// Name of its norm.
    pub norm_path: String,
    /// Layers of one index key share their pairs.
    pub index_key: String,
    /// Kernel, stride, padding.
    pub shape: ConvShape,
    /// Input channels.
    pub c_in: i64,
    /// Output channels.
    pub c_out: i64,
    /// Whether it has a bias; in residual blocks it does, although a norm follows.
    pub has_bias: bool,
    /// Its part in a residual block.
    pub residual: Residual,
    /// Name of the stage that ends with it.
    pub stage: Option<&'static str>,
}

/// A convolution's part in a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// None.
    Outside,
    /// Its input is kept.
    Opens,
    /// What was kept is added before the ReLU.
    Closes,
}

/// A layer with its tensors.
#[derive(Debug)]
pub struct SparseLayer {
    /// What it does.
    pub spec: SparseConvSpec,
    /// `[Cout, kz, ky, kx, Cin]`.
    pub weight: Tensor,
    /// `[Cout]`.
    pub bias: Option<Tensor>,
    /// After the convolution.
    pub norm: BatchNorm,
}

/// The backbone.
#[derive(Debug)]
pub struct Backbone3d {
    /// In the order in which they run.
    pub layers: Vec<SparseLayer>,
    /// Cells along z, y, x.
    lattice: [i64; 3],
}

/// Features where something is, at the end of a stage.
#[derive(Debug)]
pub struct SparseStage {
    /// `conv_input`, `conv1` to `conv4`, `encoded`.
    pub name: &'static str,
    /// In order of (batch, z, y, x).
    pub sites: Rc<Sites>,
    /// `[N, C]`, a row for each site.
    pub features: Tensor,
}

/// Names of the four stages.
const STAGES: [&str; 4] = ["conv1", "conv2", "conv3", "conv4"];
/// Name of the last stage.
pub const ENCODED: &str = "encoded";

/// The layers of a backbone in the order of the reference's state dict, which is that in which they run.
///
/// # Errors
/// [`SparseError::Geometry`]: none, kernels and strides being constants.
fn layer_specs(spec: &Backbone3dSpec, n_features: i64) -> Result<Vec<SparseConvSpec>, SparseError> {
    let cube = ConvShape::submanifold([3; 3])?;
    let layer = |path: String, norm_path: String, index_key: String, shape, c_in, c_out| SparseConvSpec {
        path: format!("backbone_3d.{path}"),
        norm_path: format!("backbone_3d.{norm_path}"),
        index_key,
        shape,
        c_in,
        c_out,
        has_bias: false,
        residual: Residual::Outside,
        stage: None,
    };
    let channels = &spec.channels;
    let first = layer("conv_input.0".into(), "conv_input.1".into(), "subm1".into(), cube, n_features, channels[0]);
    let mut layers = vec![SparseConvSpec { stage: Some("conv_input"), ..first }];
    for (stage_idx, stage) in STAGES.into_iter().enumerate() {
        let (c_in, c) = (channels[stage_idx], channels[stage_idx + 1]);
        let (number, is_first) = (stage_idx + 1, stage_idx == 0);
        if !is_first {
            let padding = if number == STAGES.len() { [0, 1, 1] } else { [1; 3] };
            let down = ConvShape::strided([3; 3], [2; 3], padding)?;
            layers.push(layer(format!("{stage}.0.0"), format!("{stage}.0.1"), format!("spconv{number}"), down, c_in, c));
        }
        for block in 0..spec.blocks[stage_idx] {
            let place = format!("{stage}.{}", block + usize::from(!is_first));
            let c_in = if is_first && block == 0 { c_in } else { c };
            let key = format!("subm{number}");
            if spec.residual {
                for (half, residual) in [(1, Residual::Opens), (2, Residual::Closes)] {
                    let (path, norm) = (format!("{place}.conv{half}"), format!("{place}.bn{half}"));
                    layers.push(SparseConvSpec { has_bias: true, residual, ..layer(path, norm, key.clone(), cube, c, c) });
                }
            } else {
                layers.push(layer(format!("{place}.0"), format!("{place}.1"), key, cube, c_in, c));
            }
        }
        layers.iter_mut().last().into_iter().for_each(|last| last.stage = Some(stage));
    }
    let out = ConvShape::strided([3, 1, 1], [2, 1, 1], [0; 3])?;
    let last = layer("conv_out.0".into(), "conv_out.1".into(), "spconv_down2".into(), out, channels[4], channels[5]);
    layers.push(SparseConvSpec { stage: Some(ENCODED), ..last });
    Ok(layers)
}

impl Backbone3d {
    /// Takes `backbone_3d.*`.
    pub fn new(params: &Params<'_>, spec: &Backbone3dSpec, grid: &Grid, n_features: usize) -> Self {
        let build = |spec: SparseConvSpec| {
            let [kz, ky, kx] = spec.shape.kernel();
            SparseLayer {
                weight: params.take(&format!("{}.weight", spec.path), &[spec.c_out, kz, ky, kx, spec.c_in]),
                bias: spec.has_bias.then(|| params.take(&format!("{}.bias", spec.path), &[spec.c_out])),
                norm: BatchNorm::new(params, &spec.norm_path, spec.c_out, BACKBONE_NORM),
                spec,
            }
        };
        let layers = expect_sparse(layer_specs(spec, n_features as i64));
        Self { layers: layers.into_iter().map(build).collect(), lattice: lattice_shape(grid) }
    }

    /// Cells of its input along z, y, x.
    pub fn lattice(&self) -> [i64; 3] {
        self.lattice
    }

    /// The stages' features, the last one `encoded`; in the element type of the input, weights stay f32.
    ///
    /// # Shapes
    /// - `features`: `[P, D]`; `coords`: `[P, 4]` as (batch, z, y, x)
    pub fn forward(&self, features: &Tensor, coords: &Tensor, batch_size: i64, mode: Mode) -> Vec<SparseStage> {
        expect_sparse(self.try_forward(features, coords, batch_size, mode))
    }

    fn try_forward(
        &self,
        features: &Tensor,
        coords: &Tensor,
        batch_size: i64,
        mode: Mode,
    ) -> Result<Vec<SparseStage>, SparseError> {
        let (sites, rows) = Sites::from_coords(coords, Lattice::new(batch_size.max(1), self.lattice)?)?;
        let (mut sites, mut x) = (Rc::new(sites), features.f_index_select(0, &rows)?);
        let (mut rulebooks, mut kept, mut stages) = (Rulebooks::default(), None, Vec::new());
        for SparseLayer { spec, weight, bias, norm } in &self.layers {
            if spec.residual == Residual::Opens {
                kept = Some(x.shallow_clone());
            }
            let (out_sites, rules) = rulebooks.get(&spec.index_key, &sites, &spec.shape)?;
            let convolved = convolve(&x, &offsets_first(weight)?, bias.as_ref(), &rules)?;
            x = norm.forward(&convolved, mode);
            if let (Residual::Closes, Some(kept)) = (spec.residual, &kept) {
                x = x.f_add(kept)?;
            }
            x = x.relu();
            sites = out_sites;
            stages.extend(spec.stage.map(|name| SparseStage { name, sites: sites.clone(), features: x.shallow_clone() }));
        }
        Ok(stages)
    }
}

/// Output sites and pairs of the layers of one index key.
#[derive(Debug)]
pub struct KeyStage<'a> {
    /// The key.
    pub index_key: &'a str,
    /// `[N]`: cell numbers of the output sites, ascending.
    pub keys: Vec<i64>,
    /// What they are cells of.
    pub lattice: Lattice,
    /// Products of the layers.
    pub pairs: Pairs,
}

/// Sites and pairs of every index key in plain memory, in order of first use.
///
/// # Errors
/// When `keys` do not ascend or lie outside of `lattice`.
pub fn key_stages(layers: &[SparseConvSpec], keys: Vec<i64>, lattice: Lattice) -> Result<Vec<KeyStage<'_>>, SparseError> {
    let mut stages: Vec<KeyStage<'_>> = Vec::new();
    let (mut keys, mut lattice) = (keys, lattice);
    for layer in layers {
        if stages.iter().any(|stage| stage.index_key == layer.index_key) {
            continue;
        }
        let (out_keys, out_lattice) = match layer.shape.kind() {
            sparse::Kind::Submanifold => (keys.clone(), lattice),
            sparse::Kind::Strided => strided_keys(&keys, &lattice, &layer.shape)?,
        };
        let pairs = pairs_of(&keys, &lattice, &out_keys, &layer.shape)?;
        (keys, lattice) = (out_keys.clone(), out_lattice);
        stages.push(KeyStage { index_key: &layer.index_key, keys: out_keys, lattice, pairs });
    }
    Ok(stages)
}

/// MeanVFE: mean of all columns over the points stored in each voxel.
///
/// # Shapes
/// - out: `[P, D]`
pub fn mean_features(voxels: &PaddedVoxels) -> Tensor {
    // Padded slots are zeros.
    let sum = voxels.voxels.sum_dim_intlist([1].as_slice(), false, Kind::Float);
    sum / voxels.num_points.to_kind(Kind::Float).clamp_min(1.0).view([-1, 1])
}

/// Height compression: channel `c` at height `d` of a column becomes channel `c * D + d` of its cell.
///
/// # Shapes
/// - out: `[B, C * D, H, W]`
pub fn compress_heights(encoded: &SparseStage) -> Tensor {
    let dense = expect_sparse(sparse::to_dense(&encoded.features, &encoded.sites)); // [B, C, D, H, W]
    let (b, c, d, h, w) = dense.size5().unwrap_or_default();
    dense.reshape([b, c * d, h, w])
}

/// Cells along z, y, x: those of the grid and, as in the reference, one more along z.
pub fn lattice_shape(grid: &Grid) -> [i64; 3] {
    let [nx, ny, nz] = grid.shape.map(|n| n as i64);
    [nz + 1, ny, nx]
}

/// What tch's own operations do when they fail: panic, which [`crate::pipeline`] turns into an error.
pub(super) fn expect_sparse<T>(result: Result<T, SparseError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers of cells of a batch of one: x runs fastest, then y, z.
///
/// # Shapes
/// - `coords`: `[P, 3]` as (z, y, x); out: `[P]`
pub fn cell_numbers(coords: &Tensor, lattice: [i64; 3]) -> Tensor {
    (coords.i((.., 0)) * lattice[1] + coords.i((.., 1))) * lattice[2] + coords.i((.., 2))
}

/// [`cell_numbers`] of one cell (z, y, x).
pub fn cell_number([z, y, x]: [i64; 3], lattice: [i64; 3]) -> i64 {
    (z * lattice[1] + y) * lattice[2] + x
}
