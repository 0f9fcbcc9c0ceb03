//! From parameter sources to a checked configuration: every problem is found and reported at once, nothing is repaired.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::args::ParamSource;
use super::autoware::parse_label;
use super::param_rule::parse_fill;
use super::param_value::{ParamFileError, ParamValue, node_pattern_matches, read_param_file};
use super::params::{DECLARATIONS, Declaration};
use crate::cloud::decode::SensorOverrides;
use crate::cloud::{Feature, IntensityMode};
use crate::model::spec::ModelSpec;
use crate::pipeline::{PipelineOptions, Precision};
use crate::postprocess::Detection;
use crate::transport::{Qos, Reliability};

/// The node's parameters after validation.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Where the model lies.
    pub model_dir: PathBuf,
    /// Device and arithmetic.
    pub pipeline: PipelineOptions,
    /// Overlap from which on boxes suppress each other, instead of the model's.
    pub nms_iou: Option<f64>,
    /// CPU threads of inference; libtorch's choice when `None`.
    pub num_threads: Option<i32>,
    /// How clouds are delivered; the depth is how many are kept while one is processed.
    pub input_qos: Qos,
    /// How clouds are read.
    pub cloud: CloudConfig,
    /// What is published of the pipeline's boxes.
    pub filter: OutputFilter,
    /// Whether `~/output/markers` exists.
    pub publish_markers: bool,
    /// Whether `~/output/report` exists.
    pub publish_report: bool,
    /// Whether `~/output/autoware_objects` exists.
    pub publish_autoware: bool,
    /// Autoware's labels of classes whose names do not say them.
    pub autoware_labels: BTreeMap<String, u8>,
    /// Whether the topics of milliseconds under `~/debug` exist.
    pub publish_timings: bool,
    /// How results are delivered.
    pub output_qos: Qos,
    /// Whether others decide when the model is loaded and clouds are processed.
    pub lifecycle: bool,
    /// Seconds; 0 is forever.
    pub marker_lifetime_s: f64,
    /// Inference also when nobody listens.
    pub process_without_subscribers: bool,
    /// Between two diagnostics of the same level.
    pub diagnostics_period: Duration,
    /// Silence after which the input is stale.
    pub input_timeout: Duration,
    /// Diagnostics carry the newest cloud's stamp, not the system's time.
    pub use_sim_time: bool,
}

/// What is different about this sensor's clouds.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudConfig {
    /// Larger clouds are refused.
    pub max_points: u64,
    /// Intensity and names of fields, where they differ from the model's spec and the usual names.
    pub sensor: SensorOverrides,
    /// Constants for features that the sensor lacks.
    pub fill_absent: BTreeMap<Feature, f32>,
}

/// The parameters that name a feature's field.
const FIELD_PARAMS: [(Feature, &str); 3] = [
    (Feature::Intensity, "intensity_field"),
    (Feature::Elongation, "elongation_field"),
    (Feature::TimeOffset, "time_offset_field"),
];

/// What of the pipeline's boxes is published. Each is a choice among finished boxes, so it can only leave boxes out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutputFilter {
    /// Boxes with this score or less are left out.
    pub score_threshold: Option<f32>,
    /// Only these classes; all when empty.
    pub classes: Vec<String>,
    /// Only so many, best first.
    pub max_detections: Option<usize>,
}

/// A parameter that stops the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamProblem {
    /// The parameter's name.
    pub key: String,
    /// Its value as YAML.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
    /// Where it was set.
    pub origin: String,
}

impl fmt::Display for ParamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, rule, origin } = self;
        write!(f, "parameter `{key}` = {value} ({origin}): {rule}")
    }
}

/// Why the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A parameter file cannot be used.
    #[error(transparent)]
    File(#[from] ParamFileError),
    /// All parameters that are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Params(Vec<ParamProblem>),
}

/// Every declared parameter's value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedParams {
    values: BTreeMap<&'static str, (ParamValue, String)>,
    /// Things the user should know although they are no errors.
    pub notices: Vec<String>,
}

impl ResolvedParams {
    /// Merges the sources for the node of this full name; later ones win, what is set nowhere has its default.
    ///
    /// # Errors
    /// [`ConfigError`] for unreadable files, and for all unknown names, wrong types and broken rules together.
    pub fn new(sources: &[ParamSource], fully_qualified_node: &str) -> Result<Self, ConfigError> {
        let (assignments, notices) = collect(sources, fully_qualified_node)?;
        let mut values: BTreeMap<_, _> = DECLARATIONS
            .iter()
            .map(|declaration| (declaration.name, (declaration.default.to_value(), "default".to_owned())))
            .collect();
        let mut problems = Vec::new();
        for (name, (value, origin)) in assignments {
            match declaration(&name) {
                None => {
                    let rule = "is not a parameter of this node; `detector_node params` lists them".to_owned();
                    problems.push(ParamProblem { key: name, value: value.to_string(), rule, origin });
                }
                Some(declaration) => {
                    values.insert(declaration.name, (value, origin));
                }
            }
        }
        for (name, (value, origin)) in &mut values {
            match declaration(name).map(|declaration| declaration.check(value)) {
                Some(Ok(typed)) => *value = typed,
                Some(Err(rule)) => {
                    problems.push(ParamProblem {
                        key: (*name).to_owned(),
                        value: value.to_string(),
                        rule,
                        origin: origin.clone(),
                    });
                }
                None => {}
            }
        }
        let resolved = Self { values, notices };
        if problems.is_empty() {
            problems.extend(resolved.contradictions());
        }
        if problems.is_empty() { Ok(resolved) } else { Err(ConfigError::Params(problems)) }
    }

    /// Name and value of every parameter, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ParamValue)> {
        self.values.iter().map(|(name, (value, _))| (*name, value))
    }

    /// A parameter's value; `None` for a name that is not declared.
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.values.get(name).map(|(value, _)| value)
    }

    /// The same parameters with some changed while the node runs. A parameter that decides at the start may only be given
    /// the value that it has, so that a dump of all parameters can be loaded again.
    ///
    /// # Errors
    /// [`ConfigError::Params`] with all changes that are refused.
    pub fn with_changes(&self, changes: &[(String, ParamValue)]) -> Result<Self, ConfigError> {
        let origin = "set while the node runs";
        let mut changed = self.clone();
        let mut problems = Vec::new();
        for (name, value) in changes {
            let checked = match declaration(name) {
                None => Err("is not a parameter of this node".to_owned()),
                Some(declaration) => declaration.check(value).and_then(|typed| {
                    let is_new = self.get(name) != Some(&typed);
                    if declaration.read_only && is_new {
                        return Err(format!(
                            "is read-only: it decides at the start and is {} now",
                            self.values[declaration.name].0
                        ));
                    }
                    Ok((declaration.name, typed, is_new))
                }),
            };
            match checked {
                Ok((name, typed, true)) => {
                    changed.values.insert(name, (typed, origin.to_owned()));
                }
                Ok(_) => {}
                Err(rule) => {
                    let (key, value) = (name.clone(), value.to_string());
                    problems.push(ParamProblem { key, value, rule, origin: origin.to_owned() });
                }
            }
        }
        if problems.is_empty() {
            problems.extend(changed.contradictions());
        }
        if problems.is_empty() { Ok(changed) } else { Err(ConfigError::Params(problems)) }
    }

    /// A parameter's value as YAML would have it, strings without quotes.
    pub fn text(&self, name: &str) -> String {
        match &self.values[name].0 {
            ParamValue::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Rules that join several parameters.
    fn contradictions(&self) -> Option<ParamProblem> {
        let mode = self.string("intensity_mode");
        let is_scaled = mode == "scale" || mode == "scale_tanh";
        let rule = format!("must stay 1.0 with intensity_mode `{mode}`, which has no factor");
        (!is_scaled && self.double("intensity_factor") != 1.0).then(|| self.problem("intensity_factor", rule))
    }

    /// Parameters that do not fit the model.
    ///
    /// # Errors
    /// [`ConfigError::Params`] for classes the model does not have, settings of inputs it does not take, an overlap where it goes by distance, and a score
    /// threshold below the model's own: boxes under that one no longer exist when the node filters.
    pub fn check_against(&self, spec: &ModelSpec) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for unknown in self.strings("classes").iter().filter(|name| !spec.classes.contains(name)) {
            let rule = format!("`{unknown}` is not a class of model `{}`, which has {}", spec.name, spec.classes.join(", "));
            problems.push(self.problem("classes", rule));
        }
        let threshold = self.double("score_threshold");
        let lowest = spec.postprocess.class_score_thresholds.values().copied().fold(spec.postprocess.score_threshold, f32::min);
        if threshold > 0.0 && (threshold as f32) < lowest {
            let rule = format!("can only raise the threshold of model `{}`, which is {lowest}; 0 leaves it as it is", spec.name);
            problems.push(self.problem("score_threshold", rule));
        }
        if self.double("nms_iou") > 0.0 && spec.postprocess.nms.with_iou(1.0).is_none() {
            let rule = format!("model `{}` suppresses boxes by distance; 0 leaves it as it is", spec.name);
            problems.push(self.problem("nms_iou", rule));
        }
        for (class, _) in self.strings("autoware_labels").iter().filter_map(|text| parse_label(text)) {
            if !spec.classes.contains(&class) {
                let rule = format!("`{class}` is not a class of model `{}`, which has {}", spec.name, spec.classes.join(", "));
                problems.push(self.problem("autoware_labels", rule));
            }
        }
        let takes = spec.input.features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(", ");
        let not_taken = |feature: Feature| format!("model `{}` does not take {feature}; it takes {takes}", spec.name);
        for (feature, key) in FIELD_PARAMS {
            if !self.string(key).is_empty() && !spec.input.features.contains(&feature) {
                problems.push(self.problem(key, not_taken(feature)));
            }
        }
        for (feature, _) in self.fills().filter(|(feature, _)| !spec.input.features.contains(feature)) {
            problems.push(self.problem("fill_absent", not_taken(feature)));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Params(problems)) }
    }

    /// The parameters in the types the node works with.
    pub fn to_config(&self) -> NodeConfig {
        let non_zero = |name| Some(self.integer(name)).filter(|value| *value > 0);
        let factor = self.double("intensity_factor") as f32;
        let intensity = match self.string("intensity_mode") {
            "raw" => Some(IntensityMode::Raw),
            "tanh" => Some(IntensityMode::Tanh),
            "scale" => Some(IntensityMode::Scale(factor)),
            "scale_tanh" => Some(IntensityMode::ScaleTanh(factor)),
            _ => None,
        };
        let field_names = FIELD_PARAMS
            .into_iter()
            .map(|(feature, name)| (feature, self.string(name).to_owned()))
            .filter(|(_, field)| !field.is_empty())
            .collect();
        let threshold = self.double("score_threshold");
        NodeConfig {
            model_dir: self.string("model_dir").into(),
            pipeline: PipelineOptions {
                device: self.string("device").to_owned(),
                precision: if self.string("precision") == "bf16" { Precision::Bf16 } else { Precision::F32 },
            },
            nms_iou: Some(self.double("nms_iou")).filter(|iou| *iou > 0.0),
            num_threads: non_zero("num_threads").map(|threads| threads as i32),
            input_qos: Qos {
                reliability: reliability(self.string("input_reliability")),
                depth: self.integer("input_depth") as usize,
                latched: false,
            },
            cloud: CloudConfig {
                max_points: self.integer("max_points") as u64,
                sensor: SensorOverrides { field_names, intensity },
                fill_absent: self.fills().collect(),
            },
            filter: OutputFilter {
                score_threshold: Some(threshold as f32).filter(|threshold| *threshold > 0.0),
                classes: self.strings("classes"),
                max_detections: non_zero("max_detections").map(|limit| limit as usize),
            },
            publish_markers: self.bool("publish_markers"),
            publish_report: self.bool("publish_report"),
            publish_autoware: self.bool("publish_autoware"),
            autoware_labels: self.strings("autoware_labels").iter().filter_map(|text| parse_label(text)).collect(),
            publish_timings: self.bool("publish_timings"),
            output_qos: Qos {
                reliability: reliability(self.string("output_reliability")),
                depth: self.integer("output_depth") as usize,
                latched: false,
            },
            lifecycle: self.bool("lifecycle"),
            marker_lifetime_s: self.double("marker_lifetime_s"),
            process_without_subscribers: self.bool("process_without_subscribers"),
            diagnostics_period: Duration::from_secs_f64(self.double("diagnostics_period_s")),
            input_timeout: Duration::from_secs_f64(self.double("input_timeout_s")),
            use_sim_time: self.bool("use_sim_time"),
        }
    }

    fn fills(&self) -> impl Iterator<Item = (Feature, f32)> {
        self.strings("fill_absent").into_iter().filter_map(|text| parse_fill(&text))
    }

    fn problem(&self, key: &'static str, rule: String) -> ParamProblem {
        let (value, origin) = &self.values[key];
        ParamProblem { key: key.to_owned(), value: value.to_string(), rule, origin: origin.clone() }
    }

    fn bool(&self, name: &str) -> bool {
        matches!(self.values[name].0, ParamValue::Bool(true))
    }

    fn integer(&self, name: &str) -> i64 {
        match self.values[name].0 {
            ParamValue::Integer(value) => value,
            ref other => unreachable!("`{name}` was checked to be an integer, is {other}"),
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.values[name].0 {
            ParamValue::Double(value) => value,
            ref other => unreachable!("`{name}` was checked to be a double, is {other}"),
        }
    }

    fn string(&self, name: &str) -> &str {
        match &self.values[name].0 {
            ParamValue::String(value) => value,
            other => unreachable!("`{name}` was checked to be a string, is {other}"),
        }
    }

    fn strings(&self, name: &str) -> Vec<String> {
        match &self.values[name].0 {
            ParamValue::List(items) => items
                .iter()
                .map(|item| match item {
                    ParamValue::String(text) => text.clone(),
                    other => unreachable!("`{name}` was checked to hold strings, holds {other}"),
                })
                .collect(),
            other => unreachable!("`{name}` was checked to be a list, is {other}"),
        }
    }
}

impl OutputFilter {
    /// Leaves out what is not wanted; the order stays.
    pub fn apply(&self, mut detections: Vec<Detection>, classes: &[String]) -> Vec<Detection> {
        let is_wanted = |detection: &Detection| {
            self.score_threshold.is_none_or(|threshold| detection.score > threshold)
                && (self.classes.is_empty() || classes.get(detection.class_idx).is_some_and(|class| self.classes.contains(class)))
        };
        detections.retain(is_wanted);
        detections.truncate(self.max_detections.unwrap_or(usize::MAX));
        detections
    }
}

fn reliability(word: &str) -> Reliability {
    if word == "reliable" { Reliability::Reliable } else { Reliability::BestEffort }
}

fn declaration(name: &str) -> Option<&'static Declaration> {
    DECLARATIONS.iter().find(|declaration| declaration.name == name)
}

/// Name to value and origin; the last assignment of each name.
type Assignments = BTreeMap<String, (ParamValue, String)>;

fn collect(sources: &[ParamSource], fully_qualified_node: &str) -> Result<(Assignments, Vec<String>), ConfigError> {
    let mut assignments = Assignments::new();
    let mut notices = Vec::new();
    for source in sources {
        match source {
            ParamSource::Assignment { node, name, value } => {
                if node.as_deref().is_none_or(|pattern| node_pattern_matches(pattern, fully_qualified_node)) {
                    assignments.insert(name.clone(), (value.clone(), "-p".to_owned()));
                }
            }
            ParamSource::File(path) => {
                let entries = read_param_file(path)?;
                let n_all = entries.len();
                let origin = path.display().to_string();
                let mut n_ours = 0;
                for entry in entries.into_iter().filter(|entry| node_pattern_matches(&entry.node, fully_qualified_node)) {
                    assignments.insert(entry.name, (entry.value, origin.clone()));
                    n_ours += 1;
                }
                if n_all > 0 && n_ours == 0 {
                    notices.push(format!("parameter file {origin} has {n_all} parameters, none for {fully_qualified_node}"));
                }
            }
        }
    }
    Ok((assignments, notices))
}
