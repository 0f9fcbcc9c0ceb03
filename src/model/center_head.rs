//! CenterHead: a heat map per class and the box at each cell (sparsekd-spec section 2.4).

use tch::Tensor;

use super::layers::{BatchNorm, ConvNormRelu, HEAD_NORM, Mode, conv3x3};
use super::params::Params;

/// Names and channels of the regression branches, in the order of the reference's prediction vector.
pub const REGRESSION_BRANCHES: [(&str, i64); 4] = [("center", 2), ("center_z", 1), ("dim", 3), ("rot", 2)];

/// One branch: convolution block, then a convolution to its outputs.
#[derive(Debug)]
pub struct Branch {
    /// Keeps the channels.
    pub hidden: ConvNormRelu,
    /// `[n, C, 3, 3]`.
    pub weight: Tensor,
    /// `[n]`.
    pub bias: Tensor,
}

/// The head of one class group.
#[derive(Debug)]
pub struct CenterHead {
    /// Before all branches.
    pub shared: ConvNormRelu,
    /// In the order of [`REGRESSION_BRANCHES`].
    pub regression: [Branch; 4],
    /// The heat map.
    pub heat_map: Branch,
}

/// Raw outputs of the head.
#[derive(Debug)]
pub struct HeadMaps {
    /// `[B, C, H, W]`: after the shared convolution.
    pub shared: Tensor,
    /// `[B, K, H, W]` logits.
    pub heat_map: Tensor,
    /// `[B, 8, H, W]`: offset in cells (2), z in metres, log of length, width, height in metres (3), cos and sin of yaw.
    pub regression: Tensor,
}

impl CenterHead {
    /// Takes `dense_head.*`.
    pub fn new(params: &Params<'_>, c_in: i64, channels: i64, n_classes: usize) -> Self {
        let conv = |path: &str, c_in: i64| ConvNormRelu {
            weight: params.take(&format!("{path}.0.weight"), &[channels, c_in, 3, 3]),
            bias: Some(params.take(&format!("{path}.0.bias"), &[channels])),
            stride: 1,
            norm: BatchNorm::new(params, &format!("{path}.1"), channels, HEAD_NORM),
        };
        let branch = |name: &str, outputs: i64| {
            let path = format!("dense_head.heads_list.0.{name}");
            Branch {
                hidden: conv(&format!("{path}.0"), channels),
                weight: params.take(&format!("{path}.1.weight"), &[outputs, channels, 3, 3]),
                bias: params.take(&format!("{path}.1.bias"), &[outputs]),
            }
        };
        let shared = conv("dense_head.shared_conv", c_in);
        let regression = REGRESSION_BRANCHES.map(|(name, outputs)| branch(name, outputs));
        Self { shared, regression, heat_map: branch("hm", n_classes as i64) }
    }

    /// # Shapes
    /// - `x`: `[B, C, H, W]`
    pub fn forward(&self, x: &Tensor, mode: Mode) -> HeadMaps {
        let shared = self.shared.forward(x, mode);
        let regression = self.regression.each_ref().map(|branch| branch.forward(&shared, mode));
        HeadMaps { heat_map: self.heat_map.forward(&shared, mode), regression: Tensor::cat(&regression, 1), shared }
    }
}

impl Branch {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        conv3x3(&self.hidden.forward(x, mode), &self.weight, Some(&self.bias), 1)
    }
}
