//! The convolution as composed tensor operations, so that autograd follows it on any device.
//!
//! Input rows of all products are gathered in blocks of one offset each, multiplied block by block in one batch, and summed by
//! output row. Gathers are `embedding`, sums `embedding_bag`: libtorch adds up either's gradients row by row in a fixed order, where
//! `index_add` would let threads race on a GPU. Blocks have a fixed size, so that the gradient of a weight is summed in the same
//! steps at any number of threads.
//!
//! Memory is that of the gathered rows: P * Cin values, kept for the gradient of the weight.

use tch::Tensor;

use super::schedule::{BLOCK, Schedule};
use super::{Rulebook, Sites, SparseError};

/// The number of this mode of `embedding_bag`.
const SUM: i64 = 0;

/// Convolves features; computes in their element type.
///
/// # Shapes
/// - `features`: `[N, Cin]`; `weight`: `[K, Cin, Cout]`; `bias`: `[Cout]`; out: `[N', Cout]`
///
/// # Errors
/// [`SparseError::Shape`] when sizes do not fit the rulebook; [`SparseError::Torch`].
pub fn convolve(features: &Tensor, weight: &Tensor, bias: Option<&Tensor>, rules: &Rulebook) -> Result<Tensor, SparseError> {
    let (c_in, c_out) = check_sizes(features, weight, bias, rules)?;
    let kind = features.kind();
    let weight = weight.f_to_kind(kind)?.f_reshape([rules.n_offsets(), c_in * c_out])?;
    let Schedule { in_rows, offsets, products, starts } = &rules.schedule;
    let n_blocks = offsets.size1()?;
    let gathered = Tensor::f_embedding(features, in_rows, -1, false, false)?.f_view([n_blocks, BLOCK, c_in])?; // [Q, 256, Cin]
    let of_block = Tensor::f_embedding(&weight, offsets, -1, false, false)?.f_view([n_blocks, c_in, c_out])?; // [Q, Cin, Cout]
    let of_product = gathered.f_bmm(&of_block)?.f_view([n_blocks * BLOCK, c_out])?; // [Q * 256, Cout]
    let (sums, ..) = Tensor::f_embedding_bag(&of_product, products, starts, false, SUM, false, None::<&Tensor>, true)?;
    Ok(match bias {
        Some(bias) => sums.f_add(&bias.f_to_kind(kind)?)?,
        None => sums,
    })
}

/// A weight as models store it (spconv 2.x), the way [`convolve`] and [`super::FusedConv`] take it.
///
/// # Shapes
/// - `[Cout, kz, ky, kx, Cin]` to `[K, Cin, Cout]`, offsets with kx fastest
///
/// # Errors
/// [`SparseError::Shape`] when it has not five axes.
pub fn offsets_first(weight: &Tensor) -> Result<Tensor, SparseError> {
    match weight.size()[..] {
        [c_out, kz, ky, kx, c_in] => Ok(weight.f_permute([1, 2, 3, 4, 0])?.f_reshape([kz * ky * kx, c_in, c_out])?),
        _ => Err(shape("weight", "[Cout, kz, ky, kx, Cin]".to_owned(), weight)),
    }
}

/// Features as a dense grid, zero where no site is.
///
/// # Shapes
/// - `features`: `[N, C]`; out: `[B, C, D, H, W]`
///
/// # Errors
/// [`SparseError::Shape`] when there are not as many rows as sites; [`SparseError::Torch`].
pub fn to_dense(features: &Tensor, sites: &Sites) -> Result<Tensor, SparseError> {
    let c = match features.size()[..] {
        [n, c] if n as usize == sites.len() => c,
        _ => return Err(shape("features", format!("[{}, C]", sites.len()), features)),
    };
    let [nz, ny, nx] = sites.lattice().shape();
    let batch = sites.lattice().batch();
    let cells = Tensor::f_zeros([sites.lattice().n_cells(), c], (features.kind(), features.device()))?;
    let cells = cells.f_index_copy(0, sites.keys(), features)?;
    Ok(cells.f_view([batch, nz, ny, nx, c])?.f_permute([0, 4, 1, 2, 3])?)
}

fn check_sizes(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, rules: &Rulebook) -> Result<(i64, i64), SparseError> {
    let k = rules.n_offsets();
    let (c_in, c_out) = match weight.size()[..] {
        [n, c_in, c_out] if n == k => (c_in, c_out),
        _ => return Err(shape("weight", format!("[{k}, Cin, Cout]"), weight)),
    };
    if x.size() != [rules.n_in(), c_in] {
        return Err(shape("features", format!("[{}, {c_in}]", rules.n_in()), x));
    }
    match bias {
        Some(bias) if bias.size() != [c_out] => Err(shape("bias", format!("[{c_out}]"), bias)),
        _ => Ok((c_in, c_out)),
    }
}

fn shape(what: &'static str, expected: String, got: &Tensor) -> SparseError {
    SparseError::Shape { what, expected, got: format!("{:?}", got.size()) }
}
