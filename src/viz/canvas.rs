//! A pixel map one can draw lines, polygons and text on.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point as TextPoint, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, PixmapPaint, PremultipliedColorU8, Rect, Stroke, Transform};

use super::VizError;
use super::palette::{Rgb, mix};

/// An opaque picture. Everything drawn outside is cut off.
pub(super) struct Canvas {
    pub(super) pixmap: Pixmap,
}

impl Canvas {
    pub(super) fn new(width_px: u32, height_px: u32, ground: Rgb) -> Result<Self, VizError> {
        let size = VizError::Size { width_px: width_px.into(), height_px: height_px.into() };
        let mut pixmap = Pixmap::new(width_px, height_px).ok_or(size)?;
        pixmap.fill(colour(ground, 1.0));
        Ok(Self { pixmap })
    }

    pub(super) fn width(&self) -> f32 {
        self.pixmap.width() as f32
    }

    pub(super) fn height(&self) -> f32 {
        self.pixmap.height() as f32
    }

    pub(super) fn fill(&mut self, path: &Path, rgb: Rgb, opacity: f32) {
        self.pixmap.fill_path(path, &paint(rgb, opacity), FillRule::Winding, Transform::identity(), None);
    }

    pub(super) fn stroke(&mut self, path: &Path, rgb: Rgb, opacity: f32, stroke: &Stroke) {
        self.pixmap.stroke_path(path, &paint(rgb, opacity), stroke, Transform::identity(), None);
    }

    pub(super) fn fill_rect(&mut self, left: f32, top: f32, width: f32, height: f32, rgb: Rgb, opacity: f32) {
        if let Some(rect) = Rect::from_xywh(left, top, width, height) {
            self.pixmap.fill_rect(rect, &paint(rgb, opacity), Transform::identity(), None);
        }
    }

    /// Text with its upper left corner at the given pixel; characters outside Latin-1 become `?`.
    pub(super) fn text(&mut self, left: f32, top: f32, text: &str, font: &MonoFont<'_>, rgb: Rgb) {
        let style = MonoTextStyle::new(font, Rgb888::new(rgb[0], rgb[1], rgb[2]));
        let place = TextPoint::new(left.round() as i32, top.round() as i32);
        let Ok(_next) = Text::with_baseline(text, place, style, Baseline::Top).draw(self);
    }

    /// Another picture, unscaled, with its upper left corner at the given pixel.
    pub(super) fn paste(&mut self, left: i32, top: i32, other: &Canvas) {
        self.pixmap.draw_pixmap(left, top, other.pixmap.as_ref(), &PixmapPaint::default(), Transform::identity(), None);
    }

    /// Lays a colour over one pixel.
    pub(super) fn blend(&mut self, pixel_idx: usize, rgb: Rgb, opacity: f32) {
        let Some(pixel) = self.pixmap.pixels_mut().get_mut(pixel_idx) else { return };
        let blended =
            [(pixel.red(), rgb[0]), (pixel.green(), rgb[1]), (pixel.blue(), rgb[2])].map(|(from, to)| mix(from, to, opacity));
        if let Some(opaque) = PremultipliedColorU8::from_rgba(blended[0], blended[1], blended[2], u8::MAX) {
            *pixel = opaque;
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.pixmap.width(), self.pixmap.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        for Pixel(place, text_colour) in pixels {
            if let (Ok(column), Ok(row)) = (u32::try_from(place.x), u32::try_from(place.y))
                && column < width
                && row < height
            {
                let rgb = [text_colour.r(), text_colour.g(), text_colour.b()];
                self.blend(row as usize * width as usize + column as usize, rgb, 1.0);
            }
        }
        Ok(())
    }
}

/// Width of a text in pixels.
pub(super) fn text_width(text: &str, font: &MonoFont<'_>) -> f32 {
    text.chars().count() as f32 * (font.character_size.width + font.character_spacing) as f32
}

/// The text, shortened with dots to a width in pixels.
pub(super) fn fitted(text: &str, font: &MonoFont<'_>, width_px: f32) -> String {
    let room = (width_px / text_width("x", font)).max(0.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let dots = room.min(3);
    text.chars().take(room - dots).chain(std::iter::repeat_n('.', dots)).collect()
}

/// A line or polygon through pixel positions; `None` when it has no extent or is not finite.
pub(super) fn polyline(places: &[(f32, f32)], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (place_idx, (column, row)) in places.iter().enumerate() {
        if place_idx == 0 { builder.move_to(*column, *row) } else { builder.line_to(*column, *row) }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}

/// A stroke of some width in pixels with round ends.
pub(super) fn stroke(width: f32) -> Stroke {
    Stroke { width, line_cap: tiny_skia::LineCap::Round, line_join: tiny_skia::LineJoin::Round, ..Stroke::default() }
}

fn colour(rgb: Rgb, opacity: f32) -> Color {
    let alpha = (opacity.clamp(0.0, 1.0) * 255.0).round() as u8;
    Color::from_rgba8(rgb[0], rgb[1], rgb[2], alpha)
}

fn paint(rgb: Rgb, opacity: f32) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(colour(rgb, opacity));
    paint
}
