//! What an evaluation found, and `report.json`.
//!
//! Everything here is the same on every run, but for [`LatencySection`].

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::data::{Finding, Fingerprint, SampleId};
use crate::device;
use crate::geometry::Box3d;
use crate::pipeline::Pipeline;
use crate::postprocess::Detection;
use crate::replay::latency::{self, FrameTimes, LatencyStats};

use super::config::{Level, MetricsConfig};
use super::frames::{LabelCounts, Region};
use super::json::BreakdownRow;
use super::objects::ObjectType;
use super::shards::Generator;
use super::{Breakdown, Metrics};

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalReport {
    /// What was evaluated.
    pub model: ModelSection,
    /// On what.
    pub data: Fingerprint,
    /// What is odd in the data.
    pub findings: Vec<Finding>,
    /// How it was measured.
    pub settings: MetricsConfig,
    /// Which objects counted.
    pub region: Region,
    /// The metric's types of the model's classes, in their order.
    #[serde(skip)]
    pub object_types: Vec<ObjectType>,
    /// Frames the source has.
    pub n_frames_of_source: u64,
    /// Frames that were to be evaluated; fewer than the source has when a limit was set.
    pub n_frames_chosen: u64,
    /// Frames that were evaluated.
    pub n_frames: u64,
    /// Frames left out because nobody labelled them.
    pub n_frames_without_labels: u64,
    /// Frames left out because something is wrong with them.
    pub bad_frames: Vec<BadFrame>,
    /// Points of the evaluated frames.
    pub n_points: u64,
    /// Those the network saw.
    pub n_points_in_voxels: u64,
    /// Labels by class of the model, in its order.
    #[serde(serialize_with = "as_map")]
    pub labels: Vec<(String, LabelCounts)>,
    /// Labels that the model does not look for, by the source's names.
    pub labels_of_other_classes: BTreeMap<String, u64>,
    /// Boxes found by class, in the model's order.
    #[serde(serialize_with = "as_map")]
    pub boxes: Vec<(String, u64)>,
    /// Boxes found and left out because their middle lies outside of the region.
    pub n_boxes_outside_region: u64,
    /// The metric.
    #[serde(rename = "breakdowns", serialize_with = "breakdown_rows")]
    pub metrics: Metrics,
    /// Score from which a box without a partner is a fault of its frame.
    pub fault_score: f32,
    /// Frames with most faults, most first.
    pub worst_frames: Vec<FrameScore>,
    /// Measured times; differs from run to run.
    pub latency: LatencySection,
}

/// The model that was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSection {
    /// Name in the spec.
    pub name: String,
    /// In the order of the heat map.
    pub classes: Vec<String>,
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` of the grid, in metres.
    pub range_m: [f32; 6],
    /// Size of a cell, in metres.
    pub voxel_size_m: [f32; 3],
}

impl ModelSection {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let spec = pipeline.spec();
        Self {
            name: spec.name.clone(),
            classes: spec.classes.clone(),
            range_m: spec.grid.range,
            voxel_size_m: spec.grid.voxel_size,
        }
    }
}

/// A frame that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadFrame {
    /// Which one.
    pub frame: SampleId,
    /// What is wrong.
    pub reason: String,
}

/// How one frame went at one score, all types and ranges together, at LEVEL_2.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameScore {
    /// Which one.
    pub frame: SampleId,
    /// Its index in the source.
    pub index: usize,
    /// Boxes with a partner.
    pub found: u32,
    /// Boxes without one.
    pub false_alarms: u32,
    /// Ground truth without one.
    pub missed: u32,
    /// Boxes from that score on, for the picture.
    #[serde(skip)]
    pub detections: Vec<Detection>,
    /// Ground truth, for the picture.
    #[serde(skip)]
    pub truth: Vec<Box3d>,
}

impl FrameScore {
    /// Misses and false alarms.
    pub fn n_faults(&self) -> u32 {
        self.false_alarms + self.missed
    }
}

/// Measured times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencySection {
    /// Where the network ran.
    pub device: String,
    /// CPU threads of tensor operations.
    pub cpu_threads: i32,
    /// Milliseconds per frame by stage; `total` runs from the loaded sample to the boxes, `read` lies outside of it and beside the
    /// network.
    pub stages: Vec<StageRow>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    /// `decode` is the choice of the network's columns, `read` the source.
    pub stage: &'static str,
    /// Over the evaluated frames.
    #[serde(flatten)]
    pub stats: LatencyStats,
}

impl LatencySection {
    pub(super) fn new(pipeline: &Pipeline, times: &[FrameTimes]) -> Self {
        const NOT_OF_EVALUATION: [&str; 2] = ["write", "picture"];
        let rows = latency::table(times).into_iter().filter(|(stage, _)| !NOT_OF_EVALUATION.contains(stage));
        Self {
            device: device::name(pipeline.device()),
            cpu_threads: device::cpu_threads(),
            stages: rows.map(|(stage, stats)| StageRow { stage, stats }).collect(),
        }
    }
}

impl EvalReport {
    /// Mean of the LEVEL_2 APH of the model's classes; for vehicles, pedestrians and cyclists it is the leaderboard's headline.
    /// `None` when the settings have no breakdown by type at LEVEL_2.
    pub fn mean_aph_level_2(&self) -> Option<f32> {
        let aph = |&object_type: &ObjectType| Some(self.by_type(object_type, Level::Level2)?.aph);
        Some(self.object_types.iter().map(aph).sum::<Option<f32>>()? / self.object_types.len() as f32)
    }

    /// The metric of one type.
    pub fn by_type(&self, object_type: ObjectType, level: Level) -> Option<&Breakdown> {
        self.metrics.breakdown(Generator::ObjectType, (object_type as usize).checked_sub(1)?, level)
    }

    /// The metric of one type in one of the three ranges, nearest first.
    pub fn by_range(&self, object_type: ObjectType, range: usize, level: Level) -> Option<&Breakdown> {
        self.metrics.breakdown(Generator::Range, (object_type as usize).checked_sub(1)? * 3 + range, level)
    }

    /// Labels left out because their middle lies outside of the region.
    pub fn n_labels_outside_region(&self) -> u64 {
        self.labels.iter().map(|(_, counts)| counts.outside_region).sum()
    }

    /// Classes of the model with their types.
    pub fn classes(&self) -> impl Iterator<Item = (&str, ObjectType)> {
        self.model.classes.iter().map(String::as_str).zip(self.object_types.iter().copied())
    }
}

/// Where a report comes from; not known to an evaluation in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// As typed.
    pub command: String,
    /// SHA-256 of the weights' file.
    pub weights_sha256: String,
    /// Arithmetic of the convolutions.
    pub precision: crate::pipeline::Precision,
}

/// The contents of `report.json`.
pub fn to_json(report: &EvalReport, origin: &Origin) -> String {
    #[derive(Serialize)]
    struct File<'a> {
        #[serde(flatten)]
        origin: &'a Origin,
        mean_aph_level_2: Option<f32>,
        n_labels_outside_region: u64,
        #[serde(flatten)]
        report: &'a EvalReport,
    }
    let (mean_aph_level_2, n_labels_outside_region) = (report.mean_aph_level_2(), report.n_labels_outside_region());
    let file = File { origin, mean_aph_level_2, n_labels_outside_region, report };
    let mut text = serde_json::to_string_pretty(&file).expect("plain numbers and strings are JSON");
    text.push('\n');
    text
}

fn as_map<S: Serializer, V: Serialize>(pairs: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

fn breakdown_rows<S: Serializer>(metrics: &Metrics, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(metrics.breakdowns.iter().map(BreakdownRow::new))
}

/// Bad frames printed; `report.json` has all.
const MAX_PRINTED: usize = 10;

impl fmt::Display for EvalReport {
    /// Several lines for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_frames, n_frames_chosen, n_frames_without_labels, bad_frames, .. } = self;
        writeln!(f, "{} on {}", self.model.name, self.data.source)?;
        let n_bad = bad_frames.len();
        writeln!(f, "{n_frames} of {n_frames_chosen} frames; {n_frames_without_labels} without labels, {n_bad} bad")?;
        for bad in bad_frames.iter().take(MAX_PRINTED) {
            writeln!(f, "  {}: {}", bad.frame, bad.reason)?;
        }
        if n_bad > MAX_PRINTED {
            writeln!(f, "  and {} more", n_bad - MAX_PRINTED)?;
        }
        let (n_labels, n_boxes) = (self.n_labels_outside_region(), self.n_boxes_outside_region);
        if n_labels + n_boxes > 0 {
            writeln!(f, "left out because outside of the model's range: {n_labels} labels, {n_boxes} boxes")?;
        }
        writeln!(f, "{:<12} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "labels", "AP L1", "APH L1", "AP L2", "APH L2")?;
        for ((class, object_type), (_, labels)) in self.classes().zip(&self.labels) {
            write!(f, "{class:<12} {:>8}", labels.level_1 + labels.level_2)?;
            for level in [Level::Level1, Level::Level2] {
                match self.by_type(object_type, level) {
                    Some(b) => write!(f, " {:>8.4} {:>8.4}", b.ap, b.aph)?,
                    None => write!(f, " {:>8} {:>8}", "-", "-")?,
                }
            }
            writeln!(f)?;
        }
        let mean = self.mean_aph_level_2().map_or_else(|| "-".to_owned(), |mean| format!("{mean:.4}"));
        write!(f, "mean APH of LEVEL_2: {mean}")
    }
}
