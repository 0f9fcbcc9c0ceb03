//! Peaks and their regression values to boxes in metres, and the thresholds on them.

use tch::{Kind, Tensor};

use super::{Detection, Peaks, PostprocessError};
use crate::geometry::Box3d;
use crate::model::spec::PostprocessSpec;
use crate::voxel::Grid;

/// Regression channels of a peak: centre (2), centre z (1), log size (3), rotation (2).
const REGRESSION_CHANNELS: i64 = 8;

/// Columns in front of them when everything is downloaded at once: score, class, row, column.
const PEAK_COLUMNS: i64 = 4;

/// What the thresholds left.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// In the order of the peaks, best score first.
    pub detections: Vec<Detection>,
    /// Peaks over the score threshold that were dropped because score or box was not finite.
    pub n_non_finite: usize,
}

/// Boxes of peaks, filtered.
///
/// `regression` `[M, 8]` holds the raw head outputs at the peaks: offset of the centre in cells (x, y), z of the centre in
/// metres, logarithms of length, width and height in metres, cosine and sine of the heading. `stride` is the number of input
/// cells per cell of the head maps along x and y (1 for pillars).
///
/// Kept are boxes whose score exceeds the threshold of their class and that of their distance, and whose centre lies in
/// `center_limit`, borders included. Arithmetic is f32, as in the paper's code: x = (col + dx) * stride * voxel_x + range_min_x.
///
/// # Errors
/// When `regression` does not fit the peaks, a peak's class is not in `classes`, or libtorch fails.
pub fn decode_boxes(
    peaks: &Peaks,
    regression: &Tensor,
    grid: &Grid,
    stride: usize,
    classes: &[String],
    spec: &PostprocessSpec,
) -> Result<Decoded, PostprocessError> {
    let n_peaks = peaks.scores.size1()?;
    let shape = regression.size();
    if shape != [n_peaks, REGRESSION_CHANNELS] {
        let expected = format!("[{n_peaks}, {REGRESSION_CHANNELS}]");
        return Err(PostprocessError::Shape { tensor: "regression", expected, got: shape });
    }
    let filters = Filters::new(classes, spec);
    let mut decoded = Decoded { detections: Vec::new(), n_non_finite: 0 };
    for row in download(peaks, regression)?.chunks_exact((PEAK_COLUMNS + REGRESSION_CHANNELS) as usize) {
        let &[score, class, cell_y, cell_x, ref regressed @ ..] = row else { continue };
        let class = class as i64;
        let known = usize::try_from(class).ok().and_then(|idx| Some((idx, *filters.class_scores.get(idx)?)));
        let Some((class_idx, class_threshold)) = known else {
            return Err(PostprocessError::Class { expected: classes.len(), got: class });
        };
        if score <= class_threshold {
            continue;
        }
        let values = box_row([cell_x, cell_y], regressed, grid, stride as f32);
        if !score.is_finite() || values.iter().any(|value| !value.is_finite()) {
            decoded.n_non_finite += 1;
            continue;
        }
        let exceeds = filters.distance_score(&values).is_none_or(|threshold| score > threshold);
        if exceeds && filters.is_centered(&values) {
            decoded.detections.push(Detection { box3d: Box3d::from_row(values.map(f64::from)), score, class_idx });
        }
    }
    Ok(decoded)
}

/// One row of score, class, row, column and the regression values per peak, in one transfer. f32 holds every cell index exactly.
fn download(peaks: &Peaks, regression: &Tensor) -> Result<Vec<f32>, PostprocessError> {
    let columns = [&peaks.scores, &peaks.class_idx, &peaks.row, &peaks.col]
        .map(|column| column.f_to_kind(Kind::Float).and_then(|column| column.f_unsqueeze(1)));
    let mut parts = columns.into_iter().collect::<Result<Vec<_>, _>>()?;
    parts.push(regression.f_to_kind(Kind::Float)?);
    Ok(Vec::try_from(Tensor::f_cat(&parts, 1)?.f_reshape([-1])?)?)
}

/// `[x, y, z, dx, dy, dz, heading]` from cell (x, y) and the eight regressed values.
fn box_row(cell: [f32; 2], regressed: &[f32], grid: &Grid, stride: f32) -> [f32; 7] {
    let center = |axis: usize| (cell[axis] + regressed[axis]) * stride * grid.voxel_size[axis] + grid.range_min[axis];
    let (z, log_size, cos, sin) = (regressed[2], &regressed[3..6], regressed[6], regressed[7]);
    [center(0), center(1), z, log_size[0].exp(), log_size[1].exp(), log_size[2].exp(), sin.atan2(cos)]
}

/// What decides which boxes are kept.
pub(super) struct Filters<'a> {
    class_scores: Vec<f32>,
    spec: &'a PostprocessSpec,
}

impl<'a> Filters<'a> {
    pub(super) fn new(classes: &[String], spec: &'a PostprocessSpec) -> Self {
        let class_score = |class| *spec.class_score_thresholds.get(class).unwrap_or(&spec.score_threshold);
        Self { class_scores: classes.iter().map(class_score).collect(), spec }
    }

    /// The threshold of a class.
    ///
    /// # Panics
    /// When there is no such class.
    pub(super) fn class_score(&self, class_idx: usize) -> f32 {
        self.class_scores[class_idx]
    }

    /// The lowest threshold of a class.
    pub(super) fn lowest_score(&self) -> f32 {
        self.class_scores.iter().copied().fold(1.0, f32::min)
    }

    /// The threshold at a box's distance, if there is one.
    pub(super) fn distance_score(&self, values: &[f32; 7]) -> Option<f32> {
        let range_m = values[0].hypot(values[1]);
        self.spec.distance_score_thresholds.iter().rev().find(|entry| entry.from_m <= range_m).map(|entry| entry.score)
    }

    /// Whether a box's centre is within the limits.
    pub(super) fn is_centered(&self, values: &[f32; 7]) -> bool {
        let limit = &self.spec.center_limit;
        (0..3).all(|axis| (limit[axis]..=limit[axis + 3]).contains(&values[axis]))
    }
}
