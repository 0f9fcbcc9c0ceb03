//! Points as small soft dots, the highest value of a pixel giving its colour.

use super::canvas::Canvas;
use super::palette::Style;
use super::view::Projection;
use super::{BirdseyeOptions, ColourBy, VizError};
use crate::cloud::PointCloud;

/// Edge of a dot in metres; pixels bound it below and above so that far and near scales both stay readable.
const DOT_M: f64 = 0.16;
const DOT_PX: std::ops::RangeInclusive<f64> = 1.3..=3.0;

/// How much of a pixel one dot that covers it hides; several dots add up.
const DOT_OPACITY: f32 = 0.8;

pub(super) fn draw_points(
    map: &mut Canvas,
    cloud: &PointCloud,
    projection: &Projection,
    style: &Style,
    options: &BirdseyeOptions,
) -> Result<(), VizError> {
    let value_column = options.colour_by.column(&cloud.features)?;
    let dot_px = (DOT_M * projection.px_per_m).clamp(*DOT_PX.start(), *DOT_PX.end()) as f32;
    let (width, height) = (projection.width_px as usize, projection.height_px as usize);
    let mut layer =
        Layer { width, height, top_value: vec![f32::NEG_INFINITY; width * height], coverage: vec![0.0; width * height] };
    for point in cloud.rows() {
        let place = projection.pixel(point[0].into(), point[1].into());
        layer.add_dot(place, dot_px, point[value_column]);
    }
    let [span_min, span_max] = options.span;
    for (pixel_idx, (value, coverage)) in layer.top_value.iter().zip(&layer.coverage).enumerate() {
        if *coverage > 0.0 {
            let rgb = style.ramp((value - span_min) / (span_max - span_min));
            map.blend(pixel_idx, rgb, 1.0 - (1.0 - DOT_OPACITY).powf(*coverage));
        }
    }
    Ok(())
}

/// Per pixel: the highest value of the dots on it, and the sum of the parts of it that they cover.
struct Layer {
    width: usize,
    height: usize,
    top_value: Vec<f32>,
    coverage: Vec<f32>,
}

impl Layer {
    /// A square dot with its middle at `place`; the parts outside the map are cut off.
    fn add_dot(&mut self, place: (f32, f32), edge_px: f32, value: f32) {
        let (left, top) = (place.0 - edge_px / 2.0, place.1 - edge_px / 2.0);
        for (row, row_share) in covered(top, edge_px, self.height) {
            for (column, column_share) in covered(left, edge_px, self.width) {
                let pixel_idx = row * self.width + column;
                self.coverage[pixel_idx] += row_share * column_share;
                self.top_value[pixel_idx] = self.top_value[pixel_idx].max(value);
            }
        }
    }
}

/// The pixels of one axis that an interval touches, with the covered share of each.
fn covered(start: f32, length: f32, n_pixels: usize) -> impl Iterator<Item = (usize, f32)> {
    let end = start + length;
    let first = start.floor().clamp(0.0, n_pixels as f32) as usize;
    let past_last = end.ceil().clamp(0.0, n_pixels as f32) as usize;
    (first..past_last).map(move |pixel| (pixel, (end.min(pixel as f32 + 1.0) - start.max(pixel as f32)).max(0.0)))
}

/// The values between which nearly all points of a cloud lie (2nd and 98th of a hundred), for [`BirdseyeOptions::span`].
///
/// Clouds without extent get a span of one unit; clouds without points or without that column get `[0, 1]`.
pub fn value_span(cloud: &PointCloud, colour_by: ColourBy) -> [f32; 2] {
    let Ok(column) = colour_by.column(&cloud.features) else { return [0.0, 1.0] };
    let mut values: Vec<f32> = cloud.rows().map(|point| point[column]).filter(|value| value.is_finite()).collect();
    if values.is_empty() {
        return [0.0, 1.0];
    }
    values.sort_unstable_by(f32::total_cmp);
    let (low, high) = (values[values.len() * 2 / 100], values[(values.len() - 1) * 98 / 100]);
    if low < high { [low, high] } else { [low - 0.5, low + 0.5] }
}
