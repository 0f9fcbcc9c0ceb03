//! The pairs of a convolution as plain numbers.

use std::ops::Range;

use super::SparseError;

/// Output rows are found again in steps of this many.
pub(super) const BLOCK_ROWS: usize = 128;

/// Input rows and output rows of one offset.
pub type OffsetRows = (Vec<u32>, Vec<u32>);

/// Input and output rows of every product of a convolution, grouped by offset of the kernel.
///
/// Within an offset both columns ascend strictly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// `[K + 1]`: offset k has the pairs `starts[k]..starts[k + 1]`.
    starts: Vec<usize>,
    /// Row of the input features of each pair.
    in_rows: Vec<u32>,
    /// Row of the output features of each pair.
    out_rows: Vec<u32>,
    /// For each offset: where the pairs of output rows 0, 128, 256 and so on begin, and where the last ones end.
    block_starts: Vec<Vec<u32>>,
}

impl Pairs {
    /// Puts offsets one after another.
    ///
    /// # Errors
    /// [`SparseError::Pairs`] when the lists of an offset differ in length or do not ascend strictly.
    pub fn from_offsets(offsets: &[OffsetRows]) -> Result<Self, SparseError> {
        let mut pairs = Self { starts: vec![0], ..Self::default() };
        let total = offsets.iter().map(|(rows, _)| rows.len()).sum();
        pairs.in_rows.reserve_exact(total);
        pairs.out_rows.reserve_exact(total);
        for (k, (in_rows, out_rows)) in offsets.iter().enumerate() {
            let ascends = |rows: &[u32]| rows.windows(2).all(|two| two[0] < two[1]);
            if in_rows.len() != out_rows.len() || !ascends(in_rows) || !ascends(out_rows) {
                return Err(SparseError::Pairs { offset: k });
            }
            pairs.in_rows.extend_from_slice(in_rows);
            pairs.out_rows.extend_from_slice(out_rows);
            pairs.starts.push(pairs.in_rows.len());
            pairs.block_starts.push(block_starts(out_rows));
        }
        Ok(pairs)
    }

    /// Pairs of each offset.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).map(|ends| ends[1] - ends[0])
    }

    /// Input and output rows of all offsets.
    pub fn all(&self) -> (&[u32], &[u32]) {
        (&self.in_rows, &self.out_rows)
    }

    /// Number of offsets (K).
    pub fn n_offsets(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Number of pairs: multiply-accumulates divided by Cin * Cout.
    pub fn len(&self) -> usize {
        self.in_rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.in_rows.is_empty()
    }

    /// Input and output rows of one offset.
    pub fn offset(&self, k: usize) -> (&[u32], &[u32]) {
        let range = self.starts[k]..self.starts[k + 1];
        (&self.in_rows[range.clone()], &self.out_rows[range])
    }

    /// How many rows input and output must have.
    pub fn rows_needed(&self) -> (usize, usize) {
        let last = |rows: &[u32]| rows.last().map_or(0, |row| *row as usize + 1);
        let of_offset = (0..self.n_offsets()).map(|k| (last(self.offset(k).0), last(self.offset(k).1)));
        of_offset.fold((0, 0), |most, rows| (most.0.max(rows.0), most.1.max(rows.1)))
    }

    /// The same products the other way round: those of the inverse convolution.
    pub fn inverse(self) -> Self {
        let rows_of = |k: usize| &self.in_rows[self.starts[k]..self.starts[k + 1]];
        let block_starts = (0..self.n_offsets()).map(|k| block_starts(rows_of(k))).collect();
        Self { starts: self.starts, in_rows: self.out_rows, out_rows: self.in_rows, block_starts }
    }

    /// Pairs of one offset for some blocks of output rows.
    pub(super) fn of_blocks(&self, k: usize, blocks: Range<usize>) -> PairRun<'_> {
        let starts = &self.block_starts[k];
        let at = |block: usize| self.starts[k] + starts[block.min(starts.len() - 1)] as usize;
        let range = at(blocks.start)..at(blocks.end);
        PairRun { in_rows: &self.in_rows[range.clone()], out_rows: &self.out_rows[range] }
    }
}

/// Some consecutive pairs of one offset: two lists of equal length, both strictly ascending.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairRun<'a> {
    in_rows: &'a [u32],
    out_rows: &'a [u32],
}

impl<'a> PairRun<'a> {
    pub(super) fn in_rows(&self) -> &'a [u32] {
        self.in_rows
    }

    pub(super) fn out_rows(&self) -> &'a [u32] {
        self.out_rows
    }
}

fn block_starts(out_rows: &[u32]) -> Vec<u32> {
    let mut starts = Vec::new();
    for (pair, row) in (0..).zip(out_rows) {
        while starts.len() * BLOCK_ROWS <= *row as usize {
            starts.push(pair);
        }
    }
    starts.push(out_rows.len() as u32);
    starts
}
