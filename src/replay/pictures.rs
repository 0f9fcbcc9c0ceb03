//! The pictures of a replay, one scale and one colour span for all so that they can be flipped through.

use std::path::PathBuf;

use super::ReplayError;
use super::out_dir::write_file;
use crate::cloud::PointCloud;
use crate::geometry::Box3d;
use crate::model::spec::ModelSpec;
use crate::postprocess::Detection;
use crate::viz::{self, BirdseyeOptions, BoxText, ColourBy, Scene, Theme, View};

/// Which frames are drawn and how.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureOptions {
    /// Every how many clouds one is drawn; 0 draws none.
    pub every: u64,
    /// Longer edge of the map in pixels.
    pub edge_px: u32,
    /// Half the edge of the square around the sensor that is shown, in metres; `None` shows the model's range.
    pub range_m: Option<f64>,
    /// Colours.
    pub theme: Theme,
    /// What the colour of a point means.
    pub colour_by: ColourBy,
}

impl Default for PictureOptions {
    fn default() -> Self {
        Self { every: 1, edge_px: 1000, range_m: None, theme: Theme::Dark, colour_by: ColourBy::Height }
    }
}

pub(super) struct Pictures {
    folder: PathBuf,
    every: u64,
    class_names: Vec<String>,
    birdseye: BirdseyeOptions,
    has_span: bool,
}

impl Pictures {
    /// Refuses options that no picture of the model's clouds can meet.
    pub(super) fn new(folder: PathBuf, options: &PictureOptions, spec: &ModelSpec) -> Result<Self, ReplayError> {
        let view = options.range_m.map_or_else(|| View::of_grid(spec.grid.range), View::around);
        let birdseye = BirdseyeOptions {
            view,
            px_per_m: f64::from(options.edge_px) / view.longest_edge_m(),
            theme: options.theme,
            colour_by: options.colour_by,
            span: [0.0, 1.0],
            box_text: BoxText::Score,
        };
        birdseye.check(&spec.input.features).map_err(ReplayError::Picture)?;
        Ok(Self { folder, every: options.every, class_names: spec.classes.clone(), birdseye, has_span: false })
    }

    /// Draws the frame if it is its turn; gives its path relative to the page.
    ///
    /// The colour span is that of the first cloud with points, whether it is drawn or not.
    pub(super) fn draw(
        &mut self,
        index: u64,
        topic: &str,
        cloud: &PointCloud,
        detections: &[Detection],
        truth: Option<&[Box3d]>,
    ) -> Result<Option<String>, ReplayError> {
        if !self.has_span && cloud.n_points() > 0 {
            self.birdseye.span = viz::value_span(cloud, self.birdseye.colour_by);
            self.has_span = true;
        }
        if self.every == 0 || !index.is_multiple_of(self.every) {
            return Ok(None);
        }
        let title = format!("frame {index}  {topic}");
        let scene = Scene { title: &title, cloud, detections, class_names: &self.class_names, truth };
        let picture = viz::render_birdseye(&scene, &self.birdseye).map_err(ReplayError::Picture)?;
        let name = format!("{index:06}.png");
        write_file(&self.folder.join(&name), &viz::encode_png(&picture).map_err(ReplayError::Picture)?)?;
        Ok(Some(format!("frames/{name}")))
    }
}
