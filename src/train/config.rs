//! The YAML of a run: a small difference from documented defaults.
//!
//! Sections belong to the parts they configure; this file puts them together, applies `--set key=value` and checks the whole.
//! `config/train/README.md` has every key, held to this file by a test ([`super::config_table`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SettingError;
use super::loss::LossWeights;
use super::optim::AdamSettings;
use super::schedule::ScheduleSettings;
use super::targets::TargetSettings;
use crate::data::augment::AugmentConfig;
use crate::data::loader::LoaderConfig;
use crate::distill::DistillConfig;
use crate::model::directory::WeightsDtype;
use crate::model::spec::{ModelSpec, SpecError};
use crate::pipeline::Precision;

/// A run, whole. Defaults are those of the published configurations where they have one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// What is trained: name of a built-in spec, or path of a spec.yaml. Must be set.
    pub model: String,
    /// `[xmin, ymin, zmin, xmax, ymax, zmax]` in metres instead of the spec's; none.
    pub range: Option<[f32; 6]>,
    /// Key of initial weights and of the order of samples; 0.
    pub seed: u64,
    /// Key of augmentation and of endless sources; 0. Runs that share it see the same frames, so they can share a teacher dump.
    pub data_seed: u64,
    /// Passes over the data; 30.
    pub epochs: u64,
    /// Names of classes in the data that are not the model's, with the model's name for them; none.
    pub class_names: BTreeMap<String, String>,
    /// Arithmetic of the convolutions in forward and backward passes; weights and everything else are f32. f32.
    pub precision: Precision,
    /// Share of the old average of the weights in the new one; validation and the final model then use the average. 0: no average.
    pub ema_decay: f64,
    /// Share of old and new in Adam, decay, clipping.
    pub optimizer: AdamSettings,
    /// Learning rate and momentum over the run.
    pub schedule: ScheduleSettings,
    /// Weights of the detection losses.
    pub loss: LossWeights,
    /// Gaussians on the heat map.
    pub targets: TargetSettings,
    /// What is done to training frames at random.
    pub augment: AugmentConfig,
    /// What the student takes from a teacher; null: nothing.
    pub distill: Option<DistillConfig>,
    /// How batches are made ahead of the device.
    pub loader: LoaderConfig,
    /// When the run is saved.
    pub checkpoints: CheckpointSettings,
    /// When the run is evaluated.
    pub validation: ValidationSettings,
    /// Steps a line of the log is a mean over; 10.
    pub log_every_steps: u64,
    /// CPU threads of libtorch; 0 leaves it to libtorch. Another number gives other last bits.
    pub num_threads: i32,
    /// Element type of the weights in the model directories; `f16` halves them. f32.
    pub model_dtype: ModelDtype,
}

/// Element type of weights on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelDtype {
    /// Exact.
    F32,
    /// Rounded; validation uses the rounded ones too.
    F16,
}

impl From<ModelDtype> for WeightsDtype {
    fn from(dtype: ModelDtype) -> Self {
        match dtype {
            ModelDtype::F32 => Self::F32,
            ModelDtype::F16 => Self::F16,
        }
    }
}

/// When the run is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Steps between checkpoints; one is also written before each evaluation and at the end. 200.
    pub every_steps: u64,
    /// Newest checkpoints kept; 2.
    pub keep: usize,
}

/// When the run is evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationSettings {
    /// Epochs between evaluations on the validation source; one more follows the last epoch. 0: only after the last. 5.
    pub every_epochs: u64,
    /// Frames evaluated, evenly spread over the source; 0 takes all. 0.
    pub max_frames: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            range: None,
            seed: 0,
            data_seed: 0,
            epochs: 30,
            class_names: BTreeMap::new(),
            precision: Precision::F32,
            ema_decay: 0.0,
            optimizer: AdamSettings::default(),
            schedule: ScheduleSettings::default(),
            loss: LossWeights::default(),
            targets: TargetSettings::default(),
            augment: AugmentConfig::default(),
            distill: None,
            loader: LoaderConfig::default(),
            checkpoints: CheckpointSettings::default(),
            validation: ValidationSettings::default(),
            log_every_steps: 10,
            num_threads: 0,
            model_dtype: ModelDtype::F32,
        }
    }
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every_steps: 200, keep: 2 }
    }
}

impl Default for ValidationSettings {
    fn default() -> Self {
        Self { every_epochs: 5, max_frames: 0 }
    }
}

/// Keys that hold one of several kinds: a kind that is set takes the place of the one that is there.
const EITHER_OR: [&str; 1] = ["distill.teacher.from"];

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Of the file.
        path: PathBuf,
        /// Why.
        r#source: std::io::Error,
    },
    /// Not YAML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {assignment}: {reason}")]
    Override {
        /// As typed.
        assignment: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Values that break rules, all of them.
    #[error("{origin}: {}", .problems.join("; "))]
    Values {
        /// The file.
        origin: String,
        /// One `key = value: rule` each.
        problems: Vec<String>,
    },
    /// The spec named by `model`, or what `range` makes of it.
    #[error("model = {model}: {source}")]
    Spec {
        /// As configured.
        model: String,
        /// What is wrong with it.
        r#source: SpecError,
    },
}

impl RunConfig {
    /// Reads a file and applies `key=value` overrides in order; keys are dotted paths, values are YAML.
    ///
    /// # Errors
    /// [`ConfigError`], with every broken rule at once.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let config = Self::load_unchecked(path, overrides)?;
        config.check(&path.display().to_string())?;
        Ok(config)
    }

    /// As [`Self::load`], but values may break rules, for whoever wants to say more about them than that.
    ///
    /// # Errors
    /// All of [`ConfigError`] but [`ConfigError::Values`] and [`ConfigError::Spec`].
    pub fn load_unchecked(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// Parses YAML and applies overrides; `origin` names the text in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_yaml(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let config = Self::parse(text, origin, overrides)?;
        config.check(origin)?;
        Ok(config)
    }

    fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let syntax = |message: String| ConfigError::Syntax { origin: origin.to_owned(), message };
        let config: Self = serde_saphyr::from_str(text).map_err(|error| syntax(error.to_string()))?;
        config.with_overrides(overrides)
    }

    /// YAML with every key; reading it gives an equal configuration.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] when a value cannot be written.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_saphyr::to_string(self)
            .map_err(|error| ConfigError::Syntax { origin: "the configuration".to_owned(), message: error.to_string() })
    }

    /// An assignment may leave something to those after it, as a section that is switched on key by key does; refused is the first
    /// from which on the configuration is none.
    fn with_overrides(self, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut config = self;
        let mut tree = None;
        let mut unfinished = None;
        for assignment in overrides {
            let refused = |reason: String| ConfigError::Override { assignment: assignment.clone(), reason };
            let mut changed = match tree.take() {
                Some(tree) => tree,
                None => serde_json::to_value(&config).map_err(|error| refused(error.to_string()))?,
            };
            assign(&mut changed, assignment).map_err(refused)?;
            match Self::deserialize(&changed) {
                Ok(whole) => (config, unfinished) = (whole, None),
                Err(error) => {
                    unfinished.get_or_insert_with(|| refused(error.to_string()));
                    tree = Some(changed);
                }
            }
        }
        unfinished.map_or(Ok(config), Err)
    }

    /// The spec of the model that is trained, with the configured range.
    ///
    /// # Errors
    /// [`ConfigError::Spec`].
    pub fn spec(&self) -> Result<ModelSpec, ConfigError> {
        let refused = |source| ConfigError::Spec { model: self.model.clone(), source };
        let mut spec = if self.model.ends_with(".yaml") || self.model.contains('/') {
            let path = PathBuf::from(&self.model);
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path, source })?;
            ModelSpec::from_yaml(&text, &self.model).map_err(refused)?
        } else {
            ModelSpec::builtin(&self.model).map_err(refused)?
        };
        if let Some(range) = self.range {
            spec.grid.range = range;
            spec.check("range").map_err(refused)?;
        }
        Ok(spec)
    }

    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// [`ConfigError::Values`] with one entry for each broken rule, or what is wrong with the spec.
    pub fn check(&self, origin: &str) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, key: &str, value: &dyn std::fmt::Debug, rule: &str| {
            if !holds {
                problems.push(format!("{key} = {value:?}: {rule}"));
            }
        };
        let Self { model, epochs, ema_decay, checkpoints, log_every_steps, num_threads, .. } = self;
        rule(!model.is_empty(), "model", model, "must name a built-in spec or the path of a spec.yaml");
        rule((1..=100_000).contains(epochs), "epochs", epochs, "1 to 100000");
        rule((0.0..1.0).contains(ema_decay), "ema_decay", ema_decay, "0 <= decay < 1");
        rule(checkpoints.every_steps >= 1, "checkpoints.every_steps", &checkpoints.every_steps, "1 or more");
        rule((1..=1000).contains(&checkpoints.keep), "checkpoints.keep", &checkpoints.keep, "1 to 1000");
        rule(*log_every_steps >= 1, "log_every_steps", log_every_steps, "1 or more");
        rule((0..=1024).contains(num_threads), "num_threads", num_threads, "0 to 1024");
        let sections = [
            ("optimizer", self.optimizer.check()),
            ("schedule", self.schedule.check()),
            ("loss", self.loss.check()),
            ("targets", self.targets.check()),
            ("augment", self.augment.check()),
            ("loader", self.loader.check()),
        ];
        let mut add = |section: &str, result: Result<(), SettingError>| {
            if let Err(SettingError { key, value, rule }) = result {
                problems.push(format!("{section}.{key} = {value}: {rule}"));
            }
        };
        for (section, result) in sections {
            add(section, result);
        }
        if !self.model.is_empty() {
            let classes = self.spec()?.classes;
            add("distill", self.distill.as_ref().map_or(Ok(()), |distill| distill.check(classes.len())));
            for (from, to) in self.class_names.iter().filter(|(_, to)| !classes.contains(to)) {
                problems.push(format!("class_names.{from} = {to}: must be one of {}", classes.join(", ")));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Values { origin: origin.to_owned(), problems }) }
    }
}

/// Sets one key; sections that are not there or null come into being. Keys that there are not are refused when the tree is read.
fn assign(tree: &mut Value, assignment: &str) -> Result<(), String> {
    let (key, text) = assignment.split_once('=').ok_or("must be key=value")?;
    let value: Value = serde_saphyr::from_str(text).map_err(|error| format!("the value is no YAML: {error}"))?;
    let mut slot = tree;
    let mut path = String::new();
    for part in key.split('.') {
        if slot.is_null() {
            *slot = Value::Object(serde_json::Map::new());
        }
        let Value::Object(fields) = slot else {
            return Err(format!("`{part}` would be inside {slot}, which has no keys"));
        };
        if EITHER_OR.contains(&path.as_str()) {
            fields.retain(|kind, _| kind == part);
        }
        slot = fields.entry(part).or_insert(Value::Null);
        path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
    }
    *slot = value;
    Ok(())
}

/// Every leaf of a configuration or another serialisable value, by dotted key.
pub fn flattened(value: &Value) -> Vec<(String, Value)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    walk(&if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, value, out);
                }
            }
            leaf => out.push((prefix.to_owned(), leaf.clone())),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}
