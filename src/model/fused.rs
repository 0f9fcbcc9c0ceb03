//! The same network as [`super::pillar_net`], arranged for inference.
//!
//! - Batch norm is folded into the layer before it.
//! - Maps are channels-last, optionally bf16.
//! - Padded slots are not computed: a slot of zeros leaves the first layer as the constant ReLU(shift), so one more candidate
//!   in the maximum of a pillar that is not full replaces all of its padded slots.
//! - ReLU and the addition of a per-pillar constant commute with the maximum over slots, so the second layer multiplies the
//!   points' half of its input once per point and the pillar's half once per pillar.
//! - The blocks' upsampled maps are never concatenated: a convolution over them is the sum of convolutions over each.
//! - On a CPU, f32 convolutions of many channels multiply less (`winograd`).
//! - The regression branches are computed at the heat map's peaks only; nothing else is read from their maps.

use tch::{Device, IndexOp, Kind, Tensor};

use super::center_head::{Branch, CenterHead};
use super::layers::{BatchNorm, ConvNormRelu, DeconvNormRelu};
use super::pillar_net::PillarNet;
use super::pillar_vfe::PillarVfe;
use super::segment::{decorate, segment_max};
use super::winograd::{self, WinogradConv};
use crate::voxel::{Grid, VoxelTensors};

/// A convolution with its norm folded in, followed by ReLU.
#[derive(Debug)]
enum FusedConv {
    Direct { weight: Tensor, bias: Tensor, stride: i64 },
    Winograd(WinogradConv),
}

/// A transposed convolution with its norm folded in, followed by ReLU.
#[derive(Debug)]
struct FusedDeconv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
}

#[derive(Debug)]
struct FusedVfe {
    /// `[D + 6, C1]` and `[C1]`.
    first: (Tensor, Tensor),
    /// `[C1, C2]`: the points' half of the second layer.
    second_of_point: Tensor,
    /// `[C1, C2]` and `[C2]`: the pillar's half.
    second_of_pillar: (Tensor, Tensor),
    /// `[1, C1]` and `[1, C2]`: what a padded slot contributes to the two maxima.
    padded: (Tensor, Tensor),
}

/// The fused network of one spec on one device.
#[derive(Debug)]
pub struct FusedPillarNet {
    vfe: FusedVfe,
    blocks: Vec<(Vec<FusedConv>, FusedDeconv)>,
    /// The shared convolution's weight, cut along its input channels by block, and its bias.
    shared: (Vec<Tensor>, Tensor),
    heat_map: (FusedConv, Tensor, Tensor),
    /// All regression branches' first convolutions side by side: `[4 C, C, 3, 3]`.
    regression_hidden: (Tensor, Tensor),
    /// Block-diagonal: `[8, 4 C, 3, 3]`.
    regression_out: (Tensor, Tensor),
    grid: Grid,
    slots: Option<i64>,
    kind: Kind,
}

impl FusedPillarNet {
    /// Folds a plain network. `slots` is the cap of points per pillar, `None` for dynamic voxelisation; `kind` is that of the maps.
    pub fn new(net: &PillarNet, grid: &Grid, slots: Option<usize>, kind: Kind) -> Self {
        let blocks = net.backbone.blocks.iter().map(|block| {
            let convs = block.convs.iter().map(|conv| fuse_conv(conv, kind)).collect();
            (convs, fuse_deconv(&block.deconv, kind))
        });
        let CenterHead { shared, regression, heat_map } = &net.head;
        let hidden = regression.each_ref().map(|branch| fold(&branch.hidden));
        let cat = |parts: Vec<Tensor>| Tensor::cat(&parts, 0);
        Self {
            vfe: fuse_vfe(&net.vfe),
            blocks: blocks.collect(),
            shared: split_shared(shared, net, kind),
            heat_map: (
                fuse_conv(&heat_map.hidden, kind),
                channels_last(&heat_map.weight).to_kind(kind),
                heat_map.bias.to_kind(kind),
            ),
            regression_hidden: (
                cat(hidden.iter().map(|(weight, _)| weight.to_kind(kind)).collect()),
                cat(hidden.iter().map(|(_, bias)| bias.to_kind(kind)).collect()),
            ),
            regression_out: (
                block_diagonal(regression).to_kind(kind),
                cat(regression.iter().map(|branch| branch.bias.to_kind(kind)).collect()),
            ),
            grid: grid.clone(),
            slots: slots.map(|cap| cap as i64),
            kind,
        }
    }

    /// Features of each pillar.
    ///
    /// # Shapes
    /// - out: `[P, C]` f32
    pub fn pillar_features(&self, pillars: &VoxelTensors) -> Tensor {
        let vfe = &self.vfe;
        let x = vfe.first.1.addmm(&decorate(pillars, &self.grid), &vfe.first.0).relu_(); // [N', C1]
        let has_padding = self.slots.map(|slots| pillars.num_points.lt(slots).unsqueeze(1));
        let with_padding = |highest: Tensor, constant: &Tensor| match &has_padding {
            Some(has_padding) => highest.maximum(constant).where_self(has_padding, &highest),
            None => highest,
        };
        let highest = with_padding(segment_max(&x, pillars), &vfe.padded.0); // [P, C1]
        let of_point = with_padding(segment_max(&x.matmul(&vfe.second_of_point), pillars), &vfe.padded.1); // [P, C2]
        (vfe.second_of_pillar.1.addmm(&highest, &vfe.second_of_pillar.0) + of_point).relu_()
    }

    /// Pillars to a bird's-eye map.
    ///
    /// # Shapes
    /// - `features`: `[P, C]`; out: `[1, C, H, W]` channels-last
    pub fn scatter(&self, features: &Tensor, pillars: &VoxelTensors) -> Tensor {
        let (w, h) = (self.grid.shape[0] as i64, self.grid.shape[1] as i64);
        let cell = pillars.coords.i((.., 1)) * w + pillars.coords.i((.., 2));
        let c = features.size()[1];
        let mut map = Tensor::zeros([h * w, c], (self.kind, features.device()));
        let _ = map.index_copy_(0, &cell, &features.to_kind(self.kind));
        map.view([1, h, w, c]).permute([0, 3, 1, 2])
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

    /// The head's shared map.
    ///
    /// # Shapes
    /// - `[1, C', H, W]` of each block to `[1, C, H, W]`
    pub fn shared(&self, features: &[Tensor]) -> Tensor {
        let (weights, bias) = &self.shared;
        let conv = |x: &Tensor, weight: &Tensor, bias: Option<&Tensor>| x.conv2d(weight, bias, [1, 1], [1, 1], [1, 1], 1);
        let mut sum = conv(&features[0], &weights[0], Some(bias));
        for (x, weight) in features[1..].iter().zip(&weights[1..]) {
            sum += conv(x, weight, None);
        }
        sum.relu_()
    }

    /// Heat-map logits.
    ///
    /// # Shapes
    /// - `shared`: `[1, C, H, W]`; out: `[K, H, W]` f32
    pub fn heat_map(&self, shared: &Tensor) -> Tensor {
        let (hidden, weight, bias) = &self.heat_map;
        let logits = hidden.forward(shared).conv2d(weight, Some(bias), [1, 1], [1, 1], [1, 1], 1);
        logits.squeeze_dim(0).to_kind(Kind::Float).contiguous()
    }

    /// Regression outputs at some cells, equal to reading the full maps there.
    ///
    /// An output cell depends on 3x3 hidden cells and those on 5x5 shared ones. Hidden cells beyond the border are the second
    /// convolution's zero padding, not what the first would give there.
    ///
    /// # Shapes
    /// - `shared`: `[1, C, H, W]`; `row`, `col`: `[M]` i64; out: `[M, 8]` f32
    pub fn regression_at(&self, shared: &Tensor, row: &Tensor, col: &Tensor) -> Tensor {
        let (_, c, h, w) = shared.size4().unwrap_or((0, 0, 0, 0));
        let device = shared.device();
        let m = row.size()[0];
        let padded = shared.permute([0, 2, 3, 1]).constant_pad_nd([0, 0, 2, 2, 2, 2]).view([(h + 4) * (w + 4), c]);
        let offset = Tensor::arange(5, (Kind::Int64, device));
        let rows = row.view([m, 1, 1]) + offset.view([1, 5, 1]);
        let cols = col.view([m, 1, 1]) + offset.view([1, 1, 5]);
        let cell = (rows * (w + 4) + cols).view([-1]);
        let patches = padded.index_select(0, &cell).view([m, 5, 5, c]).permute([0, 3, 1, 2]); // [M, C, 5, 5]
        let (weight, bias) = &self.regression_hidden;
        let hidden = patches.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1).relu_(); // [M, 4 C, 3, 3]
        let offset = Tensor::arange_start(-1, 2, (Kind::Int64, device));
        let inside = |at: &Tensor, size: i64| {
            let at = at.view([m, 1]) + offset.view([1, 3]);
            at.ge(0).logical_and(&at.lt(size))
        };
        let inside = inside(row, h).view([m, 1, 3, 1]).logical_and(&inside(col, w).view([m, 1, 1, 3]));
        let hidden = hidden * inside.to_kind(self.kind);
        let (weight, bias) = &self.regression_out;
        let out = hidden.conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1); // [M, 8, 1, 1]
        out.view([m, -1]).to_kind(Kind::Float)
    }

    /// Regression outputs at all cells, for a student that learns from them.
    ///
    /// # Shapes
    /// - `shared`: `[1, C, H, W]`; out: `[8, H, W]` f32
    pub fn regression(&self, shared: &Tensor) -> Tensor {
        let conv = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| x.conv2d(weight, Some(bias), [1, 1], [1, 1], [1, 1], 1);
        let hidden = conv(shared, &self.regression_hidden).relu_();
        conv(&hidden, &self.regression_out).squeeze_dim(0).to_kind(Kind::Float).contiguous()
    }

    /// Where its tensors live.
    pub fn device(&self) -> Device {
        self.shared.1.device()
    }
}

impl FusedConv {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut map = match self {
            Self::Direct { weight, bias, stride } => x.conv2d(weight, Some(bias), [*stride, *stride], [1, 1], [1, 1], 1),
            Self::Winograd(conv) => conv.forward(x),
        };
        map.relu_()
    }
}

impl FusedDeconv {
    fn forward(&self, x: &Tensor) -> Tensor {
        let stride = [self.stride, self.stride];
        x.conv_transpose2d(&self.weight, Some(&self.bias), stride, [0, 0], [0, 0], 1, [1, 1]).relu_()
    }
}

/// Weight and bias of a convolution with its norm folded in.
fn fold(conv: &ConvNormRelu) -> (Tensor, Tensor) {
    let (scale, shift) = conv.norm.scale_and_shift();
    let bias = match &conv.bias {
        Some(bias) => bias * &scale + shift,
        None => shift,
    };
    (&conv.weight * scale.view([-1, 1, 1, 1]), bias)
}

fn fuse_conv(conv: &ConvNormRelu, kind: Kind) -> FusedConv {
    let (weight, bias) = fold(conv);
    let (c_out, c_in, ..) = weight.size4().unwrap_or_default();
    if weight.device() == Device::Cpu && kind == Kind::Float && conv.stride == 1 && c_in.min(c_out) >= winograd::MIN_CHANNELS {
        return FusedConv::Winograd(WinogradConv::new(&weight, &bias));
    }
    FusedConv::Direct { weight: channels_last(&weight).to_kind(kind), bias: bias.to_kind(kind), stride: conv.stride }
}

/// The shared convolution's weight cut along its input channels, one part for each block of the backbone.
fn split_shared(shared: &ConvNormRelu, net: &PillarNet, kind: Kind) -> (Vec<Tensor>, Tensor) {
    let (weight, bias) = fold(shared);
    let channels: Vec<i64> = net.backbone.blocks.iter().map(|block| block.deconv.weight.size()[1]).collect();
    let parts = weight.split_with_sizes(&channels[..], 1);
    (parts.iter().map(|part| channels_last(part).to_kind(kind)).collect(), bias.to_kind(kind))
}

fn fuse_deconv(deconv: &DeconvNormRelu, kind: Kind) -> FusedDeconv {
    let (scale, shift) = deconv.norm.scale_and_shift();
    let weight = channels_last(&(&deconv.weight * scale.view([1, -1, 1, 1])));
    FusedDeconv { weight: weight.to_kind(kind), bias: shift.to_kind(kind), stride: deconv.stride }
}

fn fuse_vfe(vfe: &PillarVfe) -> FusedVfe {
    let fold = |linear: &Tensor, norm: &BatchNorm| {
        let (scale, shift) = norm.scale_and_shift();
        ((linear * scale.view([-1, 1])).transpose(0, 1).contiguous(), shift)
    };
    let [first, second] = &vfe.layers;
    let first = fold(&first.linear, &first.norm);
    let (second, shift) = fold(&second.linear, &second.norm);
    let c1 = first.1.size()[0];
    let second_of_point = second.i((..c1, ..)).contiguous();
    let padded_first = first.1.relu().unsqueeze(0);
    let padded_second = padded_first.matmul(&second_of_point);
    FusedVfe {
        first,
        second_of_point,
        second_of_pillar: (second.i((c1.., ..)).contiguous(), shift),
        padded: (padded_first, padded_second),
    }
}

/// The branches' second convolutions as one over their concatenated hidden maps.
fn block_diagonal(branches: &[Branch; 4]) -> Tensor {
    let c = branches[0].weight.size()[1];
    let (mut before, total) = (0, c * branches.len() as i64);
    let rows = branches.each_ref().map(|branch| {
        let row = branch.weight.constant_pad_nd([0, 0, 0, 0, before, total - before - c]);
        before += c;
        row
    });
    Tensor::cat(&rows, 0)
}

/// The same values with channels lying next to each other in memory.
fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
