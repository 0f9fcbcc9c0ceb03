//! What makes a map readable: rings with metres, the ego mark, header, scale bar, legend, colour bar.

use embedded_graphics::mono_font::iso_8859_1::{FONT_6X12, FONT_7X13, FONT_10X20};
use tiny_skia::{PathBuilder, Pixmap, StrokeDash};

use super::canvas::{Canvas, fitted, polyline, stroke, text_width};
use super::palette::Style;
use super::view::{Projection, View};
use super::{BirdseyeOptions, ColourBy, Scene, VizError};

const HEADER_PX: u32 = 54;
const FOOTER_PX: u32 = 44;
const MARGIN_PX: f32 = 14.0;

/// Pictures of narrow views are widened to this so that header and footer stay readable.
const MIN_WIDTH_PX: u32 = 480;

/// The largest of 1, 2, 5, 10, 20, 50, ... metres that is not above a length.
fn round_length_m(at_most_m: f64) -> f64 {
    let decade = 10f64.powf(at_most_m.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|digit| digit * decade).find(|length| *length <= at_most_m).unwrap_or(decade)
}

/// Circles around the sensor at round distances, and the two axes; below the points.
pub(super) fn draw_rings(map: &mut Canvas, projection: &Projection, style: &Style) {
    let thin = stroke(1.0);
    let (ego_column, ego_row) = projection.pixel(0.0, 0.0);
    for axis in [[(ego_column, 0.0), (ego_column, map.height())], [(0.0, ego_row), (map.width(), ego_row)]] {
        if let Some(line) = polyline(&axis, false) {
            map.stroke(&line, style.ring, 0.6, &thin);
        }
    }
    for radius_m in ring_radii_m(projection.view) {
        let mut builder = PathBuilder::new();
        builder.push_circle(ego_column, ego_row, (radius_m * projection.px_per_m) as f32);
        if let Some(circle) = builder.finish() {
            map.stroke(&circle, style.ring, 1.0, &thin);
        }
    }
}

/// The radius of each circle where it crosses +x; above the points, which are dense there.
pub(super) fn draw_ring_labels(map: &mut Canvas, projection: &Projection, style: &Style) {
    for radius_m in ring_radii_m(projection.view).take_while(|radius_m| *radius_m < projection.view.x_m[1]) {
        let (column, row) = projection.pixel(radius_m, 0.0);
        let label = format!("{radius_m} m");
        map.fill_rect(column + 3.0, row + 2.0, text_width(&label, &FONT_6X12) + 3.0, 12.0, style.ground, 0.6);
        map.text(column + 4.0, row + 2.0, &label, &FONT_6X12, style.faint_text);
    }
}

/// Round distances up to the farthest corner of the view.
fn ring_radii_m(view: View) -> impl Iterator<Item = f64> {
    let farthest = |[low, high]: [f64; 2]| low.abs().max(high.abs());
    let farthest_m = farthest(view.x_m).hypot(farthest(view.y_m));
    let step_m = round_length_m(view.longest_edge_m() / 8.0);
    // A view far from the sensor would need hundreds of rings, of which none helps.
    (1..=40).map(move |ring_idx| step_m * f64::from(ring_idx)).take_while(move |radius_m| *radius_m <= farthest_m)
}

/// An arrow head at the sensor, pointing forward.
pub(super) fn draw_ego(map: &mut Canvas, projection: &Projection, style: &Style) {
    let (column, row) = projection.pixel(0.0, 0.0);
    let arrow = [(column, row - 10.0), (column + 7.0, row + 8.0), (column, row + 4.0), (column - 7.0, row + 8.0)];
    if let Some(path) = polyline(&arrow, true) {
        map.fill(&path, style.ego, 1.0);
        map.stroke(&path, style.ground, 1.0, &stroke(1.0));
    }
}

/// Header, map and footer in one picture.
pub(super) fn compose(
    map: &Canvas,
    scene: &Scene<'_>,
    options: &BirdseyeOptions,
    projection: &Projection,
    style: &Style,
    outside: usize,
) -> Result<Pixmap, VizError> {
    let width = projection.width_px.max(MIN_WIDTH_PX);
    let mut page = Canvas::new(width, HEADER_PX + projection.height_px + FOOTER_PX, style.panel)?;
    page.paste(((width - projection.width_px) / 2) as i32, HEADER_PX as i32, map);
    draw_header(&mut page, scene, style, outside);
    let footer_top = (HEADER_PX + projection.height_px) as f32;
    let used = draw_scale_bar(&mut page, footer_top, projection, style);
    let free_until = draw_colour_bar(&mut page, footer_top, options, style);
    draw_legend(&mut page, footer_top, used + 2.0 * MARGIN_PX, free_until - MARGIN_PX, scene, style);
    Ok(page.pixmap)
}

fn draw_header(page: &mut Canvas, scene: &Scene<'_>, style: &Style, outside: usize) {
    let room = page.width() - 2.0 * MARGIN_PX;
    page.text(MARGIN_PX, 7.0, &fitted(scene.title, &FONT_10X20, room), &FONT_10X20, style.text);
    let (sec, nanosec) = scene.cloud.stamp.to_ros();
    let mut counts = format!("{} points  {} boxes", scene.cloud.n_points(), scene.detections.len());
    if let Some(truth) = scene.truth {
        counts.push_str(&format!("  {} true", truth.len()));
    }
    if outside > 0 {
        counts.push_str(&format!("  {outside} outside the view"));
    }
    let line = format!("{counts}  |  stamp {sec}.{nanosec:09} s  |  frame {}", scene.cloud.frame_id);
    page.text(MARGIN_PX, 32.0, &fitted(&line, &FONT_7X13, room), &FONT_7X13, style.faint_text);
}

/// Draws at the left of the footer; gives the column where the next thing may begin.
fn draw_scale_bar(page: &mut Canvas, footer_top: f32, projection: &Projection, style: &Style) -> f32 {
    let length_m = round_length_m(projection.view.longest_edge_m() / 7.0);
    let (left, right) = (MARGIN_PX, MARGIN_PX + (length_m * projection.px_per_m) as f32);
    let row = footer_top + 29.5;
    let label = format!("{length_m} m");
    page.text(left, footer_top + 8.0, &label, &FONT_7X13, style.text);
    let bar = [(left, row - 4.0), (left, row + 4.0), (left, row), (right, row), (right, row - 4.0), (right, row + 4.0)];
    if let Some(path) = polyline(&bar, false) {
        page.stroke(&path, style.text, 1.0, &stroke(1.6));
    }
    right.max(left + text_width(&label, &FONT_7X13))
}

/// Draws at the right of the footer; gives the column where it begins.
fn draw_colour_bar(page: &mut Canvas, footer_top: f32, options: &BirdseyeOptions, style: &Style) -> f32 {
    let [span_min, span_max] = options.span;
    let (name, unit) = match options.colour_by {
        ColourBy::Height => ("height", " m"),
        ColourBy::Intensity => ("intensity", ""),
    };
    let (low, high) = (format!("{span_min:.1}{unit}"), format!("{span_max:.1}{unit}"));
    let width = 150.0;
    let left = page.width() - MARGIN_PX - width;
    for column in 0..width as u32 {
        let rgb = style.ramp(column as f32 / (width - 1.0));
        page.fill_rect(left + column as f32, footer_top + 26.0, 1.0, 7.0, rgb, 1.0);
    }
    page.text(left, footer_top + 9.0, &low, &FONT_6X12, style.faint_text);
    page.text(left + (width - text_width(name, &FONT_6X12)) / 2.0, footer_top + 9.0, name, &FONT_6X12, style.text);
    page.text(left + width - text_width(&high, &FONT_6X12), footer_top + 9.0, &high, &FONT_6X12, style.faint_text);
    left
}

/// A swatch, name and count per class, then the true boxes; what does not fit is left out with dots.
fn draw_legend(page: &mut Canvas, footer_top: f32, left: f32, right: f32, scene: &Scene<'_>, style: &Style) {
    let middle = footer_top + 22.0;
    let mut column = left;
    let mut entries: Vec<(String, Option<usize>)> = Vec::new();
    for (class_idx, name) in scene.class_names.iter().enumerate() {
        let count = scene.detections.iter().filter(|detection| detection.class_idx == class_idx).count();
        entries.push((format!("{name} {count}"), Some(class_idx)));
    }
    if let Some(truth) = scene.truth {
        entries.push((format!("true {}", truth.len()), None));
    }
    for (text, class_idx) in entries {
        let width = 18.0 + text_width(&text, &FONT_7X13) + 18.0;
        if column + width > right {
            page.text(column, middle - 7.0, "...", &FONT_7X13, style.faint_text);
            return;
        }
        let swatch =
            [(column, middle - 5.0), (column + 11.0, middle - 5.0), (column + 11.0, middle + 5.0), (column, middle + 5.0)];
        if let Some(path) = polyline(&swatch, true) {
            match class_idx {
                Some(class_idx) => {
                    page.fill(&path, style.class(class_idx), 0.3);
                    page.stroke(&path, style.class(class_idx), 1.0, &stroke(1.8));
                }
                None => {
                    let dashed = tiny_skia::Stroke { dash: StrokeDash::new(vec![3.0, 3.0], 0.0), ..stroke(1.3) };
                    page.stroke(&path, style.truth, 0.9, &dashed);
                }
            }
        }
        page.text(column + 18.0, middle - 6.0, &text, &FONT_7X13, style.text);
        column += width;
    }
}
