//! A source at a glance: what is in it, in numbers and as a picture.

mod table;

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::recorder::points_inside;
use super::statistics::{DataStatistics, Percentiles};
use super::{DataError, Finding, Fingerprint, Sample, SampleId, Source};
use crate::postprocess::Detection;
use crate::time::Stamp;
use crate::viz::{self, BirdseyeOptions, BoxText, ColourBy, Scene, Theme, View, VizError};

/// Ends of the range bins in metres; the last bin has none.
pub const RANGE_BINS_M: [f64; 2] = [30.0, 50.0];

/// Steps longer than this times the usual one are gaps.
const GAP_FACTOR: f64 = 1.5;

/// Labels with as few points are of level 2, with none of no level.
const MAX_LEVEL_2_POINTS: u32 = 5;

/// Longer edge of the picture's map.
const PICTURE_PX: f64 = 1000.0;

/// A source in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Name and hash.
    pub fingerprint: Fingerprint,
    /// In the order of the source.
    pub drives: Vec<DriveSummary>,
    /// Frames that were loaded.
    pub looked_at: Vec<SampleId>,
    /// Frames that could not be loaded, and why.
    pub faults: Vec<String>,
    /// Frames nobody labelled, of those loaded.
    pub n_unlabelled: usize,
    /// Frames with labels but without an object, of those loaded.
    pub n_without_objects: usize,
    /// Frames with a pose in the world, of those loaded.
    pub n_with_pose: usize,
    /// Coordinate frames of the clouds.
    pub frame_ids: Vec<String>,
    /// Columns, points, sizes.
    pub statistics: DataStatistics,
    /// Distance of the points from the origin in the plane, metres.
    pub range_m: Option<Percentiles>,
    /// Points where nobody labelled; `None` where the source does not say.
    pub n_no_label_zone: Option<usize>,
    /// Points of the frames loaded.
    pub n_points: usize,
    /// By the class's name in the source.
    pub classes: BTreeMap<String, ClassSummary>,
    /// Oddities of the source.
    pub findings: Vec<Finding>,
}

/// One drive.
#[derive(Debug, Clone, PartialEq)]
pub struct DriveSummary {
    /// Its name.
    pub name: String,
    /// Frames.
    pub n_frames: usize,
    /// When it was recorded; `None` where only loading every frame would tell.
    pub times: Option<DriveTimes>,
}

/// Stamps of a drive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriveTimes {
    /// First stamp.
    pub first: Stamp,
    /// Last stamp less first.
    pub duration_s: f64,
    /// Median step from frame to frame.
    pub step_s: f64,
    /// Steps longer than one and a half times that.
    pub n_gaps: usize,
    /// The longest step.
    pub longest_step_s: f64,
    /// Steps of zero or backwards.
    pub n_backward: usize,
}

/// Labels of one class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassSummary {
    /// All of them.
    pub n: usize,
    /// Of level 1 and 2: as an annotator said, else more than five points or fewer.
    pub n_levels: [usize; 2],
    /// Without a point inside, counted in the cloud.
    pub n_without_points: usize,
    /// By distance of the centre: below each of [`RANGE_BINS_M`], and beyond.
    pub n_by_range: [usize; 3],
    /// With a declared number of points that differs from the one counted by more than a tenth and two points.
    pub n_miscounted: usize,
}

/// Loads the frames with these indices and counts.
pub fn inspect(source: &dyn Source, indices: &[usize]) -> Inspection {
    let loaded: Vec<_> = indices.par_iter().map(|&index| (source.id(index), source.load(0, index))).collect();
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    let looked_at = loaded.iter().map(|(id, _)| id.clone()).collect();
    let stamp_of = |(index, (_, result)): (&usize, &(SampleId, Result<Sample, DataError>))| {
        result.as_ref().ok().map(|sample| (*index, sample.cloud.stamp))
    };
    let loaded_stamps: BTreeMap<usize, Stamp> = indices.iter().zip(&loaded).filter_map(stamp_of).collect();
    for (id, result) in loaded {
        match result {
            Ok(sample) => samples.push(sample),
            Err(fault) => faults.push(format!("frame {id}: {}", id.reason(&fault))),
        }
    }
    let mut frame_ids: Vec<String> = samples.iter().map(|sample| sample.cloud.frame_id.clone()).collect();
    frame_ids.sort();
    frame_ids.dedup();
    let marked: Vec<&Sample> = samples.iter().filter(|sample| !sample.in_no_label_zone.is_empty()).collect();
    let n_marked = marked.iter().flat_map(|sample| &sample.in_no_label_zone).filter(|is_in| **is_in).count();
    let mut classes = BTreeMap::new();
    samples.iter().for_each(|sample| count_labels(sample, &mut classes));
    let ranges = samples.iter().flat_map(|sample| sample.cloud.rows().map(|row| f64::from(row[0].hypot(row[1]))));
    Inspection {
        fingerprint: source.fingerprint(),
        drives: drives(source, &loaded_stamps),
        looked_at,
        faults,
        n_unlabelled: samples.iter().filter(|sample| sample.labels.is_none()).count(),
        n_without_objects: samples.iter().filter(|sample| sample.labels.as_ref().is_some_and(Vec::is_empty)).count(),
        n_with_pose: samples.iter().filter(|sample| sample.world_from_cloud.is_some()).count(),
        frame_ids,
        range_m: Percentiles::of(ranges),
        n_no_label_zone: (!marked.is_empty()).then_some(n_marked),
        n_points: samples.iter().map(|sample| sample.cloud.n_points()).sum(),
        statistics: DataStatistics::of(&samples),
        classes,
        findings: source.findings(),
    }
}

fn count_labels(sample: &Sample, classes: &mut BTreeMap<String, ClassSummary>) {
    let Some(labels) = &sample.labels else { return };
    for label in labels {
        let n_inside = points_inside(&label.box3d, sample.cloud.rows());
        let class = classes.entry(label.class.clone()).or_default();
        class.n += 1;
        class.n_without_points += usize::from(n_inside == 0);
        let n_points = label.n_points.unwrap_or(n_inside);
        class.n_miscounted += usize::from(f64::from(n_points.abs_diff(n_inside)) > 2.0 + 0.1 * f64::from(n_points));
        let bin = RANGE_BINS_M.iter().take_while(|end| label.box3d.range() >= **end).count();
        class.n_by_range[bin] += 1;
        match (label.difficulty, n_points) {
            (_, 0) => {}
            (Some(2), _) | (_, 1..=MAX_LEVEL_2_POINTS) => class.n_levels[1] += 1,
            _ => class.n_levels[0] += 1,
        }
    }
}

fn drives(source: &dyn Source, loaded_stamps: &BTreeMap<usize, Stamp>) -> Vec<DriveSummary> {
    let mut stamps: Vec<(String, Vec<Option<Stamp>>)> = Vec::new();
    for index in 0..source.len() {
        let drive = source.id(index).drive;
        let stamp = source.stamp(index).or_else(|| loaded_stamps.get(&index).copied());
        match stamps.last_mut() {
            Some((name, of_drive)) if *name == drive => of_drive.push(stamp),
            _ => stamps.push((drive, vec![stamp])),
        }
    }
    let summary = |(name, stamps): (String, Vec<Option<Stamp>>)| {
        let known: Option<Vec<Stamp>> = stamps.iter().copied().collect();
        DriveSummary { name, n_frames: stamps.len(), times: known.and_then(|stamps| DriveTimes::of(&stamps)) }
    };
    stamps.into_iter().map(summary).collect()
}

impl DriveTimes {
    /// `None` without frames.
    pub fn of(stamps: &[Stamp]) -> Option<Self> {
        let (first, last) = (*stamps.first()?, *stamps.last()?);
        let mut steps_s: Vec<f64> = stamps.windows(2).map(|pair| (pair[1].nanos - pair[0].nanos) as f64 * 1e-9).collect();
        let n_backward = steps_s.iter().filter(|step| **step <= 0.0).count();
        steps_s.sort_unstable_by(f64::total_cmp);
        let step_s = steps_s.get(steps_s.len() / 2).copied().unwrap_or(0.0);
        Some(Self {
            first,
            duration_s: (last.nanos - first.nanos) as f64 * 1e-9,
            step_s,
            n_gaps: steps_s.iter().filter(|step| **step > GAP_FACTOR * step_s.max(0.0)).count(),
            longest_step_s: steps_s.last().copied().unwrap_or(0.0),
            n_backward,
        })
    }
}

/// The frame from above as PNG: points by height, boxes with the names of their classes. The view holds nearly all points.
///
/// # Errors
/// When no picture can be made of it.
pub fn picture(sample: &Sample) -> Result<Vec<u8>, VizError> {
    let labels = sample.labels.as_deref().unwrap_or_default();
    let mut class_names: Vec<String> = labels.iter().map(|label| label.class.clone()).collect();
    class_names.sort();
    class_names.dedup();
    let detections: Vec<Detection> = labels
        .iter()
        .map(|label| {
            let class_idx = class_names.iter().position(|name| *name == label.class).unwrap_or(0);
            Detection { box3d: label.box3d, score: 1.0, class_idx }
        })
        .collect();
    let reach = Percentiles::of(sample.cloud.rows().map(|row| f64::from(row[0].abs().max(row[1].abs()))));
    let view = View::around(reach.map_or(50.0, |reach| reach.p99).clamp(10.0, 100.0));
    let options = BirdseyeOptions {
        view,
        px_per_m: PICTURE_PX / view.longest_edge_m(),
        theme: Theme::Dark,
        colour_by: ColourBy::Height,
        span: viz::value_span(&sample.cloud, ColourBy::Height),
        box_text: BoxText::Class,
    };
    let labelled = if sample.labels.is_none() { ", no labels" } else { "" };
    let title = format!("{}{labelled}", sample.id);
    let scene = Scene { title: &title, cloud: &sample.cloud, detections: &detections, class_names: &class_names, truth: None };
    viz::encode_png(&viz::render_birdseye(&scene, &options)?)
}
