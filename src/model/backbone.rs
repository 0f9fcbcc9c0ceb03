//! BaseBEVBackbone: strided blocks, each brought back to full resolution and concatenated (sparsekd-spec section 2.3).

use tch::Tensor;

use super::layers::{BACKBONE_NORM, BatchNorm, ConvNormRelu, DeconvNormRelu, Mode};
use super::params::Params;
use super::spec::BackboneSpec;

/// One resolution: its convolutions and the way back up.
#[derive(Debug)]
pub struct Block {
    /// The strided first one and the others.
    pub convs: Vec<ConvNormRelu>,
    /// To the resolution of the map.
    pub deconv: DeconvNormRelu,
}

/// The 2-D backbone.
#[derive(Debug)]
pub struct Backbone {
    /// In order of falling resolution.
    pub blocks: Vec<Block>,
}

/// The concatenated map, and each block's output on the way.
#[derive(Debug)]
pub struct BackboneTrace {
    /// `[B, C, H / s, W / s]` of each block, before its transposed convolution.
    pub blocks: Vec<Tensor>,
    /// `[B, sum of upsample_filters, H, W]`.
    pub spatial_features_2d: Tensor,
}

impl Backbone {
    /// Takes `backbone_2d.blocks.*` and `backbone_2d.deblocks.*`.
    ///
    /// Indices follow the reference's `Sequential`s: 0 is a padding layer without weights, then convolution, norm and ReLU in
    /// steps of three.
    pub fn new(params: &Params<'_>, spec: &BackboneSpec, c_in: i64) -> Self {
        let mut c_in = c_in;
        let mut convs_of_blocks = Vec::new();
        for (block_idx, &filters) in spec.filters.iter().enumerate() {
            let mut convs = Vec::new();
            for layer_idx in 0..=spec.layer_nums[block_idx] {
                let path = format!("backbone_2d.blocks.{block_idx}");
                convs.push(ConvNormRelu {
                    weight: params.take(&format!("{path}.{}.weight", 1 + 3 * layer_idx), &[filters, c_in, 3, 3]),
                    bias: None,
                    stride: if layer_idx == 0 { spec.strides[block_idx] } else { 1 },
                    norm: BatchNorm::new(params, &format!("{path}.{}", 2 + 3 * layer_idx), filters, BACKBONE_NORM),
                });
                c_in = filters;
            }
            convs_of_blocks.push(convs);
        }
        let blocks = convs_of_blocks.into_iter().enumerate().map(|(block_idx, convs)| {
            let path = format!("backbone_2d.deblocks.{block_idx}");
            let (stride, c_out) = (spec.upsample_strides[block_idx], spec.upsample_filters[block_idx]);
            let deconv = DeconvNormRelu {
                weight: params.take(&format!("{path}.0.weight"), &[spec.filters[block_idx], c_out, stride, stride]),
                stride,
                norm: BatchNorm::new(params, &format!("{path}.1"), c_out, BACKBONE_NORM),
            };
            Block { convs, deconv }
        });
        Self { blocks: blocks.collect() }
    }

    /// # Shapes
    /// - `x`: `[B, C, H, W]` with H and W multiples of the strides' product
    pub fn forward(&self, x: &Tensor, mode: Mode) -> BackboneTrace {
        let mut x = x.shallow_clone();
        let mut blocks = Vec::new();
        let mut upsampled = Vec::new();
        for block in &self.blocks {
            for conv in &block.convs {
                x = conv.forward(&x, mode);
            }
            upsampled.push(block.deconv.forward(&x, mode));
            blocks.push(x.shallow_clone());
        }
        BackboneTrace { blocks, spatial_features_2d: Tensor::cat(&upsampled, 1) }
    }
}
