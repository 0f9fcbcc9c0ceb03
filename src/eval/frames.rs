//! From a sample of a source to a cloud for the network and the ground truth that counts.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cloud::columns::for_network;
use crate::cloud::{InputSpec, PointCloud};
use crate::data::inside::{BoxIndex, OWNERSHIP_MARGIN_M};
use crate::data::prepare::ClassMap;
use crate::data::{Label, Sample, Source};
use crate::geometry::Box3d;
use crate::model::spec::ModelSpec;
use crate::pipeline::panic_text;
use crate::time::millis;

use super::objects::{GroundTruth, ObjectType, difficulty_of};

/// Which objects count, found or annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Those whose middle lies, seen from above, within the model's grid. What it cannot see is no miss.
    #[default]
    Model,
    /// All of them.
    Everything,
}

impl Region {
    /// Whether an object counts for a model with that grid range.
    pub(super) fn holds(self, range: [f32; 6], box3d: &Box3d) -> bool {
        self == Self::Everything || box3d.has_middle_in(range)
    }
}

/// Where the labels of one class went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LabelCounts {
    /// Ground truth of LEVEL_1.
    pub level_1: u64,
    /// Ground truth of LEVEL_2 only.
    pub level_2: u64,
    /// Left out because no point lies inside.
    pub without_points: u64,
    /// Left out because the middle lies outside of the region.
    pub outside_region: u64,
}

/// Everything but the source that makes a frame ready.
#[derive(Debug)]
pub(super) struct Readying<'a> {
    pub input: &'a InputSpec,
    pub range: [f32; 6],
    pub classes: ClassMap,
    /// Of the model's classes.
    pub object_types: Vec<ObjectType>,
    pub region: Region,
    pub epoch: u64,
}

/// A frame that can be evaluated.
#[derive(Debug)]
pub(super) struct ReadyFrame {
    /// With the network's columns.
    pub cloud: PointCloud,
    pub ground_truths: Vec<GroundTruth>,
    pub labels: FrameLabels,
    pub n_points: u64,
    /// Reading or making it.
    pub load_ms: f64,
    /// From the sample's columns to the network's.
    pub columns_ms: f64,
}

/// Labels of a frame by class, and those the model does not look for.
#[derive(Debug, Default)]
pub(super) struct FrameLabels {
    pub by_class: Vec<LabelCounts>,
    pub of_other_classes: BTreeMap<String, u64>,
}

/// What became of a frame before the network saw it.
#[derive(Debug)]
pub(super) enum Arrival {
    Ready(Box<ReadyFrame>),
    /// Nobody labelled it, so nothing can be said about it.
    Unlabelled,
    /// Why it cannot be used.
    Bad(String),
}

impl<'a> Readying<'a> {
    pub fn new(spec: &'a ModelSpec, classes: ClassMap, object_types: Vec<ObjectType>, region: Region, epoch: u64) -> Self {
        Self { input: &spec.input, range: spec.grid.range, classes, object_types, region, epoch }
    }

    /// Loads a frame. A source that panics is taken to have given an error.
    pub fn load(&self, source: &dyn Source, index: usize) -> Arrival {
        let attempt = std::panic::AssertUnwindSafe(|| self.try_load(source, index));
        match std::panic::catch_unwind(attempt) {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(reason)) => Arrival::Bad(reason),
            Err(panic) => Arrival::Bad(format!("loading it panicked: {}", panic_text(panic.as_ref()))),
        }
    }

    fn try_load(&self, source: &dyn Source, index: usize) -> Result<Arrival, String> {
        let start = Instant::now();
        let sample = source.load(self.epoch, index).map_err(|error| error.to_string())?;
        let load_ms = millis(start.elapsed());
        let Some(labels) = &sample.labels else { return Ok(Arrival::Unlabelled) };
        let (ground_truths, labels) = self.ground_truths(&sample, labels)?;
        let start = Instant::now();
        let cloud = for_network(&sample.cloud, self.input).map_err(|error| error.to_string())?;
        let columns_ms = millis(start.elapsed());
        let n_points = sample.cloud.n_points() as u64;
        Ok(Arrival::Ready(Box::new(ReadyFrame { cloud, ground_truths, labels, n_points, load_ms, columns_ms })))
    }

    fn ground_truths(&self, sample: &Sample, labels: &[Label]) -> Result<(Vec<GroundTruth>, FrameLabels), String> {
        if let Some((index, label)) = labels.iter().enumerate().find(|(_, label)| !is_finite(label)) {
            return Err(format!("label {index} ({}): box must be finite, got {:?}", label.class, label.box3d.to_row()));
        }
        let n_points = points_inside(&sample.cloud, labels);
        let mut counts = FrameLabels { by_class: vec![LabelCounts::default(); self.object_types.len()], ..Default::default() };
        let mut ground_truths = Vec::new();
        for (label, n_points) in labels.iter().zip(n_points) {
            let Some(class_idx) = self.classes.index_of(&label.class) else {
                *counts.of_other_classes.entry(label.class.clone()).or_default() += 1;
                continue;
            };
            let class = &mut counts.by_class[class_idx];
            if !self.region.holds(self.range, &label.box3d) {
                class.outside_region += 1;
                continue;
            }
            let Some(difficulty) = difficulty_of(label.difficulty, n_points) else {
                class.without_points += 1;
                continue;
            };
            match difficulty {
                1 => class.level_1 += 1,
                _ => class.level_2 += 1,
            }
            ground_truths.push(GroundTruth {
                box3d: label.box3d,
                object_type: self.object_types[class_idx],
                difficulty,
                speed_mps: label.velocity_mps.unwrap_or_default(),
            });
        }
        Ok((ground_truths, counts))
    }
}

fn is_finite(label: &Label) -> bool {
    let speed = label.velocity_mps.unwrap_or_default();
    label.box3d.to_row().iter().chain(&speed).all(|value| value.is_finite())
}

/// As the source counted them, or else by looking.
fn points_inside(cloud: &PointCloud, labels: &[Label]) -> Vec<u32> {
    let uncounted: Vec<Box3d> = labels.iter().filter(|label| label.n_points.is_none()).map(|label| label.box3d).collect();
    let n_columns = cloud.features.len().max(1);
    let mut counted = match uncounted.is_empty() {
        true => Vec::new().into_iter(),
        false => BoxIndex::new(&uncounted, OWNERSHIP_MARGIN_M).count(&cloud.points, n_columns).into_iter(),
    };
    labels.iter().map(|label| label.n_points.or_else(|| counted.next()).unwrap_or_default()).collect()
}
