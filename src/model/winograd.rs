//! 3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, CVPR 2016).
//!
//! A tile of 6x6 input cells gives 4x4 output cells. Tiles and weights are transformed so that the convolution becomes 36 matrix
//! products, one for each cell of the tile, and the products are transformed back. All three transforms are matrix products
//! too. The plain version is `conv2d`; this rounds some four times as much.
//!
//! It pays on a CPU from [`MIN_CHANNELS`] on: below, moving the tiles takes what the products save.

use tch::{Kind, Tensor};

/// Both channel counts must reach it.
pub const MIN_CHANNELS: i64 = 128;

/// Rows of tiles are taken together until their transformed values fill this much: near the processor, yet enough for its cores.
const CHUNK_BYTES: i64 = 4 << 20;

const TILE: i64 = 6;
const OUT: i64 = 4;

/// Input cells of a tile's side to transformed ones.
const INPUT: [[f64; 6]; 6] = [
    [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
    [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
    [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
];

/// A kernel's side to transformed cells.
const KERNEL: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Transformed cells to a tile's side of output.
const OUTPUT: [[f64; 6]; 4] = [
    [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
    [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
    [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
];

/// A 3x3 convolution of stride 1 and padding 1 with bias, for f32 maps on the CPU.
#[derive(Debug)]
pub struct WinogradConv {
    /// `[36, C, C']`
    kernel: Tensor,
    /// `[C']`
    bias: Tensor,
    /// `[36, 36]`: of a whole tile.
    input: Tensor,
    /// `[16, 36]`
    output: Tensor,
}

impl WinogradConv {
    /// # Shapes
    /// - `weight`: `[C', C, 3, 3]`; `bias`: `[C']`
    pub fn new(weight: &Tensor, bias: &Tensor) -> Self {
        let (c_out, c_in, ..) = weight.size4().unwrap_or_default();
        let cells = weight.permute([2, 3, 1, 0]).to_kind(Kind::Double).reshape([9, c_in * c_out]);
        let kernel = both_sides(&KERNEL).matmul(&cells).view([TILE * TILE, c_in, c_out]);
        Self {
            kernel: kernel.to_kind(Kind::Float),
            bias: bias.shallow_clone(),
            input: both_sides(&INPUT).to_kind(Kind::Float),
            output: both_sides(&OUTPUT).to_kind(Kind::Float),
        }
    }

    /// # Shapes
    /// - `x`: `[1, C, H, W]` channels-last; out: `[1, C', H, W]` channels-last
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (_, c_in, h, w) = x.size4().unwrap_or_default();
        let c_out = self.bias.size()[0];
        let (n_rows, n_cols) = ((h + OUT - 1) / OUT, (w + OUT - 1) / OUT);
        let padding = [0, 0, 1, n_cols * OUT - w + 1, 1, n_rows * OUT - h + 1];
        let padded = x.permute([0, 2, 3, 1]).constant_pad_nd(padding).contiguous(); // [1, 4 R + 2, 4 S + 2, C]
        let line = (n_cols * OUT + 2) * c_in;
        let out = Tensor::empty([n_rows * OUT, n_cols * OUT, c_out], (Kind::Float, x.device()));
        let per_chunk = (CHUNK_BYTES / (4 * TILE * TILE * n_cols * c_in)).max(1);
        let mut row = 0;
        while row < n_rows {
            let n = per_chunk.min(n_rows - row);
            let (sizes, strides) = ([TILE, TILE, n, n_cols, c_in], [line, c_in, OUT * line, OUT * c_in, 1]);
            let tiles = padded.as_strided(sizes, strides, row * OUT * line).reshape([TILE * TILE, n * n_cols * c_in]);
            let transformed = self.input.matmul(&tiles).view([TILE * TILE, n * n_cols, c_in]);
            let products = transformed.bmm(&self.kernel).view([TILE * TILE, n * n_cols * c_out]);
            let cells = self.output.matmul(&products).view([OUT, OUT, n, n_cols, c_out]);
            let mut rows = out.narrow(0, row * OUT, n * OUT).view([n, OUT, n_cols, OUT, c_out]);
            rows.copy_(&cells.permute([2, 0, 3, 1, 4]));
            row += n;
        }
        let map = out.narrow(0, 0, h).narrow(1, 0, w) + &self.bias; // [H, W, C']
        map.permute([2, 0, 1]).unsqueeze(0)
    }
}

/// The transform of a square's cells, row by row, from the transform of its sides.
fn both_sides<const ROWS: usize, const COLS: usize>(side: &[[f64; COLS]; ROWS]) -> Tensor {
    let side = Tensor::from_slice(side.as_flattened()).view([ROWS as i64, COLS as i64]);
    side.kron(&side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn winograd_convolution_equals_the_plain_one_in_double_precision() {
        tch::manual_seed(1);
        for (c_in, c_out, h, w) in [(128, 128, 116, 116), (128, 256, 58, 58), (256, 128, 5, 7), (3, 2, 1, 1), (4, 4, 4, 9)] {
            let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Double, Device::Cpu)) * 2.0 - 1.0;
            let (x, weight, bias) = (random(&[1, c_in, h, w]), random(&[c_out, c_in, 3, 3]), random(&[c_out]));
            let plain = x.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1);
            let float = |tensor: &Tensor| tensor.to_kind(Kind::Float);
            let conv = WinogradConv::new(&float(&weight), &float(&bias));
            let got = conv.forward(&float(&x));
            assert_eq!(got.size(), plain.size());
            let scale = (9.0 * c_in as f64).sqrt();
            let difference = (got.to_kind(Kind::Double) - &plain).abs().max().double_value(&[]) / scale;
            assert!(difference < 5e-5, "{c_in} to {c_out} channels, {h} x {w}: {difference}");
        }
    }
}
