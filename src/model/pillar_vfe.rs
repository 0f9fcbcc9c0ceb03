//! PillarVFE: the features of each pillar from its points (sparsekd-spec section 2.3).

use tch::{IndexOp, Kind, Tensor};

use super::layers::{BACKBONE_NORM, BatchNorm, Mode};
use super::params::Params;
use crate::voxel::{Grid, VoxelTensors};

/// Columns added to each point: offset to the mean of the pillar's points, offset to the pillar's centre.
const ADDED_FEATURES: i64 = 6;

/// Pillars of a batch of clouds with their slots padded by zeros, as the reference lays them out.
///
/// # Shapes
/// P counts the pillars of all clouds; T is the cap, or the fullest pillar's count in dynamic mode.
#[derive(Debug)]
pub struct PaddedVoxels {
    /// `[P, T, D]` f32.
    pub voxels: Tensor,
    /// `[P]` i64.
    pub num_points: Tensor,
    /// `[P, 4]` i64 as (batch, z, y, x).
    pub coords: Tensor,
    /// B.
    pub batch_size: i64,
    /// Whether padded slots count as points of zeros, as they do in the reference. Dynamic voxelisation has no slots to pad, so
    /// there they are left out of every maximum.
    pub padding_takes_part: bool,
}

impl PaddedVoxels {
    /// Lays the pillars of several clouds out in one padded tensor.
    pub fn from_clouds(clouds: &[VoxelTensors], slots: Option<usize>) -> Self {
        let fullest = |c: &VoxelTensors| if c.n_voxels() == 0 { 0 } else { c.num_points.max().int64_value(&[]) };
        let t = slots.map_or_else(|| clouds.iter().map(fullest).max().unwrap_or(0).max(1), |cap| cap as i64);
        let padded = |c: &VoxelTensors| {
            let (_, d) = c.points.size2().unwrap_or((0, 0));
            let start = c.num_points.cumsum(0, Kind::Int64) - &c.num_points;
            let position = Tensor::arange(c.points.size()[0], (Kind::Int64, c.points.device()));
            let slot = position - start.index_select(0, &c.voxel_of_point);
            let row = &c.voxel_of_point * t + slot;
            let flat = Tensor::zeros([c.n_voxels() * t, d], (Kind::Float, c.points.device()));
            flat.index_copy(0, &row, &c.points).view([c.n_voxels(), t, d])
        };
        let with_batch = |(batch_idx, c): (usize, &VoxelTensors)| {
            let batch = Tensor::full([c.n_voxels(), 1], batch_idx as i64, (Kind::Int64, c.coords.device()));
            Tensor::cat(&[batch, c.coords.shallow_clone()], 1)
        };
        Self {
            voxels: Tensor::cat(&clouds.iter().map(padded).collect::<Vec<_>>(), 0),
            num_points: Tensor::cat(&clouds.iter().map(|c| c.num_points.shallow_clone()).collect::<Vec<_>>(), 0),
            coords: Tensor::cat(&clouds.iter().enumerate().map(with_batch).collect::<Vec<_>>(), 0),
            batch_size: clouds.len() as i64,
            padding_takes_part: slots.is_some(),
        }
    }

    /// Which slots hold a point: `[P, T, 1]` bool.
    pub(super) fn stored_slots(&self) -> Tensor {
        let slot = Tensor::arange(self.voxels.size()[1], (Kind::Int64, self.voxels.device())).view([1, -1]);
        slot.lt_tensor(&self.num_points.view([-1, 1])).unsqueeze(2)
    }
}

/// One layer: linear, batch norm, ReLU, maximum over the slots.
#[derive(Debug)]
pub struct PfnLayer {
    /// `[Cout, Cin]`.
    pub linear: Tensor,
    /// After the linear layer.
    pub norm: BatchNorm,
}

/// Features of a pillar, and what was met on the way.
#[derive(Debug)]
pub struct VfeTrace {
    /// `[P, T, D + 6]`: input of the first layer.
    pub decorated: Tensor,
    /// `[P, T, C]`: output of the first layer, its maximum appended.
    pub pfn0_out: Tensor,
    /// `[P, C]`.
    pub pillar_features: Tensor,
}

/// Two PFN layers over padded pillars.
#[derive(Debug)]
pub struct PillarVfe {
    /// Both layers.
    pub layers: [PfnLayer; 2],
    pub(super) grid: Grid,
}

impl PillarVfe {
    /// Takes `vfe.pfn_layers.{0,1}`; `filters` as in the spec, `n_features` = D.
    pub fn new(params: &Params<'_>, grid: &Grid, n_features: usize, filters: &[i64]) -> Self {
        let layer = |idx: usize, c_in: i64, c_out: i64| {
            let path = format!("vfe.pfn_layers.{idx}");
            PfnLayer {
                linear: params.take(&format!("{path}.linear.weight"), &[c_out, c_in]),
                norm: BatchNorm::new(params, &format!("{path}.norm"), c_out, BACKBONE_NORM),
            }
        };
        let first = layer(0, n_features as i64 + ADDED_FEATURES, filters[0] / 2);
        let second = layer(1, filters[0], filters[1]);
        Self { layers: [first, second], grid: grid.clone() }
    }

    /// Padded slots take part in batch statistics and in the maximum, as in the reference: a padded slot enters the first layer
    /// as zeros and leaves it as ReLU(BN(0)).
    pub fn forward(&self, pillars: &PaddedVoxels, mode: Mode) -> VfeTrace {
        let stored = pillars.stored_slots(); // [P, T, 1]
        let highest = |x: &Tensor| {
            // After a ReLU nothing is below zero, so zero leaves a slot out.
            let counted = if pillars.padding_takes_part { x.shallow_clone() } else { x.masked_fill(&stored.logical_not(), 0.0) };
            counted.amax([1], true)
        };
        let decorated = self.decorate(pillars) * stored.to_kind(Kind::Float); // [P, T, D + 6]
        let x = self.layers[0].forward(&decorated, mode); // [P, T, C / 2]
        let pfn0_out = Tensor::cat(&[x.shallow_clone(), highest(&x).expand_as(&x)], 2); // [P, T, C]
        let pillar_features = highest(&self.layers[1].forward(&pfn0_out, mode)).squeeze_dim(1); // [P, C]
        VfeTrace { decorated, pfn0_out, pillar_features }
    }

    fn decorate(&self, pillars: &PaddedVoxels) -> Tensor {
        let PaddedVoxels { voxels, num_points, coords, .. } = pillars;
        let xyz = voxels.i((.., .., ..3));
        let count = num_points.to_kind(Kind::Float).clamp_min(1.0).view([-1, 1, 1]);
        let mean = xyz.sum_dim_intlist([1].as_slice(), true, Kind::Float) / count;
        let center = pillar_centers(&self.grid, &coords.i((.., 1..))).unsqueeze(1);
        Tensor::cat(&[voxels.shallow_clone(), &xyz - mean, xyz - center], 2)
    }
}

impl PfnLayer {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = x.linear(&self.linear, None::<&Tensor>);
        self.norm.forward(&x.transpose(1, 2), mode).transpose(1, 2).relu()
    }
}

/// Centres of pillars in metres, `[P, 3]` f32 as x, y, z, from their cells `[P, 3]` as (z, y, x).
pub fn pillar_centers(grid: &Grid, coords: &Tensor) -> Tensor {
    let device = coords.device();
    let size = Tensor::from_slice(&grid.voxel_size).to_device(device);
    let offset: [f32; 3] =
        std::array::from_fn(|axis| (f64::from(grid.voxel_size[axis]) / 2.0 + f64::from(grid.range_min[axis])) as f32);
    coords.flip([1]).to_kind(Kind::Float) * size + Tensor::from_slice(&offset).to_device(device)
}

/// Writes pillar features into a map of zeros.
///
/// # Shapes
/// - `features`: `[P, C]`; `coords`: `[P, 4]` as (batch, z, y, x)
/// - out: `[B, C, H, W]`
pub fn scatter(features: &Tensor, coords: &Tensor, batch_size: i64, grid: &Grid) -> Tensor {
    scatter_channels_last(features, coords, batch_size, grid).contiguous()
}

/// [`scatter`] with the channels of a cell beside each other in memory, as processors' convolutions want them.
pub fn scatter_channels_last(features: &Tensor, coords: &Tensor, batch_size: i64, grid: &Grid) -> Tensor {
    let (_, c) = features.size2().unwrap_or((0, 0));
    let (w, h) = (grid.shape[0] as i64, grid.shape[1] as i64);
    let cell = (coords.i((.., 0)) * h + coords.i((.., 2))) * w + coords.i((.., 3));
    let map = Tensor::zeros([batch_size * h * w, c], (features.kind(), features.device()));
    map.index_copy(0, &cell, features).view([batch_size, h, w, c]).permute([0, 3, 1, 2])
}
