//! Bird's-eye pictures of one frame: points, detections, true boxes, and what is needed to read them.
//!
//! Forward (+x) is up and left (+y) is left, as seen by someone who sits in the vehicle. Same scene and options, same bytes.

mod boxes;
mod canvas;
mod palette;
mod points;
mod surround;
mod view;

pub use palette::Theme;
pub use points::value_span;
pub use view::View;

use tiny_skia::Pixmap;

use crate::cloud::{Feature, PointCloud};
use crate::geometry::Box3d;
use crate::postprocess::Detection;

/// Longest edge of a picture in pixels; longer ones are refused before anything is allocated.
pub const MAX_EDGE_PX: u32 = 8192;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// First line of the header, for instance frame number and topic.
    pub title: &'a str,
    /// The points; its frame and stamp go into the header.
    pub cloud: &'a PointCloud,
    /// Solid boxes with heading and score, in the frame of the cloud.
    pub detections: &'a [Detection],
    /// Names for the legend, in the order of `Detection::class_idx`.
    pub class_names: &'a [String],
    /// Dashed boxes, in the frame of the cloud; `None` leaves them out of the legend too.
    pub truth: Option<&'a [Box3d]>,
}

/// How it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct BirdseyeOptions {
    /// The part of the plane that is shown.
    pub view: View,
    /// Pixels per metre.
    pub px_per_m: f64,
    /// Colours.
    pub theme: Theme,
    /// What the colour of a point means.
    pub colour_by: ColourBy,
    /// Values at the two ends of the colour bar, in the unit of `colour_by`; see [`value_span`].
    pub span: [f32; 2],
    /// What is written beside the solid boxes.
    pub box_text: BoxText,
}

/// What is written beside a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxText {
    /// How sure the detector is.
    Score,
    /// Name of the class.
    Class,
}

/// What the colour of a point means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourBy {
    /// z in metres.
    Height,
    /// The intensity column, which the cloud must have.
    Intensity,
}

/// Why a picture was refused.
#[derive(Debug, thiserror::Error)]
pub enum VizError {
    /// The picture would be empty or too large.
    #[error("picture of {width_px:.0} x {height_px:.0} px; each edge must be within 1 and {MAX_EDGE_PX}")]
    Size {
        /// Edge along y of the cloud.
        width_px: f64,
        /// Edge along x of the cloud.
        height_px: f64,
    },
    /// The colour bar has no extent.
    #[error("colour span [{min}, {max}]: both ends must be finite and the first one smaller")]
    Span {
        /// Lower end.
        min: f32,
        /// Upper end.
        max: f32,
    },
    /// Points are to be coloured by a column they do not have.
    #[error("points have no intensity column, only {got:?}")]
    NoIntensity {
        /// Columns of the cloud.
        got: Vec<Feature>,
    },
    /// PNG encoding failed.
    #[error("PNG: {0}")]
    Png(String),
}

impl BirdseyeOptions {
    /// Whether a picture of clouds with these columns can be drawn.
    ///
    /// # Errors
    /// [`VizError::Size`], [`VizError::Span`], and [`VizError::NoIntensity`] when coloured by a column that is absent.
    pub fn check(&self, columns: &[Feature]) -> Result<(), VizError> {
        view::Projection::new(self.view, self.px_per_m)?;
        let [min, max] = self.span;
        if !(min.is_finite() && max.is_finite() && min < max) {
            return Err(VizError::Span { min, max });
        }
        self.colour_by.column(columns).map(|_column| ())
    }
}

impl ColourBy {
    /// Position of the coloured quantity among the columns of a cloud.
    fn column(self, columns: &[Feature]) -> Result<usize, VizError> {
        match self {
            // Every cloud begins with x, y, z; an empty one may have no columns, and then no row is ever read.
            Self::Height => Ok(2),
            Self::Intensity => columns
                .iter()
                .position(|feature| *feature == Feature::Intensity)
                .ok_or_else(|| VizError::NoIntensity { got: columns.to_owned() }),
        }
    }
}

/// Draws one frame: header, map, footer with scale bar, legend and colour bar.
///
/// Boxes that are not finite or wholly outside the view are left out and counted in the footer.
///
/// # Errors
/// Those of [`BirdseyeOptions::check`].
pub fn render_birdseye(scene: &Scene<'_>, options: &BirdseyeOptions) -> Result<Pixmap, VizError> {
    options.check(&scene.cloud.features)?;
    let projection = view::Projection::new(options.view, options.px_per_m)?;
    let style = options.theme.style();
    let mut map = canvas::Canvas::new(projection.width_px, projection.height_px, style.ground)?;
    surround::draw_rings(&mut map, &projection, &style);
    points::draw_points(&mut map, scene.cloud, &projection, &style, options)?;
    surround::draw_ring_labels(&mut map, &projection, &style);
    surround::draw_ego(&mut map, &projection, &style);
    let outside = boxes::draw_boxes(&mut map, scene, &projection, &style, options.box_text);
    surround::compose(&map, scene, options, &projection, &style, outside)
}

/// The file bytes of a picture.
///
/// # Errors
/// [`VizError::Png`].
pub fn encode_png(picture: &Pixmap) -> Result<Vec<u8>, VizError> {
    picture.encode_png().map_err(|err| VizError::Png(err.to_string()))
}
