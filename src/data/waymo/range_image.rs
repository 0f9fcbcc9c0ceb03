//! Range images: one laser, one return, [H, W, channels] of f32, and the limits under which they are unpacked.

use std::io::Read;

use flate2::read::ZlibDecoder;
use prost::Message;

use super::proto::MatrixFloat;

/// Range, intensity, elongation, no-label-zone flag.
pub const RANGE_CHANNELS: usize = 4;
/// Roll, pitch, yaw, x, y, z.
pub const POSE_CHANNELS: usize = 6;
/// Largest inflated matrix. The pose image of the top laser has 4 MB; this allows for a laser sixteen times as dense.
pub const MAX_INFLATED: usize = 64 << 20;

/// What a laser saw, or the pose of the vehicle for each of its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeImage {
    /// H, beams from the highest down.
    pub height: usize,
    /// W, from the back clockwise round.
    pub width: usize,
    /// [`RANGE_CHANNELS`] or [`POSE_CHANNELS`].
    pub channels: usize,
    /// `[H, W, channels]` row-major.
    pub values: Vec<f32>,
}

impl RangeImage {
    /// Puts values and shape together.
    ///
    /// # Errors
    /// When they do not belong together, both sides in words.
    pub fn new(values: Vec<f32>, shape: &[i32], channels: usize) -> Result<Self, String> {
        let sizes: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let Some(&[height, width, stored_channels]) = sizes.as_deref() else {
            return Err(format!("shape is {shape:?}, expected [H, W, {channels}]"));
        };
        if stored_channels != channels {
            return Err(format!("shape is {shape:?}, expected [H, W, {channels}]"));
        }
        let expected = height.checked_mul(width).and_then(|n_pixels| n_pixels.checked_mul(channels));
        if expected != Some(values.len()) {
            return Err(format!("{} values, its shape {shape:?} needs {}", values.len(), expected.unwrap_or(usize::MAX)));
        }
        Ok(Self { height, width, channels, values })
    }

    /// Inflates and parses a compressed `MatrixFloat`.
    ///
    /// # Errors
    /// A broken stream, one that inflates to more than [`MAX_INFLATED`], one that is no matrix, or values that do not fill the shape.
    pub(super) fn from_zlib(compressed: &[u8], channels: usize) -> Result<Self, String> {
        let matrix = MatrixFloat::decode(inflate(compressed, MAX_INFLATED)?.as_slice())
            .map_err(|error| format!("is no MatrixFloat: {error}"))?;
        let shape = matrix.shape.ok_or("has no shape")?;
        Self::new(matrix.data, &shape.dims, channels)
    }

    /// The rows of one line of pixels, each `channels` long.
    pub(super) fn pixels(&self, row_idx: usize) -> std::slice::ChunksExact<'_, f32> {
        let row_length = self.width * self.channels;
        self.values[row_idx * row_length..(row_idx + 1) * row_length].chunks_exact(self.channels)
    }
}

fn inflate(compressed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut inflated = Vec::new();
    let mut decoder = ZlibDecoder::new(compressed).take(limit as u64 + 1);
    decoder.read_to_end(&mut inflated).map_err(|error| format!("{} bytes are no zlib stream: {error}", compressed.len()))?;
    if inflated.len() > limit {
        return Err(format!("{} bytes inflate to more than {limit}", compressed.len()));
    }
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::super::proto::MatrixShape;
    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn matrix(n_values: usize, dims: &[i32]) -> Vec<u8> {
        deflate(&MatrixFloat { data: vec![1.5; n_values], shape: Some(MatrixShape { dims: dims.to_vec() }) }.encode_to_vec())
    }

    #[test]
    fn packed_and_unpacked_matrices_are_the_same() {
        let packed = RangeImage::from_zlib(&matrix(8, &[1, 2, 4]), 4).unwrap();
        let unpacked_values: Vec<u8> = (0..8).flat_map(|_| [&[0x0d][..], &1.5_f32.to_le_bytes()].concat()).collect();
        let unpacked = deflate(&[&unpacked_values[..], &[0x12, 5, 0x0a, 3, 1, 2, 4]].concat());
        assert_eq!(RangeImage::from_zlib(&unpacked, 4).unwrap(), packed);
    }

    #[test]
    fn wrong_images_say_both_sides() {
        let bomb = deflate(&vec![0; MAX_INFLATED + 1]);
        assert!(bomb.len() < 100_000);
        let cases: [(&[u8], &str); 8] = [
            (&matrix(7, &[1, 2, 4]), "7 values, its shape [1, 2, 4] needs 8"),
            (&matrix(8, &[2, 4]), "shape is [2, 4], expected [H, W, 4]"),
            (&matrix(8, &[1, 1, 8]), "shape is [1, 1, 8], expected [H, W, 4]"),
            (&matrix(8, &[-1, -2, 4]), "shape is [-1, -2, 4]"),
            (&matrix(8, &[i32::MAX, i32::MAX, 4]), "8 values, its shape"),
            (&deflate(&[0x0a, 0xff]), "is no MatrixFloat"),
            (b"no zlib", "7 bytes are no zlib stream"),
            (&bomb, "inflate to more than 67108864"),
        ];
        for (compressed, expected) in cases {
            let reason = RangeImage::from_zlib(compressed, 4).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
