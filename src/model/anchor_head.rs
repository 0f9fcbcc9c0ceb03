//! AnchorHead: at every cell, for each anchor, a logit per class, a box relative to the anchor, and a direction (sparsekd-spec section
//! 2.8).

use tch::Tensor;

use super::anchors::BOX_VALUES;
use super::params::Params;
use super::spec::AnchorHeadSpec;

/// Three convolutions of one cell each. They compute in the element type of their input; their weights stay f32.
#[derive(Debug)]
pub struct AnchorHead {
    /// Logits of the classes.
    pub cls: PointConv,
    /// Boxes.
    pub boxes: PointConv,
    /// Logits of the directions.
    pub direction: PointConv,
}

/// 1x1 convolution.
#[derive(Debug)]
pub struct PointConv {
    /// `[Cout, Cin, 1, 1]`.
    pub weight: Tensor,
    /// `[Cout]`.
    pub bias: Tensor,
}

/// Raw outputs of the head. A anchors at each cell, as [`super::anchors::Anchors`] numbers them; the channels of an anchor lie together.
#[derive(Debug)]
pub struct AnchorMaps {
    /// `[B, A K, H, W]` logits.
    pub cls: Tensor,
    /// `[B, A 7, H, W]`, as [`super::anchors::encode`] writes boxes.
    pub boxes: Tensor,
    /// `[B, A D, H, W]` logits of D directions.
    pub direction: Tensor,
}

impl AnchorHead {
    /// Takes `dense_head.conv_cls`, `.conv_box`, `.conv_dir_cls`.
    pub fn new(params: &Params<'_>, c_in: i64, spec: &AnchorHeadSpec, n_classes: usize) -> Self {
        let conv = |name: &str, per_anchor: usize| {
            let c_out = (spec.anchors_per_cell() * per_anchor) as i64;
            PointConv {
                weight: params.take(&format!("dense_head.{name}.weight"), &[c_out, c_in, 1, 1]),
                bias: params.take(&format!("dense_head.{name}.bias"), &[c_out]),
            }
        };
        Self {
            cls: conv("conv_cls", n_classes),
            boxes: conv("conv_box", BOX_VALUES),
            direction: conv("conv_dir_cls", spec.direction_bins),
        }
    }

    /// # Shapes
    /// - `x`: `[B, C, H, W]`
    pub fn forward(&self, x: &Tensor) -> AnchorMaps {
        AnchorMaps { cls: self.cls.forward(x), boxes: self.boxes.forward(x), direction: self.direction.forward(x) }
    }
}

impl PointConv {
    fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        x.conv2d(&self.weight.to_kind(kind), Some(self.bias.to_kind(kind)), [1, 1], [0, 0], [1, 1], 1)
    }
}

impl AnchorMaps {
    /// One frame of the batch, B = 1.
    pub fn frame(&self, frame_idx: usize) -> Self {
        let one = |map: &Tensor| map.narrow(0, frame_idx as i64, 1);
        Self { cls: one(&self.cls), boxes: one(&self.boxes), direction: one(&self.direction) }
    }
}

/// The values that a map has for some anchors.
///
/// # Shapes
/// - `map`: `[B, A C, H, W]`; `index`: `[n]` i64 into B H W A
/// - out: `[n, C]`
pub fn at_anchors(map: &Tensor, anchors_per_cell: usize, index: &Tensor) -> Tensor {
    let (b, channels, h, w) = map.size4().unwrap_or_default();
    let (a, n_cells) = (anchors_per_cell as i64, h * w);
    let cell = index.divide_scalar_mode(a, "floor");
    let frame = cell.divide_scalar_mode(n_cells, "floor");
    // The one axis between indexed ones goes last.
    let at = [Some(frame), Some(index.remainder(a)), None, Some(cell.remainder(n_cells))];
    map.reshape([b, a, channels / a, n_cells]).index(&at)
}
