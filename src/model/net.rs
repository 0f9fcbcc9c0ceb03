//! A whole network, layer by layer as the reference runs it. Training and parity use this one; the node uses [`super::fused`], which must
//! agree with it.

use tch::{Device, Kind, Tensor};

use super::backbone::{Backbone, BackboneTrace};
use super::backbone_3d::{Backbone3d, ENCODED, SparseStage, Tape, compress_heights, expect_sparse, mean_features};
use super::center_head::{CenterHead, HeadMaps};
use super::layers::{BatchNorm, Mode};
use super::params::Params;
use super::pillar_vfe::{PaddedVoxels, PillarVfe, VfeTrace, scatter, scatter_channels_last};
use super::spec::{FrontSpec, HeadSpec, ModelSpec};
use crate::voxel::Grid;

/// The plain network.
#[derive(Debug)]
pub struct Net {
    /// Voxels to a bird's-eye map.
    pub front: Front,
    /// The 2-D part.
    pub backbone: Backbone,
    /// Heat map and boxes.
    pub head: CenterHead,
    grid: Grid,
}

/// From voxels to a bird's-eye map.
#[derive(Debug)]
pub enum Front {
    /// Pillar features, scattered.
    Pillar(PillarVfe),
    /// Means of voxels, 3-D features, heights joined.
    Voxel(Backbone3d),
}

/// Everything a forward pass met, for parity and distillation.
#[derive(Debug)]
pub struct NetTrace {
    /// Before the map.
    pub front: FrontTrace,
    /// `[B, C, H, W]`.
    pub spatial_features: Tensor,
    /// The 2-D part.
    pub backbone: BackboneTrace,
    /// Raw head outputs.
    pub head: HeadMaps,
}

/// What the front end met.
#[derive(Debug)]
pub enum FrontTrace {
    /// Pillar features.
    Pillar(VfeTrace),
    /// Features of voxels.
    Voxel {
        /// `[P, D]`: means.
        voxel_features: Tensor,
        /// In the order in which they run.
        stages: Vec<SparseStage>,
    },
}

/// What [`Net::forward_fast`] gives.
#[derive(Debug)]
pub struct FastPass {
    /// Raw head outputs, f32.
    pub maps: HeadMaps,
    /// Of a 3-D backbone on a CPU, which autograd does not see.
    tape: Option<Tape>,
}

impl FastPass {
    /// Adds the gradients of a loss over [`Self::maps`] to those of all weights. `loss.backward()` alone would end before a 3-D backbone.
    pub fn backward(&self, loss: &Tensor) {
        loss.backward();
        if let Some(tape) = &self.tape {
            expect_sparse(tape.backward());
        }
    }
}

impl NetTrace {
    /// `[P, C]`: features of pillars, or means of voxels.
    pub fn voxel_features(&self) -> &Tensor {
        match &self.front {
            FrontTrace::Pillar(vfe) => &vfe.pillar_features,
            FrontTrace::Voxel { voxel_features, .. } => voxel_features,
        }
    }
}

impl Net {
    /// Builds the network of a spec from named tensors.
    pub fn new(params: &Params<'_>, spec: &ModelSpec) -> Self {
        let (grid, n_features) = (spec.grid(), spec.input.features.len());
        let (front, c_map) = match spec.network.front() {
            FrontSpec::Pillar { vfe_filters } => {
                let vfe = PillarVfe::new(params, &grid, n_features, vfe_filters);
                (Front::Pillar(vfe), vfe_filters.last().copied().unwrap_or_default())
            }
            FrontSpec::Voxel(backbone) => {
                let c_map = backbone.channels[backbone.channels.len() - 1] * backbone.heights(grid.shape[2]);
                (Front::Voxel(Backbone3d::new(params, backbone, &grid, n_features)), c_map)
            }
        };
        let backbone_2d = spec.network.backbone_2d();
        let backbone = Backbone::new(params, backbone_2d, c_map);
        let HeadSpec::Center { channels } = spec.network.head();
        let head = CenterHead::new(params, backbone_2d.upsample_filters.iter().sum(), channels, spec.classes.len());
        Self { front, backbone, head, grid }
    }

    /// A batch of voxels through all layers.
    pub fn forward(&self, voxels: &PaddedVoxels, mode: Mode) -> NetTrace {
        let (front, spatial_features) = match &self.front {
            Front::Pillar(vfe) => {
                let vfe = vfe.forward(voxels, mode);
                let map = scatter(&vfe.pillar_features, &voxels.coords, voxels.batch_size, &self.grid);
                (FrontTrace::Pillar(vfe), map)
            }
            Front::Voxel(backbone) => {
                let voxel_features = mean_features(voxels);
                let stages = backbone.forward(&voxel_features, &voxels.coords, voxels.batch_size, mode);
                let map = encoded_map(&stages);
                (FrontTrace::Voxel { voxel_features, stages }, map)
            }
        };
        let backbone = self.backbone.forward(&spatial_features, mode);
        let head = self.head.forward(&backbone.spatial_features_2d, mode);
        NetTrace { front, spatial_features, backbone, head }
    }

    /// The head maps of [`Net::forward`] in f32, computed faster; [`FastPass::backward`] has the same gradients. This is what training
    /// runs.
    ///
    /// Pillar features and 3-D features are always f32. `kind` is the element type of the 2-D part, whose weights stay f32: `Float`, or
    /// `BFloat16` for processors and GPUs that multiply it faster. `shared` of the result is of that type.
    pub fn forward_fast(&self, voxels: &PaddedVoxels, mode: Mode, kind: Kind) -> FastPass {
        let mut tape = None;
        let map = match &self.front {
            Front::Pillar(vfe) => {
                let features = vfe.forward_flat(voxels, mode).to_kind(kind); // [P, C]
                scatter_channels_last(&features, &voxels.coords, voxels.batch_size, &self.grid)
            }
            Front::Voxel(backbone) if voxels.voxels.device() == Device::Cpu => {
                let features = mean_features(voxels);
                let pass = expect_sparse(Tape::forward(backbone, &features, &voxels.coords, voxels.batch_size, mode));
                expect_sparse(tape.insert(pass).map()).to_kind(kind)
            }
            Front::Voxel(backbone) => {
                let stages = backbone.forward(&mean_features(voxels), &voxels.coords, voxels.batch_size, mode);
                encoded_map(&stages).to_kind(kind)
            }
        };
        let maps = self.head.forward(&self.backbone.forward(&map, mode).spatial_features_2d, mode);
        let [heat_map, regression] = [maps.heat_map, maps.regression].map(|map| map.to_kind(Kind::Float));
        FastPass { maps: HeadMaps { heat_map, regression, ..maps }, tape }
    }

    /// All batch norms in the order of the reference's state dict.
    pub fn norms(&self) -> Vec<&BatchNorm> {
        let front: Vec<&BatchNorm> = match &self.front {
            Front::Pillar(vfe) => vfe.layers.iter().map(|layer| &layer.norm).collect(),
            Front::Voxel(backbone) => backbone.layers.iter().map(|layer| &layer.norm).collect(),
        };
        let convs = self.backbone.blocks.iter().flat_map(|block| block.convs.iter().map(|conv| &conv.norm));
        let deconvs = self.backbone.blocks.iter().map(|block| &block.deconv.norm);
        let branches = self.head.regression.iter().chain([&self.head.heat_map]).map(|branch| &branch.hidden.norm);
        front.into_iter().chain(convs).chain(deconvs).chain([&self.head.shared.norm]).chain(branches).collect()
    }
}

/// The bird's-eye map of a 3-D backbone's last stage.
fn encoded_map(stages: &[SparseStage]) -> Tensor {
    let encoded = stages.iter().find(|stage| stage.name == ENCODED);
    compress_heights(encoded.unwrap_or_else(|| panic!("a 3-D backbone without a stage `{ENCODED}`")))
}
