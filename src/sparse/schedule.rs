//! The order in which [`super::convolve`] goes through the pairs of a convolution.

use tch::{Kind, Tensor};

use super::SparseError;

/// Products of a block: enough to multiply at full speed, few enough to waste little.
pub(super) const BLOCK: i64 = 256;

/// Pairs in blocks of equal size, each of one offset, the last one of an offset filled up with products that nobody reads.
#[derive(Debug)]
pub(super) struct Schedule {
    /// `[Q * 256]` i32: input row of each product.
    pub(super) in_rows: Tensor,
    /// `[Q]` i32: offset of each block.
    pub(super) offsets: Tensor,
    /// `[P]` i32: the products by output row, those of one row by offset.
    pub(super) products: Tensor,
    /// `[N' + 1]` i32: where the products of each output row begin.
    pub(super) starts: Tensor,
}

impl Schedule {
    /// # Shapes
    /// - `counts`: `[K]`; `in_rows`, `out_rows`: `[P]` i32, grouped by offset
    pub(super) fn new(counts: &[i64], in_rows: &Tensor, out_rows: &Tensor, n_out: i64) -> Result<Self, SparseError> {
        let device = in_rows.device();
        let (long, int) = ((Kind::Int64, device), (Kind::Int, device));
        let upload = |values: &[i64]| -> Result<Tensor, SparseError> { Ok(Tensor::f_from_slice(values)?.f_to_device(device)?) };
        let n_blocks: Vec<i64> = counts.iter().map(|n| (n + BLOCK - 1) / BLOCK).collect();
        let (mut filled_before, mut n_filled) = (Vec::with_capacity(counts.len()), 0);
        for (n, blocks) in counts.iter().zip(&n_blocks) {
            filled_before.push(n_filled);
            n_filled += blocks * BLOCK - n;
        }
        let n_pairs: i64 = counts.iter().sum();
        let offset_of_pair = Tensor::f_repeat_interleave(&upload(counts)?, n_pairs)?;
        let shift = upload(&filled_before)?.f_index_select(0, &offset_of_pair)?;
        let product = Tensor::f_arange(n_pairs, long)?.f_add(&shift)?; // [P]
        let offsets = Tensor::f_repeat_interleave(&upload(&n_blocks)?, n_blocks.iter().sum::<i64>())?;
        let filled = Tensor::f_zeros([n_pairs + n_filled], int)?.f_index_copy(0, &product, in_rows)?;
        let (by_row, order) = out_rows.f_sort_stable(true, 0, false)?;
        let starts = Tensor::f_arange(n_out + 1, int)?.f_searchsorted(&by_row, true, false, "left", None::<&Tensor>)?;
        Ok(Self {
            in_rows: filled,
            offsets: offsets.f_to_kind(Kind::Int)?,
            products: product.f_index_select(0, &order)?.f_to_kind(Kind::Int)?,
            starts,
        })
    }
}
