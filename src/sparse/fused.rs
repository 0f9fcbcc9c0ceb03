//! The convolution for inference on a CPU: bias, norm, addition and ReLU in one pass over the output, no copies of features.
//!
//! Output rows are cut into chunks that fit a core's cache; a chunk is filled offset by offset by one thread. Results have the
//! same bits at any number of threads (rayon's).

use rayon::prelude::*;

use super::aligned::Aligned;
use super::kernel::{Input, Instructions, Output, PAD, add_outer_products, add_products};
use super::pairs::BLOCK_ROWS;
use super::{Pairs, SparseError};

/// Values of a chunk of output rows.
const CHUNK_VALUES: usize = 1 << 15;

/// Features in host memory, one row per site, each padded with zeros to a multiple of eight channels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    values: Aligned,
    channels: usize,
    stride: usize,
}

/// What happens to the sums.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to them.
    pub add: Option<&'a Rows>,
    /// Then negative values become zero.
    pub relu: bool,
}

/// A convolution with bias whose weights lie as the inner loop reads them.
#[derive(Debug)]
pub struct FusedConv {
    /// For each offset, for each block of columns: `[Cin, width]`.
    weight: Aligned,
    /// `[Cout]`, padded.
    bias: Vec<f32>,
    blocks: Vec<usize>,
    instructions: Instructions,
    n_offsets: usize,
    c_in: usize,
    c_out: usize,
}

impl Rows {
    /// # Shapes
    /// - `values`: `[N, channels]`
    pub fn new(values: &[f32], channels: usize) -> Self {
        let stride = channels.next_multiple_of(PAD);
        let mut padded = Aligned::zeros(values.len() / channels.max(1) * stride);
        for (to, from) in padded.chunks_exact_mut(stride.max(1)).zip(values.chunks_exact(channels.max(1))) {
            to[..channels].copy_from_slice(from);
        }
        Self { values: padded, channels, stride }
    }

    /// N.
    pub fn len(&self) -> usize {
        self.values.len() / self.stride.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn input(&self) -> Input<'_> {
        Input { values: &self.values, stride: self.stride, channels: self.channels }
    }

    /// Zeros.
    pub fn zeros(n: usize, channels: usize) -> Self {
        let stride = channels.next_multiple_of(PAD);
        let mut values = Aligned::zeros(n * stride);
        values.fill(0.0);
        Self { values, channels, stride }
    }

    /// Values of a row with its padding.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All values, padding included.
    pub fn padded(&self) -> &[f32] {
        &self.values
    }

    /// All values, padding included, which must stay zero.
    pub fn padded_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Values of a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Row by row, without the padding.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.stride.max(1)).map(|row| &row[..self.channels])
    }
}

/// Gradient of a convolution's weight.
///
/// # Shapes
/// - `x`: `[N, Cin]`; `gradient`: `[N', Cout]` of the output; out: `[K, Cin, Cout]`
///
/// # Errors
/// [`SparseError::Shape`] when the pairs name rows that are not there.
pub fn weight_gradient(x: &Rows, gradient: &Rows, pairs: &Pairs) -> Result<Vec<f32>, SparseError> {
    let (n_in, n_out) = pairs.rows_needed();
    if n_in > x.len() || n_out > gradient.len() {
        let expected = format!("{} in, {} out", x.len(), gradient.len());
        return Err(SparseError::Shape { what: "rows of the pairs", expected, got: format!("{n_in} in, {n_out} out") });
    }
    let instructions = Instructions::detect();
    let of_offset = |k: usize| {
        let mut sums = vec![0f32; x.stride * gradient.stride];
        // No stride, no row.
        if x.stride > 0 && gradient.stride > 0 {
            add_outer_products(instructions, x.input(), gradient.input(), pairs.offset(k), &mut sums);
        }
        let rows = sums.chunks_exact(gradient.stride.max(1)).take(x.channels);
        rows.flat_map(|row| row[..gradient.channels].to_vec()).collect::<Vec<f32>>()
    };
    // An offset is one thread's, so that sums have one order.
    Ok((0..pairs.n_offsets()).into_par_iter().map(of_offset).collect::<Vec<_>>().concat())
}

impl FusedConv {
    /// # Shapes
    /// - `weight`: `[K, Cin, Cout]`; `bias`: `[Cout]`, both with the norm folded in
    ///
    /// # Errors
    /// [`SparseError::Shape`] when sizes do not fit each other.
    pub fn new(weight: &[f32], bias: &[f32], n_offsets: usize, c_in: usize) -> Result<Self, SparseError> {
        Self::with_instructions(weight, bias, n_offsets, c_in, Instructions::detect())
    }

    fn with_instructions(
        weight: &[f32],
        bias: &[f32],
        n_offsets: usize,
        c_in: usize,
        instructions: Instructions,
    ) -> Result<Self, SparseError> {
        let c_out = bias.len();
        if weight.len() != n_offsets * c_in * c_out || weight.is_empty() {
            let expected = format!("{n_offsets} x {c_in} x {c_out} values, at least one");
            return Err(SparseError::Shape { what: "weight", expected, got: weight.len().to_string() });
        }
        let padded = c_out.next_multiple_of(PAD);
        let blocks = instructions.column_blocks(padded);
        let mut packed = Vec::with_capacity(n_offsets * c_in * padded);
        for of_offset in weight.chunks_exact(c_in * c_out) {
            let mut column = 0;
            for width in &blocks {
                for row in of_offset.chunks_exact(c_out) {
                    packed.extend((column..column + width).map(|c| row.get(c).copied().unwrap_or(0.0)));
                }
                column += width;
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(padded, 0.0);
        Ok(Self { weight: Aligned::from_slice(&packed), bias, blocks, instructions, n_offsets, c_in, c_out })
    }

    /// Convolves features into `out`, whose memory is used again.
    ///
    /// # Errors
    /// [`SparseError::Shape`] when features, pairs and what is added do not fit each other.
    pub fn run(&self, x: &Rows, pairs: &Pairs, n_out: usize, epilogue: Epilogue<'_>, out: &mut Rows) -> Result<(), SparseError> {
        self.check(x, pairs, n_out, epilogue)?;
        let stride = self.bias.len();
        out.values.reset(n_out * stride);
        (out.channels, out.stride) = (self.c_out, stride);
        let rows_per_chunk = (CHUNK_VALUES / stride).next_multiple_of(BLOCK_ROWS);
        out.values.par_chunks_mut(rows_per_chunk * stride).enumerate().for_each(|(chunk_idx, chunk)| {
            let first_row = chunk_idx * rows_per_chunk;
            self.start_sums(chunk, first_row, epilogue.add);
            self.add_offsets(x, pairs, chunk, first_row);
            if epilogue.relu {
                chunk.iter_mut().for_each(|value| *value = value.max(0.0));
            }
        });
        Ok(())
    }

    fn start_sums(&self, chunk: &mut [f32], first_row: usize, add: Option<&Rows>) {
        let rows = chunk.chunks_exact_mut(self.bias.len());
        match add {
            None => rows.for_each(|row| row.copy_from_slice(&self.bias)),
            Some(add) => {
                let added = add.values[first_row * add.stride..].chunks_exact(add.stride);
                for (row, added) in rows.zip(added) {
                    for ((sum, bias), value) in row.iter_mut().zip(&self.bias).zip(added) {
                        *sum = bias + value;
                    }
                }
            }
        }
    }

    fn add_offsets(&self, x: &Rows, pairs: &Pairs, chunk: &mut [f32], first_row: usize) {
        let stride = self.bias.len();
        let n_rows = chunk.len() / stride;
        let blocks = first_row / BLOCK_ROWS..(first_row + n_rows).div_ceil(BLOCK_ROWS);
        let input = Input { values: &x.values, stride: x.stride, channels: self.c_in };
        for (k, weight) in self.weight.chunks_exact(self.c_in * stride).enumerate() {
            let of_chunk = pairs.of_blocks(k, blocks.clone());
            let mut column = 0;
            for width in &self.blocks {
                let weight = &weight[self.c_in * column..self.c_in * (column + width)];
                let mut output = Output { values: chunk, stride, first_row, column, width: *width };
                add_products(self.instructions, input, weight, of_chunk, &mut output);
                column += width;
            }
        }
    }

    fn check(&self, x: &Rows, pairs: &Pairs, n_out: usize, epilogue: Epilogue<'_>) -> Result<(), SparseError> {
        let wrong = |what, expected: String, got: String| Err(SparseError::Shape { what, expected, got });
        if x.channels != self.c_in {
            return wrong("channels of the features", self.c_in.to_string(), x.channels.to_string());
        }
        if pairs.n_offsets() != self.n_offsets {
            return wrong("offsets of the pairs", self.n_offsets.to_string(), pairs.n_offsets().to_string());
        }
        let (n_in, n_rows) = pairs.rows_needed();
        if n_in > x.len() || n_rows > n_out {
            return wrong("rows of the pairs", format!("{} in, {n_out} out", x.len()), format!("{n_in} in, {n_rows} out"));
        }
        match epilogue.add {
            Some(add) if add.len() != n_out || add.channels != self.c_out => {
                let got = format!("[{}, {}]", add.len(), add.channels);
                wrong("rows to add", format!("[{n_out}, {}]", self.c_out), got)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_sums() {
        let n = 37;
        let all: Vec<u32> = (0..n).collect();
        let odd: Vec<u32> = (0..n / 2).map(|i| 2 * i + 1).collect();
        let pairs = Pairs::from_offsets(&[(all[..18].to_vec(), odd.clone()), (all.clone(), all.clone())]).expect("they ascend");
        let value = |i: usize| ((i * 7919) % 97) as f32 / 97.0 - 0.5;
        for (c_in, c_out) in [(5, 8), (8, 16), (3, 24), (16, 32), (7, 48), (12, 12), (9, 64), (4, 96), (2, 128), (1, 1), (6, 40)]
        {
            let x = Rows::new(&(0..n as usize * c_in).map(value).collect::<Vec<_>>(), c_in);
            let weight: Vec<f32> = (0..2 * c_in * c_out).map(|i| value(i + 31)).collect();
            let bias: Vec<f32> = (0..c_out).map(|i| value(i + 5)).collect();
            let run = |instructions| {
                let conv = FusedConv::with_instructions(&weight, &bias, 2, c_in, instructions).expect("sizes fit");
                let mut out = Rows::default();
                conv.run(&x, &pairs, n as usize, Epilogue { add: None, relu: true }, &mut out).expect("sizes fit");
                out
            };
            let (best, portable) = (run(Instructions::detect()), run(Instructions::Portable));
            #[cfg(target_arch = "x86_64")]
            if Instructions::detect() == Instructions::Avx512 {
                assert_eq!(best, run(Instructions::Avx2), "{c_in} to {c_out}");
            }
            assert_eq!(best.len(), n as usize);
            for (a, b) in best.rows().flatten().zip(portable.rows().flatten()) {
                assert!((a - b).abs() < 1e-5, "{c_in} to {c_out}: {a} and {b}");
            }
        }
    }
}
