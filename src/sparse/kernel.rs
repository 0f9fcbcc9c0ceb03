//! The inner loop on a CPU: rows of features times one offset's weight, added to the output rows.
//!
//! A block of M pairs keeps its M output rows in registers while the input channels go by: a register of weights is loaded once
//! for M rows, and nothing is gathered into a buffer or scattered from one. Every output value is a chain of additions in order
//! of the input channels, so blocks, chunks and threads do not show in the result. The instruction set does: without fused
//! multiply-add, products are rounded before they are added.
#![allow(unsafe_code)] // processor instructions behind a run-time check, and rows through pointers checked on entry

#[cfg(target_arch = "x86_64")]
mod x86;

use super::pairs::PairRun;

/// Channels are stored padded with zeros to a multiple of this.
pub(super) const PAD: usize = 8;

/// What the processor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    /// 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the compiler makes of arrays.
    Portable,
}

impl Instructions {
    /// The best there is.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if has_avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                return Self::Avx512;
            }
            if has_avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Widths of the column blocks that padded output channels are cut into; one call of [`add_products`] does one of them.
    pub(super) fn column_blocks(self, padded: usize) -> Vec<usize> {
        let widths: &[usize] = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => &[64, 48, 32, 24, 16, 8],
            _ => &[16, 8],
        };
        let (mut left, mut blocks) = (padded, Vec::new());
        while let Some(width) = widths.iter().find(|width| **width <= left) {
            blocks.push(*width);
            left -= width;
        }
        blocks
    }
}

/// Features, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) values: &'a [f32],
    /// From row to row.
    pub(super) stride: usize,
    /// Channels read of each row.
    pub(super) channels: usize,
}

/// A block of columns of consecutive output rows.
#[derive(Debug)]
pub(super) struct Output<'a> {
    pub(super) values: &'a mut [f32],
    /// From row to row.
    pub(super) stride: usize,
    /// Number of the first row.
    pub(super) first_row: usize,
    /// First column of the block.
    pub(super) column: usize,
    /// Columns of the block: one of [`Instructions::column_blocks`].
    pub(super) width: usize,
}

/// `output[out_rows[i]] += input[in_rows[i]] * weight` for every pair.
///
/// # Shapes
/// - `weight`: `[channels, width]`
///
/// # Panics
/// When a row lies outside: pairs and features do not belong together, which is a bug.
pub(super) fn add_products(
    instructions: Instructions,
    input: Input<'_>,
    weight: &[f32],
    pairs: PairRun<'_>,
    output: &mut Output<'_>,
) {
    assert_eq!(weight.len(), input.channels * output.width);
    assert!(input.channels <= input.stride && output.column + output.width <= output.stride);
    // `Pairs` ascend, so the ends tell of all.
    let within = |rows: &[u32], range: std::ops::Range<usize>| match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => range.start <= *first as usize && (*last as usize) < range.end,
        _ => true,
    };
    assert!(within(pairs.in_rows(), 0..input.values.len() / input.stride));
    assert!(within(pairs.out_rows(), output.first_row..output.first_row + output.values.len() / output.stride));
    let (in_rows, out_rows) = (pairs.in_rows(), pairs.out_rows());
    // SAFETY: the instructions were detected; all rows and columns that are touched were checked above.
    unsafe {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => x86::add_products_avx512(input, weight, in_rows, out_rows, output),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => x86::add_products_avx2(input, weight, in_rows, out_rows, output),
            Instructions::Portable => match output.width {
                16 => blocks::<Portable, 4, 2>(input, weight, in_rows, out_rows, output),
                8 => blocks::<Portable, 4, 1>(input, weight, in_rows, out_rows, output),
                width => unreachable!("blocks of {width} columns are never made"),
            },
        }
    }
}

/// `sums[a][b] += left[left_rows[i]][a] * right[right_rows[i]][b]` over pairs in their order: the gradient of one offset's weight.
///
/// # Shapes
/// - `sums`: `[left.stride, right.stride]`, padded channels of both
///
/// # Panics
/// When a row lies outside: pairs and rows do not belong together, which is a bug.
pub(super) fn add_outer_products(
    instructions: Instructions,
    left: Input<'_>,
    right: Input<'_>,
    (left_rows, right_rows): (&[u32], &[u32]),
    sums: &mut [f32],
) {
    assert_eq!(sums.len(), left.stride * right.stride);
    assert!(left.stride.is_multiple_of(PAD) && right.stride.is_multiple_of(PAD));
    assert_eq!(left_rows.len(), right_rows.len());
    let within = |rows: &[u32], of: Input<'_>| rows.last().is_none_or(|last| (*last as usize) < of.values.len() / of.stride);
    assert!(within(left_rows, left) && within(right_rows, right));
    let products = Products { left, right, left_rows, right_rows };
    // SAFETY: the instructions were detected; rows ascend, so their ends, checked above, tell of all.
    unsafe {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => x86::add_outer_products_avx512(products, sums),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => x86::add_outer_products_avx2(products, sums),
            Instructions::Portable => products.all::<Portable, 4, 1>(sums),
        }
    }
}

/// Pairs of rows to be multiplied.
#[derive(Clone, Copy)]
struct Products<'a> {
    left: Input<'a>,
    right: Input<'a>,
    left_rows: &'a [u32],
    right_rows: &'a [u32],
}

/// Pairs that are gone through for every block of columns before the next ones are: their rows stay near the processor.
const PAIRS_AT_ONCE: usize = 512;

impl Products<'_> {
    /// A columns of the left and B registers of the right at a time.
    ///
    /// # Safety
    /// Rows were checked; A and B registers divide the padding, `sums` has room for all products.
    #[inline(always)]
    unsafe fn all<L: Lanes, const A: usize, const B: usize>(self, sums: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { self.columns::<L, A, B>(sums, 0..self.right.stride) }
    }

    /// The columns of the right in a range whose length is a multiple of B registers.
    ///
    /// # Safety
    /// As [`Self::all`].
    #[inline(always)]
    unsafe fn columns<L: Lanes, const A: usize, const B: usize>(self, sums: &mut [f32], columns: std::ops::Range<usize>) {
        let pairs = self.left_rows.chunks(PAIRS_AT_ONCE).zip(self.right_rows.chunks(PAIRS_AT_ONCE));
        for (left_rows, right_rows) in pairs {
            for a in (0..self.left.stride).step_by(A) {
                for b in columns.clone().step_by(B * L::N) {
                    // SAFETY: A and B registers lie inside the padded rows; the sums of (a, b) inside `sums`.
                    unsafe {
                        let at = sums.as_mut_ptr().add(a * self.right.stride + b);
                        self.block::<L, A, B>(left_rows, right_rows, a, b, at);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::columns`].
    #[inline(always)]
    unsafe fn block<L: Lanes, const A: usize, const B: usize>(
        self,
        left_rows: &[u32],
        right_rows: &[u32],
        a: usize,
        b: usize,
        sums_at: *mut f32,
    ) {
        let (left, right) = (self.left.values.as_ptr(), self.right.values.as_ptr());
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[L::splat(0.0); B]; A];
            for (i, of_left) in sums.iter_mut().enumerate() {
                for (j, sum) in of_left.iter_mut().enumerate() {
                    *sum = L::load(sums_at.add(i * self.right.stride + j * L::N));
                }
            }
            for (left_row, right_row) in left_rows.iter().zip(right_rows) {
                let from = left.add(*left_row as usize * self.left.stride + a);
                let with = right.add(*right_row as usize * self.right.stride + b);
                let mut values = [L::splat(0.0); B];
                for (j, value) in values.iter_mut().enumerate() {
                    *value = L::load(with.add(j * L::N));
                }
                for (i, of_left) in sums.iter_mut().enumerate() {
                    let factor = L::splat(*from.add(i));
                    for (sum, value) in of_left.iter_mut().zip(values) {
                        *sum = L::mul_add(factor, value, *sum);
                    }
                }
            }
            for (i, of_left) in sums.iter().enumerate() {
                for (j, sum) in of_left.iter().enumerate() {
                    L::store(sums_at.add(i * self.right.stride + j * L::N), *sum);
                }
            }
        }
    }
}

/// A register of f32 and what is done with it.
trait Lanes {
    const N: usize;
    type V: Copy;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, value: Self::V);
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn mul_add(a: Self::V, b: Self::V, sum: Self::V) -> Self::V;
}

/// All pairs, M at a time, B registers wide.
///
/// # Safety
/// The caller checked rows, columns and weight size, and that B registers are the block's width.
#[inline(always)]
unsafe fn blocks<L: Lanes, const M: usize, const B: usize>(
    input: Input<'_>,
    weight: &[f32],
    in_rows: &[u32],
    out_rows: &[u32],
    output: &mut Output<'_>,
) {
    debug_assert_eq!(output.width, B * L::N);
    let (from, to) = (input.values.as_ptr(), output.values.as_mut_ptr());
    // SAFETY: rows were checked.
    let row_at = |row: u32| unsafe { from.add(row as usize * input.stride) };
    let sums_at = |row: u32| unsafe { to.add((row as usize - output.first_row) * output.stride + output.column) };
    let ((in_blocks, in_rest), (out_blocks, out_rest)) = (in_rows.as_chunks::<M>(), out_rows.as_chunks::<M>());
    for (in_block, out_block) in in_blocks.iter().zip(out_blocks) {
        // SAFETY: as above; B registers are the block's width, which every row has.
        unsafe { block::<L, M, B>(in_block.map(row_at), out_block.map(sums_at), weight.as_ptr(), input.channels) };
    }
    if !in_rest.is_empty() {
        let mut spare = [0_f32; 64]; // stands in for the rows that the last block lacks
        let mut rows = [row_at(in_rest[0]); M];
        let mut sums = [spare.as_mut_ptr(); M];
        for (m, (in_row, out_row)) in in_rest.iter().zip(out_rest).enumerate() {
            (rows[m], sums[m]) = (row_at(*in_row), sums_at(*out_row));
        }
        // SAFETY: as above; the spare row has the widest block's columns.
        unsafe { block::<L, M, B>(rows, sums, weight.as_ptr(), input.channels) };
    }
}

/// # Safety
/// Rows hold `channels` values, sums and weight rows B registers.
#[inline(always)]
unsafe fn block<L: Lanes, const M: usize, const B: usize>(
    rows: [*const f32; M],
    sums_at: [*mut f32; M],
    weight: *const f32,
    channels: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[L::splat(0.0); B]; M];
        for (sums, at) in sums.iter_mut().zip(sums_at) {
            for (b, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(at.add(b * L::N));
            }
        }
        for channel in 0..channels {
            let mut of_channel = [L::splat(0.0); B];
            for (b, register) in of_channel.iter_mut().enumerate() {
                *register = L::load(weight.add((channel * B + b) * L::N));
            }
            for (sums, row) in sums.iter_mut().zip(rows) {
                let value = L::splat(*row.add(channel));
                for (sum, weight) in sums.iter_mut().zip(of_channel) {
                    *sum = L::mul_add(value, weight, *sum);
                }
            }
        }
        for (sums, at) in sums.iter().zip(sums_at) {
            for (b, sum) in sums.iter().enumerate() {
                L::store(at.add(b * L::N), *sum);
            }
        }
    }
}

struct Portable;

impl Lanes for Portable {
    const N: usize = 8;
    type V = [f32; 8];
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; 8], b: [f32; 8], sum: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| match cfg!(target_arch = "aarch64") {
            true => a[i].mul_add(b[i], sum[i]),
            false => a[i] * b[i] + sum[i],
        })
    }
}
