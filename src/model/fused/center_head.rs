//! CenterHead at the places that count.

use tch::{Device, Kind, Tensor};

use super::conv::{FusedConv, channels_last, fold, fuse};
use crate::model::center_head::{Branch, CenterHead};
use crate::model::layers::ConvNormRelu;

/// The centre head with its norms folded in.
#[derive(Debug)]
pub struct FusedCenterHead {
    /// The shared convolution's weight, cut along its input channels by block, and its bias.
    shared: (Vec<Tensor>, Tensor),
    heat_map: (FusedConv, Tensor, Tensor),
    /// All regression branches' first convolutions side by side: `[4 C, C, 3, 3]`.
    regression_hidden: (Tensor, Tensor),
    /// Block-diagonal: `[8, 4 C, 3, 3]`.
    regression_out: (Tensor, Tensor),
    kind: Kind,
}

impl FusedCenterHead {
    /// Folds a plain one over maps of these channels.
    pub fn new(head: &CenterHead, widths: &[i64], kind: Kind) -> Self {
        let CenterHead { shared, regression, heat_map } = head;
        let hidden = regression.each_ref().map(|branch| fold(&branch.hidden));
        let cat = |parts: Vec<Tensor>| Tensor::cat(&parts, 0);
        Self {
            shared: split_shared(shared, widths, kind),
            heat_map: (fuse(&heat_map.hidden, kind), channels_last(&heat_map.weight).to_kind(kind), heat_map.bias.to_kind(kind)),
            regression_hidden: (
                cat(hidden.iter().map(|(weight, _)| weight.to_kind(kind)).collect()),
                cat(hidden.iter().map(|(_, bias)| bias.to_kind(kind)).collect()),
            ),
            regression_out: (
                block_diagonal(regression).to_kind(kind),
                cat(regression.iter().map(|branch| branch.bias.to_kind(kind)).collect()),
            ),
            kind,
        }
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

/// The shared convolution's weight cut along its input channels, one part for each block of the backbone.
fn split_shared(shared: &ConvNormRelu, widths: &[i64], kind: Kind) -> (Vec<Tensor>, Tensor) {
    let (weight, bias) = fold(shared);
    let parts = weight.split_with_sizes(widths, 1);
    (parts.iter().map(|part| channels_last(part).to_kind(kind)).collect(), bias.to_kind(kind))
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
