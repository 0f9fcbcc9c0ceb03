//! Convolutions with their norm folded in, followed by ReLU.

use tch::{Device, Kind, Tensor};

use crate::model::layers::{ConvNormRelu, DeconvNormRelu};
use crate::model::winograd::{self, WinogradConv};

/// 3x3, padding 1.
#[derive(Debug)]
pub enum FusedConv {
    /// By libtorch.
    Direct {
        /// `[Cout, Cin, 3, 3]`.
        weight: Tensor,
        /// `[Cout]`.
        bias: Tensor,
        /// Of both axes.
        stride: i64,
    },
    /// With fewer multiplications.
    Winograd(WinogradConv),
}

/// Transposed, kernel = stride.
#[derive(Debug)]
pub struct FusedDeconv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
}

impl FusedConv {
    /// # Shapes
    /// - `x`: `[B, Cin, H, W]` to `[B, Cout, H / stride, W / stride]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut map = match self {
            Self::Direct { weight, bias, stride } => x.conv2d(weight, Some(bias), [*stride, *stride], [1, 1], [1, 1], 1),
            Self::Winograd(conv) => conv.forward(x),
        };
        map.relu_()
    }
}

impl FusedDeconv {
    /// # Shapes
    /// - `x`: `[B, Cin, H, W]` to `[B, Cout, H * stride, W * stride]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let stride = [self.stride, self.stride];
        x.conv_transpose2d(&self.weight, Some(&self.bias), stride, [0, 0], [0, 0], 1, [1, 1]).relu_()
    }
}

/// Weight and bias of a convolution with its norm folded in.
pub fn fold(conv: &ConvNormRelu) -> (Tensor, Tensor) {
    let (scale, shift) = conv.norm.scale_and_shift();
    let bias = match &conv.bias {
        Some(bias) => bias * &scale + shift,
        None => shift,
    };
    (&conv.weight * scale.view([-1, 1, 1, 1]), bias)
}

/// Folds a layer.
pub fn fuse(conv: &ConvNormRelu, kind: Kind) -> FusedConv {
    fuse_over(conv, |weight| weight, kind)
}

/// Folds a layer over a map whose channels lie in another order; `reorder` brings the weight's inputs into it.
pub fn fuse_over(conv: &ConvNormRelu, reorder: impl FnOnce(Tensor) -> Tensor, kind: Kind) -> FusedConv {
    let (weight, bias) = fold(conv);
    let weight = reorder(weight);
    let (c_out, c_in, ..) = weight.size4().unwrap_or_default();
    if weight.device() == Device::Cpu && kind == Kind::Float && conv.stride == 1 && c_in.min(c_out) >= winograd::MIN_CHANNELS {
        return FusedConv::Winograd(WinogradConv::new(&weight, &bias));
    }
    FusedConv::Direct { weight: channels_last(&weight).to_kind(kind), bias: bias.to_kind(kind), stride: conv.stride }
}

/// Folds a transposed layer.
pub fn fuse_transposed(deconv: &DeconvNormRelu, kind: Kind) -> FusedDeconv {
    let (scale, shift) = deconv.norm.scale_and_shift();
    let weight = channels_last(&(&deconv.weight * scale.view([1, -1, 1, 1])));
    FusedDeconv { weight: weight.to_kind(kind), bias: shift.to_kind(kind), stride: deconv.stride }
}

/// The same values with channels lying next to each other in memory.
pub fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
