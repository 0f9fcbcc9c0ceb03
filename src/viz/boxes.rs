//! Boxes with heading, class colour and score; true boxes dashed.

use embedded_graphics::mono_font::iso_8859_1::FONT_6X12;
use tiny_skia::StrokeDash;

use super::canvas::{Canvas, polyline, stroke, text_width};
use super::palette::{Rgb, Style};
use super::view::Projection;
use super::{BoxText, Scene};
use crate::geometry::Box3d;

/// Boxes with a longer edge than this many view edges are no boxes any more, and their strokes would overflow.
const MAX_EDGE_VIEWS: f64 = 4.0;

/// A detection that was drawn.
struct Shown {
    corners: [(f32, f32); 4],
    text: String,
    rgb: Rgb,
}

/// Draws true boxes below detections, weak detections below strong ones; gives the number of boxes not shown.
pub(super) fn draw_boxes(
    map: &mut Canvas,
    scene: &Scene<'_>,
    projection: &Projection,
    style: &Style,
    box_text: BoxText,
) -> usize {
    let mut outside = 0;
    let dashes = StrokeDash::new(vec![5.0, 4.0], 0.0);
    for truth in scene.truth.unwrap_or_default() {
        match corners_px(truth, projection) {
            Some(corners) => {
                if let Some(outline) = polyline(&corners, true) {
                    map.stroke(&outline, style.truth, 0.9, &tiny_skia::Stroke { dash: dashes.clone(), ..stroke(1.3) });
                }
                draw_heading(map, truth, projection, style.truth, 1.3);
            }
            None => outside += 1,
        }
    }
    let mut shown = Vec::new();
    for detection in scene.detections.iter().rev() {
        match corners_px(&detection.box3d, projection) {
            Some(corners) => {
                let rgb = style.class(detection.class_idx);
                if let Some(outline) = polyline(&corners, true) {
                    map.fill(&outline, rgb, 0.16);
                    map.stroke(&outline, rgb, 1.0, &stroke(1.8));
                }
                draw_heading(map, &detection.box3d, projection, rgb, 1.8);
                let text = match box_text {
                    BoxText::Score => format!("{:.2}", detection.score),
                    BoxText::Class => scene.class_names.get(detection.class_idx).cloned().unwrap_or_default(),
                };
                shown.push(Shown { corners, text, rgb });
            }
            None => outside += 1,
        }
    }
    draw_texts(map, &shown, style);
    outside
}

/// A line from the middle to a little beyond the front edge.
fn draw_heading(map: &mut Canvas, box3d: &Box3d, projection: &Projection, rgb: Rgb, width: f32) {
    let ahead = box3d.size[0] / 2.0 + 1.0;
    let tip = (box3d.center[0] + ahead * box3d.yaw.cos(), box3d.center[1] + ahead * box3d.yaw.sin());
    let places = [projection.pixel(box3d.center[0], box3d.center[1]), projection.pixel(tip.0, tip.1)];
    if let Some(line) = polyline(&places, false) {
        map.stroke(&line, rgb, 1.0, &stroke(width));
    }
}

/// Texts right of their boxes, best first; one that would lie over a better one is left out.
fn draw_texts(map: &mut Canvas, shown: &[Shown], style: &Style) {
    let mut taken: Vec<[f32; 4]> = Vec::new();
    for Shown { corners, text, rgb } in shown.iter().rev() {
        let right = corners.iter().map(|corner| corner.0).fold(f32::NEG_INFINITY, f32::max);
        let top = corners.iter().map(|corner| corner.1).fold(f32::INFINITY, f32::min);
        let (width, height) = (text_width(text, &FONT_6X12) + 4.0, 12.0);
        let left = (right + 3.0).min(map.width() - width).max(0.0).round();
        let top = (top - 2.0).min(map.height() - height).max(0.0).round();
        let label = [left, top, left + width, top + height];
        let free = taken
            .iter()
            .all(|other| label[0] >= other[2] || other[0] >= label[2] || label[1] >= other[3] || other[1] >= label[3]);
        if free {
            map.fill_rect(left, top, width, height, style.ground, 0.75);
            map.text(left + 2.0, top, text, &FONT_6X12, *rgb);
            taken.push(label);
        }
    }
}

/// Footprint in pixels, `None` when it is not shown.
fn corners_px(box3d: &Box3d, projection: &Projection) -> Option<[(f32, f32); 4]> {
    let longest_m = projection.view.longest_edge_m() * MAX_EDGE_VIEWS;
    let drawable = box3d.to_row().iter().all(|value| value.is_finite()) && box3d.size[0].max(box3d.size[1]) <= longest_m;
    let footprint = box3d.footprint();
    (drawable && projection.shows(&footprint)).then(|| footprint.map(|[x_m, y_m]| projection.pixel(x_m, y_m)))
}
