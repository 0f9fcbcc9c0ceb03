//! The metric's JSON files: objects, configuration, results.
//!
//! Boxes, speeds and scores are rounded to f32, as the official TensorFlow op takes them; what f32 cannot hold is refused. Keys that are not listed are ignored:
//! files carry descriptions and the like.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::geometry::Box3d;

use super::config::MetricsConfig;
use super::objects::{EvalFrame, GroundTruth, ObjectType, Prediction};
use super::{Breakdown, EvalError, Metrics};

/// Largest file read.
const MAX_FILE_BYTES: u64 = 1 << 31;

#[derive(Deserialize)]
struct InputFile {
    predictions: Vec<PredictionRow>,
    ground_truths: Vec<GroundTruthRow>,
}

#[derive(Deserialize)]
struct PredictionRow {
    frame: i64,
    #[serde(rename = "type")]
    object_type: u64,
    score: f32,
    overlap_with_nlz: bool,
    #[serde(rename = "box")]
    row: [f32; 7],
}

#[derive(Deserialize)]
struct GroundTruthRow {
    frame: i64,
    #[serde(rename = "type")]
    object_type: u64,
    difficulty: u8,
    #[serde(default)]
    speed: [f32; 2],
    #[serde(rename = "box")]
    row: [f32; 7],
}

/// Reads `predictions` and `ground_truths`, each a list of objects with a `frame`. Frames come in the order of their numbers.
///
/// # Errors
/// [`EvalError::Json`] for files that cannot be read or break the format, with line or object and key.
pub fn read_input(path: &Path) -> Result<Vec<EvalFrame>, EvalError> {
    let input: InputFile = read(path)?;
    let mut frames: BTreeMap<i64, EvalFrame> = BTreeMap::new();
    let fail = |reason| EvalError::Json { path: path.display().to_string(), reason };
    let known_type = |list: &str, index: usize, number: u64| {
        let rule = || fail(format!("{list}[{index}].type: must be 0 (unknown) to 4 (cyclist), got {number}"));
        ObjectType::from_number(number).ok_or_else(rule)
    };
    for (index, p) in input.predictions.iter().enumerate() {
        frames.entry(p.frame).or_default().predictions.push(Prediction {
            box3d: Box3d::from_row(p.row.map(f64::from)),
            object_type: known_type("predictions", index, p.object_type)?,
            score: p.score,
            overlaps_no_label_zone: p.overlap_with_nlz,
        });
    }
    for (index, g) in input.ground_truths.iter().enumerate() {
        if g.difficulty > 2 {
            return Err(fail(format!("ground_truths[{index}].difficulty: must be 0, 1 or 2, got {}", g.difficulty)));
        }
        frames.entry(g.frame).or_default().ground_truths.push(GroundTruth {
            box3d: Box3d::from_row(g.row.map(f64::from)),
            object_type: known_type("ground_truths", index, g.object_type)?,
            difficulty: g.difficulty,
            speed_mps: g.speed.map(f64::from),
        });
    }
    Ok(frames.into_values().collect())
}

/// Reads the object `config` of any JSON file; a file of results has one, too.
///
/// # Errors
/// [`EvalError::Json`] where there is none or its keys are not those of [`MetricsConfig`]; [`EvalError::Config`] for values that
/// break a rule.
pub fn read_config(path: &Path) -> Result<MetricsConfig, EvalError> {
    #[derive(Deserialize)]
    struct ConfigFile {
        config: MetricsConfig,
    }
    let ConfigFile { config } = read(path)?;
    config.check()?;
    Ok(config)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, EvalError> {
    let fail = |reason: String| EvalError::Json { path: path.display().to_string(), reason };
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(fail(format!("has {size} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))
}

#[derive(Serialize)]
struct OutputFile<'a> {
    config: &'a MetricsConfig,
    num_score_cutoffs: usize,
    score_cutoffs: &'a [f32],
    breakdowns: Vec<BreakdownRow<'a>>,
}

/// A breakdown as the files have it.
#[derive(Serialize)]
pub(super) struct BreakdownRow<'a> {
    name: &'a str,
    generator: u8,
    shard: usize,
    level: u8,
    #[serde(rename = "AP")]
    ap: f32,
    #[serde(rename = "APH")]
    aph: f32,
    #[serde(flatten)]
    counts: Option<CountRows<'a>>,
}

impl<'a> BreakdownRow<'a> {
    pub(super) fn new(b: &'a Breakdown) -> Self {
        let Breakdown { name, generator, shard, level, ap, aph, curve } = b;
        let counts = (!curve.is_empty()).then_some(CountRows {
            tp: &curve.true_positives,
            fp: &curve.false_positives,
            misses: &curve.false_negatives,
            precision_ha: &curve.precisions_ha,
        });
        Self { name, generator: *generator as u8, shard: *shard, level: *level as u8, ap: *ap, aph: *aph, counts }
    }
}

#[derive(Serialize)]
struct CountRows<'a> {
    tp: &'a [u32],
    fp: &'a [u32],
    #[serde(rename = "fn")]
    misses: &'a [u32],
    precision_ha: &'a [f32],
}

/// Configuration and results as JSON; lists by cutoff are left out where nothing was counted at all.
pub fn write(metrics: &Metrics, config: &MetricsConfig) -> String {
    let breakdowns = metrics.breakdowns.iter().map(BreakdownRow::new).collect();
    let file =
        OutputFile { config, num_score_cutoffs: metrics.score_cutoffs.len(), score_cutoffs: &metrics.score_cutoffs, breakdowns };
    serde_json::to_string(&file).expect("plain numbers and strings are JSON")
}
