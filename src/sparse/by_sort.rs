//! Pairs and output sites by tensor operations, for devices that have no plain code. Same results as `lines`.
//!
//! All offsets are looked up at once: `[K, N]` keys, one binary search each, one list of hits.

use tch::{IndexOp, Kind as Element, Tensor};

use super::{ConvShape, Lattice, Sites, SparseError};

/// Pairs on a device: number of pairs of each offset, input rows, output rows (both `[P]` i32).
pub(super) type DevicePairs = (Vec<i64>, Tensor, Tensor);

/// Output sites of a strided convolution.
pub(super) fn strided_sites(input: &Sites, conv: &ConvShape) -> Result<Sites, SparseError> {
    let lattice = conv.output(input.lattice())?;
    let (keys, valid) = reached(input, conv, &lattice)?;
    let (keys, ..) = keys.f_masked_select(&valid)?.f_internal_unique2(true, false, false)?;
    Ok(Sites::from_ascending(keys, lattice))
}

/// Pairs between given sites, found from the input's side: every offset moves an input site to at most one output cell.
pub(super) fn pairs(input: &Sites, output: &Sites, conv: &ConvShape) -> Result<DevicePairs, SparseError> {
    let device = input.device();
    if input.is_empty() || output.is_empty() {
        let none = || Tensor::f_empty([0], (Element::Int, device));
        return Ok((vec![0; conv.n_offsets()], none()?, none()?));
    }
    let (keys, valid) = reached(input, conv, output.lattice())?; // [K, N]
    let row = keys.f_searchsorted(output.keys(), false, false, "left", None::<&Tensor>)?.f_clamp_max(output.len() as i64 - 1)?;
    let found = output.keys().f_take(&row)?.f_eq_tensor(&keys)?.f_logical_and(&valid)?;
    let counts = Vec::try_from(&found.f_sum_dim_intlist(1, false, Element::Int64)?)?;
    let in_rows = found.f_nonzero()?.i((.., 1)).f_to_kind(Element::Int)?.contiguous();
    let out_rows = row.f_masked_select(&found)?.f_to_kind(Element::Int)?;
    Ok((counts, in_rows, out_rows))
}

/// For each offset and input site the key of the output cell that has the site under that offset, and whether there is one; both `[K, N]`.
fn reached(input: &Sites, conv: &ConvShape, output: &Lattice) -> Result<(Tensor, Tensor), SparseError> {
    let device = input.device();
    let coords = input.coords()?.f_transpose(0, 1)?; // [4, N]
    let mut key = coords.i(0).f_unsqueeze(0)?; // [1, N]
    let mut valid: Option<Tensor> = None;
    let offsets: Vec<[i64; 3]> = conv.offsets().collect();
    for axis in 0..3 {
        let (stride, n_out) = (conv.stride()[axis], output.shape()[axis]);
        let along: Vec<i64> = offsets.iter().map(|offset| conv.padding()[axis] - offset[axis]).collect();
        let along = Tensor::f_from_slice(&along)?.f_to_device(device)?.f_unsqueeze(1)?; // [K, 1]
        let position = coords.i(axis as i64 + 1).f_unsqueeze(0)?.f_add(&along)?; // o * stride
        let at = position.f_divide_scalar_mode(stride, "floor")?;
        let inside = at.f_ge(0)?.f_logical_and(&at.f_lt(n_out)?)?.f_logical_and(&position.f_remainder(stride)?.f_eq(0)?)?;
        key = (key * n_out).f_add(&at)?;
        valid = Some(match valid {
            Some(valid) => valid.f_logical_and(&inside)?,
            None => inside,
        });
    }
    let valid = match valid {
        Some(valid) => valid,
        None => Tensor::f_ones_like(&key)?.f_to_kind(Element::Bool)?,
    };
    Ok((key, valid))
}
