//! The layers of the network families: a front end that makes a bird's-eye map of voxels, a 2-D backbone, a head.

use serde::{Deserialize, Serialize};

use super::{MAX_CELLS, Rule};
use crate::voxel::Grid;

/// The layers of one of the network families.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NetworkSpec {
    /// PillarVFE, scatter, BaseBEVBackbone, CenterHead.
    Pillar(PillarNetSpec),
    /// MeanVFE, sparse 3-D backbone, height compression, BaseBEVBackbone, CenterHead.
    Voxel(VoxelNetSpec),
}

/// CP-Pillar and its students (sparsekd-spec section 2.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PillarNetSpec {
    /// Output channels of the two PFN layers; the first is doubled by concatenation, so its linear layer has half.
    pub vfe_filters: Vec<i64>,
    /// The 2-D backbone.
    pub backbone_2d: BackboneSpec,
    /// Channels of the head's shared convolution and of each branch.
    pub head_channels: i64,
}

/// CP-Voxel and its students (sparsekd-spec section 2.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoxelNetSpec {
    /// The sparse 3-D backbone.
    pub backbone_3d: Backbone3dSpec,
    /// The 2-D backbone.
    pub backbone_2d: BackboneSpec,
    /// Channels of the head's shared convolution and of each branch.
    pub head_channels: i64,
}

/// VoxelResBackBone8x or VoxelBackBone8x: four stages, each but the first begun by a convolution of stride 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backbone3dSpec {
    /// Whether a block is two convolutions around which its input is added (VoxelResBackBone8x) or one (VoxelBackBone8x).
    pub residual: bool,
    /// Channels after the first convolution, after each of the four stages, and after the last convolution.
    pub channels: [i64; 6],
    /// Submanifold blocks of each stage, after its strided convolution where it has one.
    pub blocks: [usize; 4],
}

/// BaseBEVBackbone: one entry per block in every list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Convolutions after the first one of each block.
    pub layer_nums: Vec<usize>,
    /// Stride of each block's first convolution.
    pub strides: Vec<i64>,
    /// Channels of each block.
    pub filters: Vec<i64>,
    /// Stride and kernel of each block's transposed convolution.
    pub upsample_strides: Vec<i64>,
    /// Channels of each transposed convolution.
    pub upsample_filters: Vec<i64>,
}

/// From voxels to a bird's-eye map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FrontSpec<'a> {
    /// PillarVFE and scatter.
    Pillar {
        /// Output channels of the two PFN layers.
        vfe_filters: &'a [i64],
    },
    /// MeanVFE, sparse 3-D backbone, height compression.
    Voxel(&'a Backbone3dSpec),
}

/// From the 2-D backbone's map to boxes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadSpec {
    /// CenterHead.
    Center {
        /// Channels of the shared convolution and of each branch.
        channels: i64,
    },
}

/// Most blocks of a backbone.
const MAX_BLOCKS: usize = 8;
/// Most convolutions of a block of the 2-D backbone, most blocks of a stage of the 3-D one.
const MAX_LAYERS: usize = 64;
/// Most channels of a layer.
const MAX_CHANNELS: i64 = 4096;
/// Largest product of the strides: beyond it, a whole axis of any grid is less than one cell.
const MAX_TOTAL_STRIDE: i64 = MAX_CELLS as i64;
/// Of the 3-D backbones along x and y: three convolutions of stride 2.
const STRIDE_3D: i64 = 8;

impl NetworkSpec {
    /// From voxels to a bird's-eye map.
    pub fn front(&self) -> FrontSpec<'_> {
        match self {
            Self::Pillar(net) => FrontSpec::Pillar { vfe_filters: &net.vfe_filters },
            Self::Voxel(net) => FrontSpec::Voxel(&net.backbone_3d),
        }
    }

    /// The 2-D backbone.
    pub fn backbone_2d(&self) -> &BackboneSpec {
        match self {
            Self::Pillar(net) => &net.backbone_2d,
            Self::Voxel(net) => &net.backbone_2d,
        }
    }

    /// From the 2-D backbone's map to boxes.
    pub fn head(&self) -> HeadSpec {
        match self {
            Self::Pillar(PillarNetSpec { head_channels, .. }) | Self::Voxel(VoxelNetSpec { head_channels, .. }) => {
                HeadSpec::Center { channels: *head_channels }
            }
        }
    }

    /// Input cells along one edge of a cell of the head's maps: what comes after the front end keeps its resolution.
    pub fn stride(&self) -> usize {
        match self.front() {
            FrontSpec::Pillar { .. } => 1,
            FrontSpec::Voxel(_) => STRIDE_3D as usize,
        }
    }

    /// What the number of cells along x and y must be a multiple of, for every map to be whole; `None` for absurd strides.
    pub fn cell_multiple(&self) -> Option<i64> {
        let strides = &self.backbone_2d().strides;
        strides.iter().copied().try_fold(self.stride() as i64, i64::checked_mul).filter(|product| *product > 0)
    }

    pub(super) fn check(&self, grid: &Grid, rule: Rule<'_>) {
        let family = match self {
            Self::Pillar(_) => "pillar",
            Self::Voxel(_) => "voxel",
        };
        let prefix = format!("network.{family}");
        match self.front() {
            FrontSpec::Pillar { vfe_filters } => check_pillars(vfe_filters, &prefix, grid, rule),
            FrontSpec::Voxel(backbone) => backbone.check(&prefix, grid, rule),
        }
        match self.head() {
            HeadSpec::Center { channels } => check_channels([&channels], &format!("{prefix}.head_channels"), rule),
        }
        if !self.backbone_2d().check(&format!("{prefix}.backbone_2d"), rule) {
            return;
        }
        let Some(multiple) = self.cell_multiple() else { return };
        for axis in 0..2 {
            let cells = grid.shape[axis];
            let in_words = format!("cells must be a multiple of the strides' product {multiple}");
            rule(cells as i64 % multiple == 0, "grid.range", &cells, &in_words);
        }
    }
}

fn check_channels<'a>(counts: impl IntoIterator<Item = &'a i64>, key: &str, rule: Rule<'_>) {
    for count in counts {
        rule((1..=MAX_CHANNELS).contains(count), key, count, &format!("channels are 1 to {MAX_CHANNELS}"));
    }
}

fn check_pillars(vfe_filters: &[i64], prefix: &str, grid: &Grid, rule: Rule<'_>) {
    let key = format!("{prefix}.vfe_filters");
    rule(vfe_filters.len() == 2, &key, &vfe_filters, "needs two layers");
    check_channels(vfe_filters, &key, rule);
    rule(vfe_filters.first().is_none_or(|c| c % 2 == 0), &key, &vfe_filters, "the first layer's count must be even");
    rule(grid.shape[2] == 1, "grid.voxel_size", &grid.voxel_size, "pillars need exactly one cell along z");
}

impl Backbone3dSpec {
    /// Heights of the bird's-eye map's cells, whose channels are joined there: what is left of `nz` cells along z; 0 when there are
    /// too few. The reference adds one cell to the grid along z.
    pub fn heights(&self, nz: usize) -> i64 {
        let strided = |n: i64, padding: i64| if n + 2 * padding < 3 { 0 } else { (n + 2 * padding - 3) / 2 + 1 };
        let third = strided(strided(nz as i64 + 1, 1), 1);
        strided(strided(third, 0), 0)
    }

    fn check(&self, prefix: &str, grid: &Grid, rule: Rule<'_>) {
        let key = format!("{prefix}.backbone_3d");
        check_channels(&self.channels, &key, rule);
        let blocks = self.blocks.iter().all(|n| (1..=MAX_LAYERS).contains(n));
        rule(blocks, &key, &self.blocks, &format!("1 to {MAX_LAYERS} blocks a stage"));
        let same = !self.residual || self.channels[0] == self.channels[1];
        rule(
            same,
            &key,
            &self.channels,
            "the first stage's residual blocks add what the first convolution gives: the same channels",
        );
        let enough = self.heights(grid.shape[2]) > 0;
        rule(
            enough,
            "grid.voxel_size",
            &grid.shape[2],
            "too few cells along z for a 3-D backbone: nothing is left after its strides",
        );
    }
}

impl BackboneSpec {
    /// Returns whether the strides are within their limits.
    fn check(&self, key: &str, rule: Rule<'_>) -> bool {
        let n = self.layer_nums.len();
        let lengths = [self.strides.len(), self.filters.len(), self.upsample_strides.len(), self.upsample_filters.len()];
        rule(n <= MAX_BLOCKS, key, &n, &format!("at most {MAX_BLOCKS} blocks"));
        rule(n > 0 && lengths.iter().all(|len| *len == n), key, &lengths, "every list needs one entry per block");
        check_channels(self.filters.iter().chain(&self.upsample_filters), key, rule);
        let layers = self.layer_nums.iter().all(|layers| *layers <= MAX_LAYERS);
        rule(layers, key, &self.layer_nums, &format!("at most {MAX_LAYERS} layers a block"));
        self.check_strides(key, rule).is_some()
    }

    /// The product of the strides; `None` when it is over its limit, which is then the last rule named.
    fn check_strides(&self, key: &str, rule: Rule<'_>) -> Option<i64> {
        let mut total = 1i64;
        for (stride, up) in self.strides.iter().zip(&self.upsample_strides) {
            rule((1..=8).contains(stride), key, stride, "strides are 1 to 8");
            let product = total.checked_mul((*stride).clamp(1, 8)).filter(|product| *product <= MAX_TOTAL_STRIDE);
            rule(product.is_some(), key, &self.strides, &format!("the product of the strides is at most {MAX_TOTAL_STRIDE}"));
            total = product?;
            rule(total == *up, key, up, &format!("upsample_stride must undo the strides so far ({total})"));
        }
        Some(total)
    }
}
