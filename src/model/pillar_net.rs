//! CP-Pillar and its students, layer by layer as the reference runs them. Training and parity use this one; the node uses
//! [`super::fused`], which must agree with it.

use tch::Tensor;

use tch::Kind;

use super::backbone::{Backbone, BackboneTrace};
use super::center_head::{CenterHead, HeadMaps};
use super::layers::{BatchNorm, Mode};
use super::params::Params;
use super::pillar_vfe::{PaddedVoxels, PillarVfe, VfeTrace, scatter, scatter_channels_last};
use super::spec::{ModelSpec, NetworkSpec};
use crate::voxel::Grid;

/// The plain network.
#[derive(Debug)]
pub struct PillarNet {
    /// Points to pillar features.
    pub vfe: PillarVfe,
    /// The 2-D part.
    pub backbone: Backbone,
    /// Heat map and boxes.
    pub head: CenterHead,
    grid: Grid,
}

/// Everything a forward pass met, for parity and distillation.
#[derive(Debug)]
pub struct PillarNetTrace {
    /// Pillar features.
    pub vfe: VfeTrace,
    /// `[B, C, H, W]`.
    pub spatial_features: Tensor,
    /// The 2-D part.
    pub backbone: BackboneTrace,
    /// Raw head outputs.
    pub head: HeadMaps,
}

impl PillarNet {
    /// Builds the network of a spec from named tensors.
    pub fn new(params: &Params<'_>, spec: &ModelSpec) -> Self {
        let NetworkSpec::Pillar(net) = &spec.network;
        let grid = spec.grid();
        let c_pillar = net.vfe_filters[net.vfe_filters.len() - 1];
        Self {
            vfe: PillarVfe::new(params, &grid, spec.input.features.len(), &net.vfe_filters),
            backbone: Backbone::new(params, &net.backbone_2d, c_pillar),
            head: CenterHead::new(params, net.backbone_2d.upsample_filters.iter().sum(), net.head_channels, spec.classes.len()),
            grid,
        }
    }

    /// A batch of pillars through all layers.
    pub fn forward(&self, pillars: &PaddedVoxels, mode: Mode) -> PillarNetTrace {
        let vfe = self.vfe.forward(pillars, mode);
        let spatial_features = scatter(&vfe.pillar_features, &pillars.coords, pillars.batch_size, &self.grid);
        let backbone = self.backbone.forward(&spatial_features, mode);
        let head = self.head.forward(&backbone.spatial_features_2d, mode);
        PillarNetTrace { vfe, spatial_features, backbone, head }
    }

    /// The head maps of [`PillarNet::forward`] in f32, computed faster; gradients flow through both. This is what training runs.
    ///
    /// Pillar features are always f32. `kind` is the element type of the 2-D part, whose weights stay f32: `Float`, or `BFloat16`
    /// for processors and GPUs that multiply it faster. `shared` of the result is of that type.
    pub fn forward_fast(&self, pillars: &PaddedVoxels, mode: Mode, kind: Kind) -> HeadMaps {
        let features = self.vfe.forward_flat(pillars, mode).to_kind(kind); // [P, C]
        let map = scatter_channels_last(&features, &pillars.coords, pillars.batch_size, &self.grid);
        let maps = self.head.forward(&self.backbone.forward(&map, mode).spatial_features_2d, mode);
        let [heat_map, regression] = [maps.heat_map, maps.regression].map(|map| map.to_kind(Kind::Float));
        HeadMaps { heat_map, regression, ..maps }
    }

    /// All batch norms in the order of the reference's state dict.
    pub fn norms(&self) -> Vec<&BatchNorm> {
        let vfe = self.vfe.layers.iter().map(|layer| &layer.norm);
        let convs = self.backbone.blocks.iter().flat_map(|block| block.convs.iter().map(|conv| &conv.norm));
        let deconvs = self.backbone.blocks.iter().map(|block| &block.deconv.norm);
        let branches = self.head.regression.iter().chain([&self.head.heat_map]).map(|branch| &branch.hidden.norm);
        vfe.chain(convs).chain(deconvs).chain([&self.head.shared.norm]).chain(branches).collect()
    }
}
