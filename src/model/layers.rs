//! The layers the networks are made of, as the reference defines them. Plain and unfused: training and parity run these.

use tch::{Tensor, no_grad};

use super::params::Params;

/// Whether batch norm uses its running statistics or those of the batch (and updates the running ones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Running statistics.
    Eval,
    /// Statistics of the batch.
    Train,
}

/// Epsilon and momentum of a batch norm; momentum is the share of the new batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSettings {
    /// Added to the variance.
    pub eps: f64,
    /// Share of the batch in the updated running statistics.
    pub momentum: f64,
}

/// Of the VFE and the backbones.
pub const BACKBONE_NORM: NormSettings = NormSettings { eps: 1e-3, momentum: 0.01 };
/// Of the centre head: the framework's defaults, which the reference leaves in place there.
pub const HEAD_NORM: NormSettings = NormSettings { eps: 1e-5, momentum: 0.1 };

/// Batch norm over axis 1.
#[derive(Debug)]
pub struct BatchNorm {
    /// `[C]`.
    pub weight: Tensor,
    /// `[C]`.
    pub bias: Tensor,
    /// `[C]`.
    pub running_mean: Tensor,
    /// `[C]`.
    pub running_var: Tensor,
    /// Epsilon and momentum.
    pub settings: NormSettings,
}

impl BatchNorm {
    /// Takes `{path}.weight`, `.bias`, `.running_mean`, `.running_var`.
    pub fn new(params: &Params<'_>, path: &str, channels: i64, settings: NormSettings) -> Self {
        let take = |name: &str| params.take(&format!("{path}.{name}"), &[channels]);
        Self {
            weight: take("weight"),
            bias: take("bias"),
            running_mean: take("running_mean"),
            running_var: take("running_var"),
            settings,
        }
    }

    /// # Shapes
    /// - `x`: `[B, C, ...]`, same out
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Mode::Train,
            self.settings.momentum,
            self.settings.eps,
            true,
        )
    }

    /// What the layer is in [`Mode::Train`] for a batch of `n` values a channel whose mean and biased variance (`[C]`) are known:
    /// `y = scale * x + shift`. Updates the running statistics.
    pub fn scale_and_shift_of_batch(&self, mean: &Tensor, variance: &Tensor, n: f64) -> (Tensor, Tensor) {
        no_grad(|| {
            let unbiased = variance.detach() * (n / (n - 1.0).max(1.0));
            let _ = self.running_mean.shallow_clone().lerp_(&mean.detach(), self.settings.momentum);
            let _ = self.running_var.shallow_clone().lerp_(&unbiased, self.settings.momentum);
        });
        let scale = &self.weight / (variance + self.settings.eps).sqrt();
        let shift = &self.bias - mean * &scale;
        (scale, shift)
    }

    /// What the layer is in [`Mode::Eval`]: `y = scale * x + shift`, both `[C]`.
    pub fn scale_and_shift(&self) -> (Tensor, Tensor) {
        let scale = &self.weight / (&self.running_var + self.settings.eps).sqrt();
        let shift = &self.bias - &self.running_mean * &scale;
        (scale, shift)
    }
}

/// 3x3 convolution with padding 1, batch norm, ReLU. It computes in the element type of its input; its weights and norm stay f32.
#[derive(Debug)]
pub struct ConvNormRelu {
    /// `[Cout, Cin, 3, 3]`.
    pub weight: Tensor,
    /// `[Cout]`, in the head only.
    pub bias: Option<Tensor>,
    /// Of both axes.
    pub stride: i64,
    /// After the convolution.
    pub norm: BatchNorm,
}

impl ConvNormRelu {
    /// # Shapes
    /// - `x`: `[B, Cin, H, W]` to `[B, Cout, H / stride, W / stride]`
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = conv3x3(x, &self.weight, self.bias.as_ref(), self.stride);
        self.norm.forward(&x, mode).relu()
    }
}

/// Transposed convolution with kernel = stride, batch norm, ReLU. It computes in the element type of its input; its weights and norm
/// stay f32.
#[derive(Debug)]
pub struct DeconvNormRelu {
    /// `[Cin, Cout, stride, stride]`.
    pub weight: Tensor,
    /// Of both axes; also the kernel's edge.
    pub stride: i64,
    /// After the convolution.
    pub norm: BatchNorm,
}

impl DeconvNormRelu {
    /// # Shapes
    /// - `x`: `[B, Cin, H, W]` to `[B, Cout, H * stride, W * stride]`
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let stride = [self.stride, self.stride];
        let x = x.conv_transpose2d(&self.weight.to_kind(x.kind()), None::<&Tensor>, stride, [0, 0], [0, 0], 1, [1, 1]);
        self.norm.forward(&x, mode).relu()
    }
}

/// 3x3 convolution with padding 1, in the element type of `x`.
///
/// # Shapes
/// - `x`: `[B, Cin, H, W]`; `weight`: `[Cout, Cin, 3, 3]`; `bias`: `[Cout]`
pub fn conv3x3(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64) -> Tensor {
    let kind = x.kind();
    let bias = bias.map(|bias| bias.to_kind(kind));
    x.conv2d(&weight.to_kind(kind), bias.as_ref(), [stride, stride], [1, 1], [1, 1], 1)
}
