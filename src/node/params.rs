//! The node's parameters, declared once: the validation, `detector_node params`, README's table and `config/detector.yaml`
//! all come from, or are tested against, [`DECLARATIONS`].

use std::fmt::Write as _;

use super::param_rule::Rule;
use super::param_value::ParamValue;
use crate::cloud::layout::MAX_POINTS;

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Declaration {
    /// ROS name; ends in the unit where there is one.
    pub name: &'static str,
    /// Value when nothing is set; its variant is the parameter's type.
    pub default: DefaultValue,
    /// SI unit, or empty.
    pub unit: &'static str,
    /// What values are allowed.
    pub rule: Rule,
    /// What it does, for users.
    pub description: &'static str,
    /// Decides what is loaded or connected at the start. The others can be changed while the node runs.
    pub read_only: bool,
}

/// A default and with it a type.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum DefaultValue {
    Bool(bool),
    Integer(i64),
    Double(f64),
    String(&'static str),
    StringArray(&'static [&'static str]),
}

/// Every parameter, in the order of the table.
pub const DECLARATIONS: &[Declaration] = &[
    fixed(
        "model_dir",
        DefaultValue::String(""),
        "",
        Rule::NonEmpty,
        "Model directory: weights.safetensors, spec.yaml, SHA256SUMS, provenance.json. Must be set.",
    ),
    fixed(
        "device",
        DefaultValue::String("auto"),
        "",
        Rule::Device,
        "Where inference runs; `auto` takes the first GPU that works, else the CPU, and logs why.",
    ),
    fixed("precision", DefaultValue::String("f32"), "", Rule::OneOf(&["f32", "bf16"]), "Arithmetic of the convolutions."),
    fixed(
        "num_threads",
        DefaultValue::Integer(0),
        "",
        Rule::Range(0.0, 1024.0),
        "CPU threads of inference; 0 leaves it to libtorch.",
    ),
    fixed(
        "input_reliability",
        DefaultValue::String("best_effort"),
        "",
        Rule::OneOf(&["best_effort", "reliable"]),
        "QoS of the cloud subscription. `reliable` does not match drivers that publish best effort.",
    ),
    fixed(
        "input_depth",
        DefaultValue::Integer(1),
        "clouds",
        Rule::Range(1.0, 100.0),
        "QoS history of the cloud subscription. 1: the newest cloud wins; more: older ones wait their turn and results get \
         old.",
    ),
    fixed(
        "max_points",
        DefaultValue::Integer(4_000_000),
        "points",
        Rule::Range(1.0, MAX_POINTS as f64),
        "Clouds with more points are refused and counted as failed.",
    ),
    fixed(
        "intensity_mode",
        DefaultValue::String("model"),
        "",
        Rule::OneOf(&["model", "raw", "tanh", "scale", "scale_tanh"]),
        "What is done to intensity before the network sees it, when the sensor differs from the one the model was made \
         for; `model` leaves it to the model.",
    ),
    fixed(
        "intensity_factor",
        DefaultValue::Double(1.0),
        "",
        Rule::Positive,
        "Factor of `scale` and `scale_tanh`, for instance 0.00392157 (1/255) for an 8-bit sensor. Must stay 1 with the \
         other modes.",
    ),
    fixed(
        "intensity_field",
        DefaultValue::String(""),
        "",
        Rule::Any,
        "Field of the cloud that holds intensity; empty for the names that drivers use.",
    ),
    fixed(
        "elongation_field",
        DefaultValue::String(""),
        "",
        Rule::Any,
        "Field of the cloud that holds elongation; empty for the names that drivers use.",
    ),
    fixed(
        "time_offset_field",
        DefaultValue::String(""),
        "",
        Rule::Any,
        "Field of the cloud that holds the time of each point; empty for the names that drivers use.",
    ),
    fixed(
        "fill_absent",
        DefaultValue::StringArray(&[]),
        "",
        Rule::Fills,
        "Constants for model inputs that the sensor lacks, for instance `[elongation=0]`, beside those of the model's spec.",
    ),
    live(
        "score_threshold",
        DefaultValue::Double(0.0),
        "",
        Rule::HalfOpen(0.0, 1.0),
        "Boxes with this score or less are not published. 0 leaves it to the model, whose own threshold it can only raise.",
    ),
    live(
        "nms_iou",
        DefaultValue::Double(0.0),
        "",
        Rule::Range(0.0, 1.0),
        "Boxes that overlap a better one by more, seen from above, are dropped; 0 leaves it to the model. The paper's 0.7 suits its \
         metric; about 0.2 leaves one box for each object.",
    ),
    live(
        "classes",
        DefaultValue::StringArray(&[]),
        "",
        Rule::Any,
        "Names of the model's classes to publish; empty for all. Suppression of overlapping boxes comes first and knows \
         nothing of it.",
    ),
    live(
        "max_detections",
        DefaultValue::Integer(0),
        "boxes",
        Rule::Range(0.0, 100_000.0),
        "Best boxes published; 0 for all that the model gives.",
    ),
    fixed("publish_markers", DefaultValue::Bool(true), "", Rule::Any, "Publish `~/output/markers` when somebody subscribes."),
    fixed("publish_report", DefaultValue::Bool(true), "", Rule::Any, "Publish `~/output/report` when somebody subscribes."),
    fixed(
        "publish_autoware",
        DefaultValue::Bool(false),
        "",
        Rule::Any,
        "Publish `~/output/autoware_objects` when somebody subscribes.",
    ),
    fixed(
        "autoware_labels",
        DefaultValue::StringArray(&[]),
        "",
        Rule::Labels,
        "Labels of the model's classes for Autoware where their names do not say it, for instance `[Vehicle=TRUCK]`.",
    ),
    fixed(
        "publish_timings",
        DefaultValue::Bool(false),
        "",
        Rule::Any,
        "Publish the milliseconds of each stage under `~/debug` when somebody subscribes.",
    ),
    fixed(
        "output_reliability",
        DefaultValue::String("reliable"),
        "",
        Rule::OneOf(&["best_effort", "reliable"]),
        "QoS of the results.",
    ),
    fixed("output_depth", DefaultValue::Integer(10), "messages", Rule::Range(1.0, 100.0), "QoS history of the results."),
    live(
        "marker_lifetime_s",
        DefaultValue::Double(0.5),
        "s",
        Rule::Range(0.0, 3600.0),
        "Markers vanish after so long without new ones; 0 keeps them.",
    ),
    live(
        "process_without_subscribers",
        DefaultValue::Bool(false),
        "",
        Rule::Any,
        "Run inference although nobody subscribes to objects, markers or report.",
    ),
    live(
        "diagnostics_period_s",
        DefaultValue::Double(1.0),
        "s",
        Rule::Range(0.1, 60.0),
        "`/diagnostics` is published this often, and at once when its level changes.",
    ),
    live(
        "input_timeout_s",
        DefaultValue::Double(2.0),
        "s",
        Rule::Range(0.1, 3600.0),
        "Diagnostics turn STALE when no cloud came for so long.",
    ),
    fixed(
        "lifecycle",
        DefaultValue::Bool(false),
        "",
        Rule::Any,
        "Be a managed node: load the model when told to configure, process clouds when told to activate. Otherwise the node \
         does both at the start, and `~/set_enabled` lets it pause.",
    ),
    fixed(
        "use_sim_time",
        DefaultValue::Bool(false),
        "",
        Rule::Any,
        "Stamp `/diagnostics` with the newest cloud's stamp. Everything else carries its cloud's stamp anyway, and \
         `/clock` is not needed.",
    ),
];

const fn fixed(
    name: &'static str,
    default: DefaultValue,
    unit: &'static str,
    rule: Rule,
    description: &'static str,
) -> Declaration {
    Declaration { name, default, unit, rule, description, read_only: true }
}

const fn live(
    name: &'static str,
    default: DefaultValue,
    unit: &'static str,
    rule: Rule,
    description: &'static str,
) -> Declaration {
    Declaration { name, default, unit, rule, description, read_only: false }
}

impl DefaultValue {
    /// As a parameter value.
    pub fn to_value(self) -> ParamValue {
        match self {
            Self::Bool(value) => ParamValue::Bool(value),
            Self::Integer(value) => ParamValue::Integer(value),
            Self::Double(value) => ParamValue::Double(value),
            Self::String(value) => ParamValue::String(value.to_owned()),
            Self::StringArray(items) => {
                ParamValue::List(items.iter().map(|item| ParamValue::String((*item).to_owned())).collect())
            }
        }
    }

    /// The ROS name of the type.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Integer(_) => "integer",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::StringArray(_) => "string_array",
        }
    }
}

impl Declaration {
    /// The value in the declared type; a whole number is taken for a double.
    ///
    /// # Errors
    /// The type and the rule, in words, when the value is of another type or breaks the rule.
    pub fn check(&self, value: &ParamValue) -> Result<ParamValue, String> {
        let typed = match (self.default, value) {
            (DefaultValue::Double(_), ParamValue::Integer(whole)) => ParamValue::Double(*whole as f64),
            _ => value.clone(),
        };
        if typed.type_name() != self.default.type_name() {
            return Err(format!("must be {}, not {}", self.expectation(), value.type_name()));
        }
        if !self.rule.allows(&typed) {
            return Err(format!("must be {}", self.expectation()));
        }
        Ok(typed)
    }

    /// Type, rule and unit in words: `double in [0, 1)`.
    fn expectation(&self) -> String {
        let mut text = self.default.type_name().to_owned();
        if self.rule != Rule::Any {
            let _ = write!(text, " {}", self.rule);
        }
        if !self.unit.is_empty() {
            let _ = write!(text, " ({})", self.unit);
        }
        text
    }
}

/// The parameters as a Markdown table, as README has it.
pub fn params_table_markdown() -> String {
    let mut table = String::from("| name | type | default | unit | allowed | at start only | description |\n");
    table.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for declaration in DECLARATIONS {
        let Declaration { name, default, unit, rule, description, read_only } = declaration;
        let (kind, default) = (default.type_name(), default.to_value());
        let read_only = if *read_only { "yes" } else { "" };
        // Infallible for a String.
        let _ = writeln!(table, "| `{name}` | {kind} | `{default}` | {unit} | {rule} | {read_only} | {description} |");
    }
    table
}
