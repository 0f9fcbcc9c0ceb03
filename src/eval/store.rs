//! A report as files: `report.json` for programs, `report.html` for people.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cloud::PointCloud;
use crate::data::Source;
use crate::viz::{self, BirdseyeOptions, BoxText, ColourBy, Scene, Theme, View};

use super::page::{self, Picture};
use super::report::{EvalReport, FrameScore, Origin, to_json};
use super::{EvalError, EvalOptions};

/// Longer edge of a picture's map, in pixels.
const PICTURE_EDGE_PX: f64 = 900.0;

/// Files of a report in their folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFiles {
    /// Everything, for programs.
    pub json: PathBuf,
    /// The same for people.
    pub html: PathBuf,
}

impl ReportFiles {
    /// Makes the folder and refuses one that holds a report already, unless `overwrite` is set. To be called before the work.
    ///
    /// # Errors
    /// [`EvalError::ReportExists`], [`EvalError::Write`].
    pub fn prepare(folder: &Path, overwrite: bool) -> Result<Self, EvalError> {
        let files = Self { json: folder.join("report.json"), html: folder.join("report.html") };
        if !overwrite && let Some(there) = [&files.json, &files.html].into_iter().find(|file| file.exists()) {
            return Err(EvalError::ReportExists { path: there.display().to_string() });
        }
        fs::create_dir_all(folder).map_err(|error| write_error(folder, error))?;
        Ok(files)
    }

    /// Writes both. The worst frames are loaded again for their pictures; one that cannot be loaded any more has none.
    ///
    /// # Errors
    /// [`EvalError::Write`], [`EvalError::Picture`].
    pub fn write(
        &self,
        report: &EvalReport,
        origin: &Origin,
        source: &dyn Source,
        options: &EvalOptions,
    ) -> Result<(), EvalError> {
        let pictures = report.worst_frames.iter().filter_map(|score| {
            let sample = source.load(options.epoch, score.index).ok()?;
            Some(picture(report, score, &sample.cloud))
        });
        let pictures = pictures.collect::<Result<Vec<_>, _>>()?;
        write_aside(&self.json, to_json(report, origin).as_bytes())?;
        write_aside(&self.html, page::render(report, origin, &pictures).as_bytes())
    }
}

fn picture<'a>(report: &EvalReport, score: &'a FrameScore, cloud: &PointCloud) -> Result<Picture<'a>, EvalError> {
    let view = View::of_grid(report.model.range_m);
    let options = BirdseyeOptions {
        view,
        px_per_m: PICTURE_EDGE_PX / view.longest_edge_m(),
        theme: Theme::Dark,
        colour_by: ColourBy::Height,
        span: viz::value_span(cloud, ColourBy::Height),
        box_text: BoxText::Score,
    };
    let title = format!("{}  {} missed, {} false", score.frame, score.missed, score.false_alarms);
    let scene = Scene {
        title: &title,
        cloud,
        detections: &score.detections,
        class_names: &report.model.classes,
        truth: Some(&score.truth),
    };
    let png = viz::render_birdseye(&scene, &options).and_then(|picture| viz::encode_png(&picture));
    Ok(Picture { score, png: png.map_err(|source| EvalError::Picture { frame: score.frame.clone(), source })? })
}

/// Writes beside the file and renames, so that a full disk leaves the old one.
fn write_aside(path: &Path, bytes: &[u8]) -> Result<(), EvalError> {
    let aside = path.with_extension("part");
    let written = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    written.map_err(|error| write_error(path, error))
}

fn write_error(path: &Path, source: std::io::Error) -> EvalError {
    EvalError::Write { path: path.display().to_string(), source }
}
