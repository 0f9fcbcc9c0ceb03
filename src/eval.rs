//! Detection metrics of the Waymo Open Dataset without TensorFlow: AP and APH by class, range and difficulty.
//!
//! [`measure`] takes frames of predictions and ground truth and gives one [`Breakdown`] per shard and level, equal to what the
//! official tool computes. [`plain::measure`] is the same rules written down one after the other; [`fast`] gets the same numbers
//! with less work, on all cores. Both share the rules that are not about speed: which objects belong together ([`shards`]), what
//! a matching counts as ([`counting`]) and the average over recalls ([`average`]).
//!
//! [`evaluate`] runs a model over a source of labelled frames and measures it; [`store`] writes what it found as JSON and as a page.
//!
//! # Source
//! Behaviour after `waymo-research/waymo-open-dataset` (2025-04-29), `metrics/`; compared with the op of its PyPI wheel 1.6.7.

pub mod assignment;
pub mod average;
pub mod config;
pub mod counting;
pub mod fast;
pub mod frames;
pub mod json;
pub mod matching;
pub mod objects;
pub mod overlap;
pub mod page;
pub mod plain;
pub mod report;
pub mod run;
pub mod shards;
pub mod sparse_assignment;
pub mod store;

use average::{Curve, average_precision};
use config::{Level, MetricsConfig};
use counting::Counts;
pub use frames::Region;
pub use objects::{EvalFrame, GroundTruth, ObjectType, Prediction};
pub use report::EvalReport;
pub use run::{EvalOptions, evaluate, evaluate_with_progress};
use shards::Generator;

/// AP and APH of all shards and levels, in the order of the configuration: generator, shard, level.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The scores at which precision and recall were measured.
    pub score_cutoffs: Vec<f32>,
    /// One per generator, shard and level.
    pub breakdowns: Vec<Breakdown>,
}

/// The metric of one shard at one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakdown {
    /// As the official tool prints it, for instance `RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_2`.
    pub name: String,
    /// What sorted the objects.
    pub generator: Generator,
    /// Which of the generator's shards.
    pub shard: usize,
    /// Which ground truth counts when it is missed.
    pub level: Level,
    /// Average precision, 0 to 1 up to rounding of f32.
    pub ap: f32,
    /// Average precision weighted by heading accuracy.
    pub aph: f32,
    /// What was counted at each cutoff.
    pub curve: Curve,
}

impl Metrics {
    /// The breakdown of that generator, shard and level, if it was asked for.
    pub fn breakdown(&self, generator: Generator, shard: usize, level: Level) -> Option<&Breakdown> {
        self.breakdowns.iter().find(|b| (b.generator, b.shard, b.level) == (generator, shard, level))
    }

    /// The headline of the leaderboard: the mean of the LEVEL_2 APH of vehicles, pedestrians and cyclists. `None` when the
    /// configuration has no breakdown by type at LEVEL_2.
    pub fn mean_aph_level_2(&self) -> Option<f32> {
        let types = [ObjectType::Vehicle, ObjectType::Pedestrian, ObjectType::Cyclist];
        let aph = |t: ObjectType| Some(self.breakdown(Generator::ObjectType, t as usize - 1, Level::Level2)?.aph);
        Some(types.into_iter().map(aph).sum::<Option<f32>>()? / types.len() as f32)
    }
}

/// Measures with the work spread over all cores.
///
/// # Errors
/// A configuration that breaks its rules, objects that are not finite, or more objects in a frame than can be matched.
pub fn measure(frames: &[EvalFrame], config: &MetricsConfig) -> Result<Metrics, EvalError> {
    measure_with(frames, config, fast::tally)
}

/// What [`measure`] and [`plain::measure`] share: checks, cutoffs, and the ratios after counting.
fn measure_with(
    frames: &[EvalFrame],
    config: &MetricsConfig,
    tally: impl Fn(&[EvalFrame], &MetricsConfig, &[f32]) -> Tally,
) -> Result<Metrics, EvalError> {
    config.check()?;
    for (index, frame) in frames.iter().enumerate() {
        frame.check(index)?;
    }
    let score_cutoffs = config.resolved_cutoffs(frames);
    let reduced: Vec<EvalFrame>;
    let frames = if config.box_type.keeps_everything() {
        frames
    } else {
        reduced = frames.iter().map(|frame| frame.reduced(config.box_type)).collect();
        &reduced
    };
    let tally = tally(frames, config, &score_cutoffs);
    let mut breakdowns = Vec::new();
    for (index, &generator) in config.breakdown_generator_ids.iter().enumerate() {
        for (shard, counts) in tally[index].iter().enumerate() {
            for level in config.levels(index) {
                let curve = Curve::new(counts, level, config.min_precision);
                breakdowns.push(Breakdown {
                    name: format!("{}_{level}", generator.shard_name(shard)),
                    generator,
                    shard,
                    level,
                    ap: average_precision(&curve.precisions, &curve.recalls, config.desired_recall_delta),
                    aph: average_precision(&curve.precisions_ha, &curve.recalls, config.desired_recall_delta),
                    curve,
                });
            }
        }
    }
    Ok(Metrics { score_cutoffs, breakdowns })
}

/// Counts over all frames by generator (in the order of the configuration), shard and cutoff.
type Tally = Vec<Vec<Vec<Counts>>>;

/// Nothing counted yet.
fn empty_tally(config: &MetricsConfig, n_cutoffs: usize) -> Tally {
    let shards = |generator: &Generator| vec![vec![Counts::default(); n_cutoffs]; generator.n_shards()];
    config.breakdown_generator_ids.iter().map(shards).collect()
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A key of the configuration.
    #[error("config.{key}: {rule}, got {got}")]
    Config {
        /// Which.
        key: &'static str,
        /// What it must be.
        rule: String,
        /// What it is.
        got: String,
    },
    /// An object that cannot be measured.
    #[error("frame {frame}, {what} {index}: {reason}")]
    Object {
        /// Position of the frame in the list.
        frame: usize,
        /// Prediction or ground truth.
        what: &'static str,
        /// Which of the frame.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// More objects in one frame than are matched.
    #[error("frame {frame} has {got} {what}, at most {limit} can be matched")]
    TooMany {
        /// Position of the frame in the list.
        frame: usize,
        /// Predictions or ground truths.
        what: &'static str,
        /// How many it has.
        got: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Classes of the model or names of classes that cannot be measured.
    #[error("{0}")]
    Classes(String),
    /// A picture of the report.
    #[error("picture of {frame}: {source}")]
    Picture {
        /// Which frame.
        frame: crate::data::SampleId,
        /// Why it cannot be drawn.
        r#source: crate::viz::VizError,
    },
    /// A report is there and was not to be replaced.
    #[error("{path} is there already; name another folder, or say --overwrite")]
    ReportExists {
        /// The file.
        path: String,
    },
    /// A report that cannot be written.
    #[error("writing {path}: {source}")]
    Write {
        /// Of the file or folder.
        path: String,
        /// Why.
        r#source: std::io::Error,
    },
    /// A file of the metric's JSON format.
    #[error("{path}: {reason}")]
    Json {
        /// Of the file.
        path: String,
        /// What is wrong, with key and place.
        reason: String,
    },
}
