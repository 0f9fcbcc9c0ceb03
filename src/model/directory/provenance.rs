//! Where a model comes from, as its directory says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Fingerprint;
use crate::data::statistics::DataStatistics;

/// What made a model, from what, and how good it was found to be. Holds nothing that differs between two equal runs,
/// unless the caller gives a date.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program that wrote the directory.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Its command line, or what stands for it.
    pub command: String,
    /// The data the weights were made from, in words.
    pub data: String,
    /// The file the weights were taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFile>,
    /// What an import decided and left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportRecord>,
    /// How `trainer train` made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingRecord>,
    /// What the training data looked like, for [`crate::doctor`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_statistics: Option<DataStatistics>,
    /// Figures of merit by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// When, if the caller wished to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

/// Everything a training run can be repeated from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// Commit of the code, `-dirty` where files differed from it, or `unknown`.
    pub revision: String,
    /// Key of initial weights and of the order of frames.
    pub seed: u64,
    /// Key of augmentation.
    pub data_seed: u64,
    /// Steps of the optimiser behind the weights.
    pub steps: u64,
    /// What was trained on.
    pub data: Fingerprint,
    /// What the metrics were measured on.
    pub validation: Option<Fingerprint>,
    /// SHA-256 of the teacher's weights, or what a dump says of its teacher.
    pub teacher: Option<String>,
    /// SHA-256 of the weights that were inherited from.
    pub inherited: Option<String>,
    /// SHA-256 of the ground-truth database.
    pub gt_database: Option<String>,
    /// CPU threads of libtorch, on which the last bits depend.
    pub n_threads: i32,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// The run's configuration, every key.
    pub config: serde_json::Value,
}

/// A file by name and content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name without folders.
    pub file: String,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// What is known of an imported checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRecord {
    /// `zip` or `legacy`.
    pub format: String,
    /// Epochs done.
    pub epoch: Option<i64>,
    /// Iterations done.
    pub iteration: Option<i64>,
    /// The checkpoint's own `version`.
    pub writer: Option<String>,
    /// Layout of sparse kernels in the checkpoint; the directory always has spconv 2.x's.
    pub sparse_layout: Option<String>,
    /// Tensors of `model_state` that are counters of the training framework and were left out.
    pub dropped_tensors: Vec<String>,
    /// Tensors that were stored with fewer bits and are f32 now.
    pub widened_tensors: Vec<String>,
    /// Everything else in the file that was not read.
    pub skipped: Vec<String>,
}

impl Provenance {
    /// For something that this program made.
    pub fn new(command: &str, data: &str) -> Self {
        Self {
            tool: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            data: data.to_owned(),
            source: None,
            import: None,
            training: None,
            data_statistics: None,
            metrics: BTreeMap::new(),
            date: None,
        }
    }

    /// JSON text with a final newline.
    ///
    /// # Errors
    /// The serialiser's words, or the name of a metric that is not finite, which JSON cannot hold.
    pub fn to_json(&self) -> Result<String, String> {
        if let Some((name, value)) = self.metrics.iter().find(|(_, value)| !value.is_finite()) {
            return Err(format!("metric `{name}` is {value}, JSON has finite numbers only"));
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        Ok(text + "\n")
    }

    /// Reads JSON; unknown keys are refused.
    ///
    /// # Errors
    /// The parser's words with line and column.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}
