//! Kernel layouts of sparse convolutions.
//!
//! spconv 1.x stores `[k, k, k, in, out]`, spconv 2.x `[out, k, k, k, in]`, and its native algorithm `[k, k, k, out, in]`
//! (sparsekd-spec section 8.2). One checkpoint has one layout; it is the only one that agrees with every kernel's position
//! of the taps and with the channels of the norm or bias behind it. When several agree, that is an error, not a guess.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::model::params::Weights;

/// Where a sparse convolution's weight has its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SparseLayout {
    /// `[k, k, k, in, out]`
    Spconv1,
    /// `[out, k, k, k, in]`
    Spconv2,
    /// `[k, k, k, out, in]`
    Spconv2Native,
}

impl std::fmt::Display for SparseLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spconv1 => "spconv 1.x [k,k,k,in,out]",
            Self::Spconv2 => "spconv 2.x [out,k,k,k,in]",
            Self::Spconv2Native => "spconv 2.x native [k,k,k,out,in]",
        })
    }
}

const ALL: [SparseLayout; 3] = [SparseLayout::Spconv1, SparseLayout::Spconv2, SparseLayout::Spconv2Native];

/// Why no layout was chosen.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No layout explains a kernel that agrees with the ones before.
    #[error("sparse kernel `{name}` {shape:?} (output channels {}) fits none of: {}", channels(*.outputs), list(.layouts))]
    Contradiction {
        /// Name of the weight.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// Channels of the norm or bias behind it.
        outputs: Option<i64>,
        /// What the other kernels allow.
        layouts: Vec<SparseLayout>,
    },
    /// The shapes allow several.
    #[error("the {kernels} sparse kernels fit more than one layout: {}; nothing in the file decides", list(.layouts))]
    Ambiguous {
        /// Sparse kernels in the file.
        kernels: usize,
        /// The layouts left.
        layouts: Vec<SparseLayout>,
    },
}

fn list(layouts: &[SparseLayout]) -> String {
    layouts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn channels(outputs: Option<i64>) -> String {
    outputs.map_or_else(|| "unknown".to_owned(), |n| n.to_string())
}

/// The layout of a checkpoint's sparse kernels, its 5-D tensors; `None` when it has none.
///
/// # Errors
/// [`LayoutError`] when no layout or more than one agrees with all of them.
pub fn detect(weights: &Weights) -> Result<Option<SparseLayout>, LayoutError> {
    let kernels: Vec<(&String, Vec<i64>)> =
        weights.iter().map(|(name, tensor)| (name, tensor.size())).filter(|(_, shape)| shape.len() == 5).collect();
    let mut left = ALL.to_vec();
    for (name, shape) in &kernels {
        let outputs = output_channels(name, weights);
        let agreeing: Vec<SparseLayout> = left.iter().copied().filter(|layout| agrees(*layout, shape, outputs)).collect();
        if agreeing.is_empty() {
            let (name, shape) = ((*name).clone(), shape.clone());
            return Err(LayoutError::Contradiction { name, shape, outputs, layouts: left });
        }
        left = agreeing;
    }
    match (&left[..], kernels.len()) {
        (_, 0) => Ok(None),
        ([layout], _) => Ok(Some(*layout)),
        (_, kernels) => Err(LayoutError::Ambiguous { kernels, layouts: left }),
    }
}

/// The weights with every sparse kernel as `[out, k, k, k, in]`, contiguous.
pub fn to_spconv2(weights: Weights, layout: SparseLayout) -> Weights {
    let convert = |tensor: Tensor| match layout {
        SparseLayout::Spconv2 => tensor,
        _ if tensor.dim() != 5 => tensor,
        SparseLayout::Spconv1 => tensor.permute([4, 0, 1, 2, 3]).contiguous(),
        SparseLayout::Spconv2Native => tensor.permute([3, 0, 1, 2, 4]).contiguous(),
    };
    weights.into_iter().map(|(name, tensor)| (name, convert(tensor))).collect()
}

/// Whether taps and known output channels are where a layout has them.
fn agrees(layout: SparseLayout, shape: &[i64], outputs: Option<i64>) -> bool {
    let (taps, out) = match layout {
        SparseLayout::Spconv1 => (&shape[..3], shape[4]),
        SparseLayout::Spconv2 => (&shape[1..4], shape[0]),
        SparseLayout::Spconv2Native => (&shape[..3], shape[3]),
    };
    // Cubes, and the flat kernel that ends the 3-D backbones.
    let is_kernel = matches!(taps, [1, 1, 1] | [2, 2, 2] | [3, 3, 3] | [5, 5, 5] | [3, 1, 1]);
    is_kernel && outputs.is_none_or(|outputs| outputs == out)
}

/// Length of the layer's bias, or of the norm behind it: `X.0.weight` has `X.1`, `X.conv1.weight` has `X.bn1`.
fn output_channels(name: &str, weights: &Weights) -> Option<i64> {
    let layer = name.strip_suffix(".weight")?;
    let bias = weights.get(&format!("{layer}.bias"));
    bias.or_else(|| weights.get(&format!("{}.running_mean", norm_behind(layer)?))).and_then(vector_length)
}

fn norm_behind(layer: &str) -> Option<String> {
    let (parent, last) = layer.rsplit_once('.')?;
    match last.strip_prefix("conv") {
        Some(index) => Some(format!("{parent}.bn{index}")),
        None => Some(format!("{parent}.{}", last.parse::<u32>().ok()?.checked_add(1)?)),
    }
}

fn vector_length(tensor: &Tensor) -> Option<i64> {
    match tensor.size()[..] {
        [length] => Some(length),
        _ => None,
    }
}
