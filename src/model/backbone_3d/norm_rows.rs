//! Batch norm, addition and ReLU over plain rows, and the way back.
//!
//! Rows are taken in tasks of a fixed size whose sums are added in order, so results have the same bits at any number of threads.

use rayon::prelude::*;
use tch::{Kind, Tensor, no_grad};

use crate::model::layers::{BatchNorm, Mode};
use crate::sparse::{Rows, SparseError};

/// Rows of one task.
const ROWS_PER_TASK: usize = 1024;

/// A batch norm over some rows: `scale * x + shift`. Vectors have a row's padded length, zero where no channel is.
#[derive(Debug)]
pub struct NormStep {
    /// `[C]`, the network's own tensors.
    pub weight: Tensor,
    /// `[C]`.
    pub bias: Tensor,
    scale: Vec<f32>,
    shift: Vec<f32>,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
}

impl NormStep {
    /// Takes the statistics of the rows, and updates the running ones; or takes the running ones.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(norm: &BatchNorm, x: &Rows, mode: Mode) -> Result<Self, SparseError> {
        let ((scale, shift), mean, variance) = match mode {
            Mode::Eval => (norm.scale_and_shift(), norm.running_mean.shallow_clone(), norm.running_var.shallow_clone()),
            Mode::Train => {
                let [mean, variance] = moments(x).map(|values| Tensor::from_slice(&values).to_kind(Kind::Float));
                (norm.scale_and_shift_of_batch(&mean, &variance, x.len() as f64), mean, variance)
            }
        };
        let inverse_deviation = no_grad(|| (variance + norm.settings.eps).rsqrt());
        let padded = |tensor: &Tensor| -> Result<Vec<f32>, SparseError> {
            let mut values = Vec::try_from(tensor.f_detach()?)?;
            values.resize(x.stride(), 0.0);
            Ok(values)
        };
        Ok(Self {
            weight: norm.weight.shallow_clone(),
            bias: norm.bias.shallow_clone(),
            scale: padded(&scale)?,
            shift: padded(&shift)?,
            mean: padded(&mean)?,
            inverse_deviation: padded(&inverse_deviation)?,
        })
    }

    /// The norm's output with something added, negative values zero.
    pub fn apply_and_relu(&self, x: &Rows, added: Option<&Rows>) -> Rows {
        let mut out = Rows::zeros(x.len(), x.channels());
        let (stride, scale, shift) = (x.stride(), &self.scale, &self.shift);
        let parts = out.padded_mut().par_chunks_mut((ROWS_PER_TASK * stride).max(1));
        parts.zip(x.padded().par_chunks((ROWS_PER_TASK * stride).max(1))).enumerate().for_each(|(task, (out, x))| {
            let added = added.map(|rows| &rows.padded()[task * ROWS_PER_TASK * stride..]);
            for (row_idx, (out, x)) in out.chunks_exact_mut(stride).zip(x.chunks_exact(stride)).enumerate() {
                let added = added.map(|values| &values[row_idx * stride..(row_idx + 1) * stride]);
                for (channel, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    let sum = x * scale[channel] + shift[channel] + added.map_or(0.0, |row| row[channel]);
                    *out = sum.max(0.0);
                }
            }
        });
        out
    }

    /// Turns the gradient of the output into that of the input; gives those of weight and bias, `[C]` each.
    pub fn backward(&self, gradient: &mut Rows, x: &Rows, mode: Mode) -> [Tensor; 2] {
        let (stride, channels, n) = (x.stride(), x.channels(), x.len());
        let (scale, mean, inverse) = (&self.scale, &self.mean, &self.inverse_deviation);
        let normalized = |channel: usize, x: f32| (x - mean[channel]) * inverse[channel];
        let sums = sums_of(x, 2 * stride, |row_idx, row, sums| {
            let of_row = &gradient.padded()[row_idx * stride..(row_idx + 1) * stride];
            for (channel, (g, x)) in of_row.iter().zip(row).enumerate() {
                sums[channel] += f64::from(g * normalized(channel, *x));
                sums[stride + channel] += f64::from(*g);
            }
        });
        let (of_weight, of_bias) = sums.split_at(stride);
        let share = |sums: &[f64]| -> Vec<f32> {
            let factor = if mode == Mode::Train { 1.0 / n.max(1) as f64 } else { 0.0 };
            sums.iter().map(|sum| (sum * factor) as f32).collect()
        };
        let (mean_product, mean_gradient) = (share(of_weight), share(of_bias));
        let parts = gradient.padded_mut().par_chunks_mut((ROWS_PER_TASK * stride).max(1));
        parts.zip(x.padded().par_chunks((ROWS_PER_TASK * stride).max(1))).for_each(|(gradient, x)| {
            for (gradient, x) in gradient.chunks_exact_mut(stride).zip(x.chunks_exact(stride)) {
                for (channel, (g, x)) in gradient.iter_mut().zip(x).enumerate() {
                    let off = mean_gradient[channel] + normalized(channel, *x) * mean_product[channel];
                    *g = scale[channel] * (*g - off);
                }
            }
        });
        let tensor = |sums: &[f64]| Tensor::from_slice(&sums[..channels]).to_kind(Kind::Float);
        [tensor(of_weight), tensor(of_bias)]
    }
}

/// Zeroes a gradient where the ReLU's output is zero.
pub fn mask_where_zero(gradient: &mut Rows, output: &Rows) {
    let parts = gradient.padded_mut().par_chunks_mut(ROWS_PER_TASK);
    parts.zip(output.padded().par_chunks(ROWS_PER_TASK)).for_each(|(gradient, output)| {
        for (g, y) in gradient.iter_mut().zip(output) {
            *g = if *y > 0.0 { *g } else { 0.0 };
        }
    });
}

/// Sum of each channel, `[C]`.
pub fn column_sums(rows: &Rows) -> Vec<f32> {
    let sums =
        sums_of(rows, rows.stride(), |_, row, sums| sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value)));
    sums[..rows.channels()].iter().map(|sum| *sum as f32).collect()
}

/// Mean and biased variance of each channel.
fn moments(rows: &Rows) -> [Vec<f64>; 2] {
    let n = rows.len().max(1) as f64;
    let (stride, channels) = (rows.stride(), rows.channels());
    let sums = sums_of(rows, stride, |_, row, sums| sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value)));
    let mean: Vec<f64> = sums.iter().map(|sum| sum / n).collect();
    let squares = sums_of(rows, stride, |_, row, sums| {
        for ((sum, value), mean) in sums.iter_mut().zip(row).zip(&mean) {
            *sum += (f64::from(*value) - mean).powi(2);
        }
    });
    let variance = squares[..channels].iter().map(|sum| sum / n).collect();
    [mean[..channels].to_vec(), variance]
}

/// Sums over all rows, task by task in order; `add` takes a row's number, its values and the task's sums.
fn sums_of(rows: &Rows, n_sums: usize, add: impl Fn(usize, &[f32], &mut [f64]) + Sync) -> Vec<f64> {
    let stride = rows.stride().max(1);
    let of_task = |(task, values): (usize, &[f32])| {
        let mut sums = vec![0.0; n_sums];
        for (row_idx, row) in values.chunks_exact(stride).enumerate() {
            add(task * ROWS_PER_TASK + row_idx, row, &mut sums);
        }
        sums
    };
    let parts: Vec<Vec<f64>> = rows.padded().par_chunks(ROWS_PER_TASK * stride).enumerate().map(of_task).collect();
    parts.iter().fold(vec![0.0; n_sums], |mut total, part| {
        total.iter_mut().zip(part).for_each(|(total, sum)| *total += sum);
        total
    })
}
