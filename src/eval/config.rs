//! What is measured: the settings of the official tool under their official names.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::objects::EvalFrame;
use super::shards::Generator;
use super::{EvalError, ObjectType};

/// Most cutoffs; the official choice is 101.
const MAX_CUTOFFS: usize = 10_000;
/// Most breakdown generators, and most levels of one.
const MAX_GENERATORS: usize = 64;
/// Below this the points inserted between recalls would be without number.
const MIN_RECALL_DELTA: f32 = 1e-4;

/// Settings of the metric; keys and defaults are those of Waymo's `metrics.proto` in JSON. Not supported, because they are for
/// camera-only detection: `let_metric_config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Predictions below a cutoff do not exist at that point of the curve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_cutoffs: Vec<f32>,
    /// How many cutoffs to take from the scores when there are no explicit ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_desired_score_cutoffs: Option<usize>,
    /// How objects are sorted into shards.
    pub breakdown_generator_ids: Vec<Generator>,
    /// Levels of each generator.
    pub difficulties: Vec<Difficulties>,
    /// How predictions and ground truth are paired.
    pub matcher_type: MatcherType,
    /// Least overlap of a pair by the number of the object type: unknown, vehicle, pedestrian, sign, cyclist.
    pub iou_thresholds: Vec<f32>,
    /// What overlap means.
    pub box_type: BoxType,
    /// Recalls of the curve farther apart than this get points between them. Default 0.05.
    #[serde(default = "default_recall_delta")]
    pub desired_recall_delta: f32,
    /// Precisions below this count as 0. Default 0.
    #[serde(default)]
    pub min_precision: f32,
    /// Pairs whose heading accuracy is not above this are left out altogether. Default -1.
    #[serde(default = "default_heading_accuracy")]
    pub min_heading_accuracy: f32,
}

fn default_recall_delta() -> f32 {
    0.05
}

fn default_heading_accuracy() -> f32 {
    -1.0
}

/// Levels of one generator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difficulties {
    /// None means LEVEL_2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
}

/// Ground truth of a higher difficulty than the level is no miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Only ground truth without difficulty.
    #[serde(rename = "UNKNOWN")]
    Unknown = 0,
    /// Easy ones.
    #[serde(rename = "LEVEL_1")]
    Level1 = 1,
    /// All.
    #[serde(rename = "LEVEL_2")]
    Level2 = 2,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Level1 => "LEVEL_1",
            Self::Level2 => "LEVEL_2",
        })
    }
}

/// How predictions and ground truth are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatcherType {
    /// The pairs whose overlaps have the greatest sum.
    #[serde(rename = "TYPE_HUNGARIAN")]
    Hungarian,
    /// The best score chooses first.
    #[serde(rename = "TYPE_SCORE_FIRST")]
    ScoreFirst,
}

/// What overlap means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoxType {
    /// Volumes of upright boxes.
    #[serde(rename = "TYPE_3D")]
    Upright3d,
    /// Areas of footprints; z and height count as 0 everywhere.
    #[serde(rename = "TYPE_2D")]
    Rotated2d,
    /// Areas of footprints along the axes; z, height and heading count as 0 everywhere.
    #[serde(rename = "TYPE_AA_2D")]
    AxisAligned2d,
}

impl BoxType {
    /// Whether no number of a box is ignored.
    pub fn keeps_everything(self) -> bool {
        self == Self::Upright3d
    }
}

impl MetricsConfig {
    /// The leaderboard's settings: by type and by range, both levels, 101 cutoffs.
    pub fn leaderboard() -> Self {
        let both = Difficulties { levels: vec![Level::Level1, Level::Level2] };
        Self {
            score_cutoffs: (0..100).map(|i| (f64::from(i) * 0.01) as f32).chain([1.0]).collect(),
            num_desired_score_cutoffs: None,
            breakdown_generator_ids: vec![Generator::ObjectType, Generator::Range],
            difficulties: vec![both.clone(), both],
            matcher_type: MatcherType::Hungarian,
            iou_thresholds: vec![0.0, 0.7, 0.5, 0.5, 0.5],
            box_type: BoxType::Upright3d,
            desired_recall_delta: default_recall_delta(),
            min_precision: 0.0,
            min_heading_accuracy: default_heading_accuracy(),
        }
    }

    /// Whether every key obeys its rule.
    ///
    /// # Errors
    /// [`EvalError::Config`] with the first that does not.
    pub fn check(&self) -> Result<(), EvalError> {
        let require = |holds: bool, key, rule: &str, got: String| {
            if holds { Ok(()) } else { Err(EvalError::Config { key, rule: rule.to_owned(), got }) }
        };
        let n_cutoffs = self.score_cutoffs.len();
        require(n_cutoffs <= MAX_CUTOFFS, "score_cutoffs", "at most 10000 cutoffs", n_cutoffs.to_string())?;
        let finite = self.score_cutoffs.iter().all(|c| c.is_finite());
        require(finite, "score_cutoffs", "must be finite", format!("{:?}", self.score_cutoffs))?;
        let desired = self.num_desired_score_cutoffs;
        let has_cutoffs = n_cutoffs > 0 || desired.is_some_and(|n| (1..=MAX_CUTOFFS).contains(&n));
        let rule = "1 to 10000 where score_cutoffs is empty";
        require(has_cutoffs, "num_desired_score_cutoffs", rule, desired.map_or("none".to_owned(), |n| n.to_string()))?;
        let (n_generators, n_levels) = (self.breakdown_generator_ids.len(), self.difficulties.len());
        require((1..=MAX_GENERATORS).contains(&n_generators), "breakdown_generator_ids", "1 to 64", n_generators.to_string())?;
        let rule = format!("one entry for each of {n_generators} breakdown_generator_ids");
        require(n_levels == n_generators, "difficulties", &rule, n_levels.to_string())?;
        let most = self.difficulties.iter().map(|d| d.levels.len()).max().unwrap_or(0);
        require(most <= MAX_GENERATORS, "difficulties", "at most 64 levels each", most.to_string())?;
        let thresholds = &self.iou_thresholds;
        let fits = thresholds.len() == 5 && thresholds.iter().all(|t| (0.0..=1.0).contains(t));
        require(fits, "iou_thresholds", "5 numbers from 0 to 1, by object type", format!("{thresholds:?}"))?;
        let (delta, rule) = (self.desired_recall_delta, "0.0001 to 1");
        require((MIN_RECALL_DELTA..=1.0).contains(&delta), "desired_recall_delta", rule, delta.to_string())?;
        require(self.min_precision.is_finite(), "min_precision", "must be finite", self.min_precision.to_string())?;
        let accuracy = self.min_heading_accuracy;
        require(accuracy.is_finite(), "min_heading_accuracy", "must be finite", accuracy.to_string())
    }

    /// Levels of the generator at `index`, in order.
    pub fn levels(&self, index: usize) -> Vec<Level> {
        match self.difficulties.get(index).map(|d| d.levels.as_slice()) {
            None | Some([]) => vec![Level::Level2],
            Some(levels) => levels.to_vec(),
        }
    }

    /// Least overlap of a pair of that type.
    pub(super) fn iou_threshold(&self, object_type: ObjectType) -> f32 {
        self.iou_thresholds[object_type as usize]
    }

    /// The explicit cutoffs, or else as many as wanted at even shares of the sorted scores.
    pub(super) fn resolved_cutoffs(&self, frames: &[EvalFrame]) -> Vec<f32> {
        match (self.score_cutoffs.as_slice(), self.num_desired_score_cutoffs) {
            ([], Some(n_wanted)) => {
                let mut scores: Vec<f32> = frames.iter().flat_map(|f| f.predictions.iter().map(|p| p.score)).collect();
                scores.sort_by(f32::total_cmp);
                cutoffs_from_scores(&scores, n_wanted)
            }
            (explicit, _) => explicit.to_vec(),
        }
    }
}

/// Cutoffs at the boundaries of buckets of as equal size as whole numbers allow; even steps where scores are too few.
fn cutoffs_from_scores(sorted_scores: &[f32], n_wanted: usize) -> Vec<f32> {
    if n_wanted == 1 {
        return vec![0.0];
    }
    let n_buckets = n_wanted - 1;
    if n_wanted >= sorted_scores.len() {
        return even_cutoffs((1.0 / n_buckets as f64) as f32);
    }
    let mut cutoffs = vec![sorted_scores[0]];
    let mut start = 0;
    for bucket in 0..n_buckets - 1 {
        start += (sorted_scores.len() - start) / (n_buckets - bucket);
        cutoffs.push(sorted_scores[start].clamp(0.0, 1.0));
    }
    cutoffs.push(1.0);
    cutoffs
}

/// 0, step, 2 step, … added up in f32, and 1 unless the last step all but reached it.
fn even_cutoffs(step: f32) -> Vec<f32> {
    let mut cutoffs = Vec::new();
    let mut next = 0.0_f32;
    while next < 1.0 {
        cutoffs.push(next);
        next += step;
    }
    if cutoffs.last().is_some_and(|last| f64::from(1.0 - last) > f64::from(step) * 0.5) {
        cutoffs.push(1.0);
    }
    cutoffs
}
