//! What a replay did, for the terminal, the page and exit codes.

use std::fmt;
use std::path::PathBuf;

use super::latency::LatencyStats;
use super::truth::TruthMatches;
use crate::device;
use crate::pipeline::Pipeline;

/// What a replay did.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySummary {
    /// The bag as it was named.
    pub bag: PathBuf,
    /// Topic of the clouds.
    pub topic: String,
    /// The model.
    pub model: ModelInfo,
    /// Clouds that went through the pipeline.
    pub n_processed: u64,
    /// Clouds that did not.
    pub malformed: Vec<MalformedCloud>,
    /// Damage of the bag, one line each.
    pub losses: Vec<String>,
    /// What a person should know about the bag although nothing is lost by it.
    pub notes: Vec<String>,
    /// Whether the replay was stopped before its end.
    pub interrupted: bool,
    /// Name and type of the topics that were not replayed.
    pub other_topics: Vec<(String, String)>,
    /// Boxes in all clouds.
    pub n_boxes: u64,
    /// Boxes by class, in the model's order.
    pub boxes_per_class: Vec<(String, u64)>,
    /// Comparison with true boxes, when there were some.
    pub truth: Option<TruthMatches>,
    /// Measured times by stage.
    pub latency: Vec<(&'static str, LatencyStats)>,
    /// From opening the bag to the last file, in seconds.
    pub wall_s: f64,
    /// Whether `foxglove.mcap` was written.
    pub foxglove: bool,
    /// The page.
    pub page: PathBuf,
    /// How the program was called.
    pub command_line: String,
}

/// The model of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Name in the spec.
    pub name: String,
    /// Where it ran.
    pub device: String,
    /// SHA-256 of the weights' file.
    pub weights_sha256: String,
    /// Grid and classes in one line.
    pub spec_line: String,
    /// What the weights were made from, in words.
    pub provenance: String,
}

impl ModelInfo {
    /// Of a model directory and the pipeline made from it. `provenance` says in words what the weights were made from.
    pub fn new(weights_sha256: &str, provenance: &str, pipeline: &Pipeline) -> Self {
        let spec = pipeline.spec();
        let [x_min, y_min, _, x_max, y_max, _] = spec.grid.range;
        let [cell, ..] = spec.grid.voxel_size;
        Self {
            name: spec.name.clone(),
            device: format!("{} ({})", device::name(pipeline.device()), pipeline.device_reason()),
            weights_sha256: weights_sha256.to_owned(),
            spec_line: format!("x {x_min} to {x_max} m, y {y_min} to {y_max} m, cells of {cell} m; {}", spec.classes.join(", ")),
            provenance: provenance.to_owned(),
        }
    }
}

/// A cloud that could not be decoded or processed.
#[derive(Debug, Clone, PartialEq)]
pub struct MalformedCloud {
    /// Which cloud of the topic.
    pub index: u64,
    /// When the recorder got it, nanoseconds.
    pub log_time_ns: i64,
    /// Seconds and nanoseconds of its header, when that could be read.
    pub stamp: Option<(i32, u32)>,
    /// What is wrong with it.
    pub reason: String,
}

impl ReplaySummary {
    /// Whether something of the bag could not be processed.
    pub fn loss(&self) -> bool {
        !self.losses.is_empty() || !self.malformed.is_empty()
    }

    /// Clouds per second of the whole program.
    pub fn frames_per_s(&self) -> f64 {
        if self.wall_s > 0.0 { self.n_processed as f64 / self.wall_s } else { 0.0 }
    }
}

/// Losses printed; the page lists more.
const MAX_PRINTED: usize = 10;

impl fmt::Display for ReplaySummary {
    /// Several lines for a terminal, the latency table included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = if self.interrupted { " (stopped before the end)" } else { "" };
        writeln!(f, "{}: {} clouds of {}{stopped}", self.bag.display(), self.n_processed, self.topic)?;
        let classes: Vec<String> = self.boxes_per_class.iter().map(|(class, n_boxes)| format!("{class} {n_boxes}")).collect();
        writeln!(f, "{} boxes: {}", self.n_boxes, classes.join(", "))?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for (name, ros_type) in &self.other_topics {
            writeln!(f, "not replayed: {name} ({ros_type})")?;
        }
        if let Some(matches) = &self.truth {
            for class in &matches.classes {
                writeln!(f, "{class}")?;
            }
            if matches.n_outside > 0 {
                writeln!(f, "not counted: {} true boxes outside of the model's range", matches.n_outside)?;
            }
        }
        if self.loss() {
            let malformed = self.malformed.iter().map(|cloud| format!("cloud {}: {}", cloud.index, cloud.reason));
            let lines: Vec<String> = self.losses.iter().cloned().chain(malformed).collect();
            writeln!(f, "finished with loss:")?;
            for line in lines.iter().take(MAX_PRINTED) {
                writeln!(f, "  {line}")?;
            }
            if lines.len() > MAX_PRINTED {
                writeln!(f, "  and {} more", lines.len() - MAX_PRINTED)?;
            }
        }
        writeln!(f, "{:<12} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms per cloud", "mean", "p50", "p95", "p99", "max")?;
        for (stage, stats) in &self.latency {
            let LatencyStats { mean_ms, p50_ms, p95_ms, p99_ms, max_ms, .. } = stats;
            writeln!(f, "{stage:<12} {mean_ms:>9.2} {p50_ms:>9.2} {p95_ms:>9.2} {p99_ms:>9.2} {max_ms:>9.2}")?;
        }
        writeln!(f, "page: {}", self.page.display())
    }
}
