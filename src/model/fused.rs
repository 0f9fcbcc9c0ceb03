//! The same network as [`super::net`], arranged for inference.
//!
//! - Batch norm is folded into the layer before it.
//! - Maps are channels-last, optionally bf16.
//! - Pillars: padded slots are not computed (`vfe`). Voxels: on a CPU the 3-D backbone works on plain rows (`backbone_3d`).
//! - The blocks' upsampled maps are never concatenated: a convolution over them is the sum of convolutions over each.
//! - On a CPU, f32 convolutions of many channels multiply less (`winograd`).
//! - The regression branches are computed at the heat map's peaks only; nothing else is read from their maps (`center_head`).

mod backbone_3d;
mod center_head;
mod conv;
mod vfe;

use tch::{Device, IndexOp, Kind, Tensor};

use super::net::{Front, Net};
use super::segment::segment_mean;
use crate::voxel::{Grid, VoxelTensors};
use backbone_3d::FusedBackbone3d;
pub use backbone_3d::SparseFeatures;
pub use center_head::FusedCenterHead;
use conv::{FusedConv, FusedDeconv};
use vfe::FusedVfe;

/// The fused network of one spec on one device.
#[derive(Debug)]
pub struct FusedNet {
    front: FusedFront,
    blocks: Vec<(Vec<FusedConv>, FusedDeconv)>,
    /// From the blocks' maps to boxes.
    pub head: FusedCenterHead,
    grid: Grid,
    kind: Kind,
}

#[derive(Debug)]
enum FusedFront {
    Pillar(FusedVfe),
    Voxel(FusedBackbone3d),
}

/// What lies on the ground before it is written into a map.
#[derive(Debug)]
pub enum Encoded {
    /// `[P, C]`: features of pillars, as the VFE gives them.
    Pillars(Tensor),
    /// Features of the 3-D backbone's last sites.
    Sparse(SparseFeatures),
}

impl FusedNet {
    /// Folds a plain network. `slots` is the cap of points per voxel, `None` for dynamic voxelisation; `kind` is that of the maps.
    pub fn new(net: &Net, grid: &Grid, slots: Option<usize>, kind: Kind) -> Self {
        let front = match &net.front {
            Front::Pillar(vfe) => FusedFront::Pillar(FusedVfe::new(vfe, slots)),
            Front::Voxel(backbone) => FusedFront::Voxel(FusedBackbone3d::new(backbone, kind)),
        };
        let blocks = net.backbone.blocks.iter().enumerate().map(|(block_idx, block)| {
            let fuse = |(conv_idx, layer)| match &front {
                FusedFront::Voxel(backbone) if (block_idx, conv_idx) == (0, 0) => {
                    conv::fuse_over(layer, |weight| backbone.heights_first(weight), kind)
                }
                _ => conv::fuse(layer, kind),
            };
            (block.convs.iter().enumerate().map(fuse).collect(), conv::fuse_transposed(&block.deconv, kind))
        });
        let blocks = blocks.collect();
        let widths: Vec<i64> = net.backbone.blocks.iter().map(|block| block.deconv.weight.size()[1]).collect();
        Self { front, blocks, head: FusedCenterHead::new(&net.head, &widths, kind), grid: grid.clone(), kind }
    }

    /// Features of each voxel: of pillars those of the VFE, else the mean of each column over the voxel's points.
    ///
    /// # Shapes
    /// - out: `[P, C]` f32
    pub fn voxel_features(&self, voxels: &VoxelTensors) -> Tensor {
        match &self.front {
            FusedFront::Pillar(vfe) => vfe.features(voxels, &self.grid),
            FusedFront::Voxel(_) => segment_mean(voxels),
        }
    }

    /// The 3-D backbone; nothing for pillars.
    ///
    /// # Shapes
    /// - `features`: `[P, C]` of [`Self::voxel_features`]
    pub fn encode(&self, features: Tensor, voxels: &VoxelTensors) -> Encoded {
        match &self.front {
            FusedFront::Pillar(_) => Encoded::Pillars(features),
            FusedFront::Voxel(backbone) => Encoded::Sparse(backbone.forward(&features, &voxels.coords)),
        }
    }

    /// The bird's-eye map.
    ///
    /// # Shapes
    /// - out: `[1, C, H, W]` channels-last. Of 3-D features the heights of a channel lie apart, not beside each other as in the
    ///   reference: a height's channels are written at once, and the first convolution of [`Self::backbone`] knows of it.
    pub fn map(&self, encoded: &Encoded, voxels: &VoxelTensors) -> Tensor {
        match encoded {
            Encoded::Sparse(features) => features.to_map(self.kind),
            Encoded::Pillars(features) => {
                let (w, h) = (self.grid.shape[0] as i64, self.grid.shape[1] as i64);
                let cell = voxels.coords.i((.., 1)) * w + voxels.coords.i((.., 2));
                let c = features.size()[1];
                let mut map = Tensor::zeros([h * w, c], (self.kind, features.device()));
                let _ = map.index_copy_(0, &cell, &features.to_kind(self.kind));
                map.view([1, h, w, c]).permute([0, 3, 1, 2])
            }
        }
    }

    /// All before the 2-D backbone.
    ///
    /// # Shapes
    /// - out: as of [`Self::map`]
    pub fn map_of(&self, voxels: &VoxelTensors) -> Tensor {
        self.map(&self.encode(self.voxel_features(voxels), voxels), voxels)
    }

    /// The 2-D backbone.
    ///
    /// # Shapes
    /// - `map`: `[1, C, H, W]`; out: `[1, C', H, W]` of each block, which the plain network concatenates
    pub fn backbone(&self, map: &Tensor) -> Vec<Tensor> {
        let mut x = map.shallow_clone();
        let mut upsampled = Vec::with_capacity(self.blocks.len());
        for (convs, deconv) in &self.blocks {
            for conv in convs {
                x = conv.forward(&x);
            }
            upsampled.push(deconv.forward(&x));
        }
        upsampled
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.head.device()
    }
}
