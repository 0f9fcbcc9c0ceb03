//! The settings of a source: how they are written in a string and in YAML, and which kind of source takes which.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DataError;
use crate::cloud::Feature;
use crate::synth::sensor::SensorKind;

/// One source and its settings, as an entry of `data` in YAML; [`SourceConfig::parse`] reads the same from a string. A setting that
/// is left out has the value [`option_table`] tells.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // `option_table` says what each is
pub struct SourceConfig {
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, String>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_window_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_frame: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_frame: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Feature>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<Feature, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intensity_scale: Option<f32>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drives: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<SensorKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_hz: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_returns: Option<bool>,
}

/// A side of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Drives to train on.
    Train,
    /// Drives to validate on.
    Val,
}

/// Where the labels of a bag come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelChoice {
    /// The topic of the synthetic bags and converters, else `labels.jsonl` in the bag's folder, else none.
    Auto,
    /// The bag counts as unlabelled.
    None,
}

/// What a bag is read with.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BagOptions {
    /// Topic of the clouds; needed where a bag has several.
    pub topic: Option<String>,
    /// Take no labels.
    pub without_labels: bool,
    /// Topic of the labels.
    pub label_topic: Option<String>,
    /// JSON-lines file of labels, or the folder that has one for each drive.
    pub label_file: Option<PathBuf>,
    /// Largest difference between the stamps of a cloud and its labels.
    pub label_window_ms: f64,
    /// Frame to put clouds and labels into.
    pub target_frame: Option<String>,
    /// Frame that stands still, for poses.
    pub world_frame: Option<String>,
    /// Columns to decode; empty: all that the cloud has.
    pub columns: Vec<Feature>,
    /// Field that holds a column, where it is not one of the known names.
    pub fields: BTreeMap<Feature, String>,
    /// Factor on the intensity; absent: as the sensor gives it.
    pub intensity_scale: Option<f32>,
}

impl BagOptions {
    /// Window in nanoseconds.
    pub(super) fn label_window_ns(&self) -> u64 {
        (self.label_window_ms * 1e6).round() as u64
    }
}

/// Kinds of sources, as far as settings go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bag,
    Synth,
    Waymo,
    Cache,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Bag => "bags",
            Self::Synth => "synthetic drives",
            Self::Waymo => "Waymo Open Dataset files",
            Self::Cache => "a cache",
        }
    }
}

/// How a value stands in a string.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    Flag,
    /// Items separated by `/`, or `@FILE` with one on every line.
    List,
    /// Pairs `key:value` separated by `/`.
    Pairs,
}

struct OptionRow {
    name: &'static str,
    form: Form,
    /// `None`: every kind.
    kind: Option<Kind>,
    meaning: &'static str,
}

const fn row(name: &'static str, form: Form, kind: Option<Kind>, meaning: &'static str) -> OptionRow {
    OptionRow { name, form, kind, meaning }
}

const OPTIONS: [OptionRow; 25] = [
    row("split", Form::Text, None, "train or val: drives on that side, by a hash of their names; all"),
    row("val_fraction", Form::Number, None, "share of the drives that is on the side val; 0.2"),
    row("only", Form::List, None, "only these drives, A/B/C or @FILE with one per line; all"),
    row("except", Form::List, None, "not these drives, in the same form; none"),
    row("every", Form::Number, None, "every how manieth frame of each drive; 1"),
    row("prefix", Form::Text, None, "put before the names of the drives; nothing"),
    row(
        "classes",
        Form::Pairs,
        None,
        "other names for classes, car:Vehicle/person:Pedestrian; `sign:` leaves labels out; as they are",
    ),
    row("topic", Form::Text, Some(Kind::Bag), "topic of the clouds; the only one"),
    row(
        "labels",
        Form::Text,
        Some(Kind::Bag),
        "auto or none; auto: /ground_truth/objects, else labels.jsonl in the bag's folder",
    ),
    row("label_topic", Form::Text, Some(Kind::Bag), "topic of the labels (Detection3DArray)"),
    row("label_file", Form::Text, Some(Kind::Bag), "JSON lines with the labels, or a folder with DRIVE.jsonl for each drive"),
    row("label_window_ms", Form::Number, Some(Kind::Bag), "most that stamps of labels and cloud may differ; 0, they are equal"),
    row("target_frame", Form::Text, Some(Kind::Bag), "frame to put clouds and labels into by tf; that of the cloud"),
    row("world_frame", Form::Text, Some(Kind::Bag), "frame that stands still; the root of tf if something above the cloud moves"),
    row("columns", Form::List, Some(Kind::Bag), "columns to decode, x/y/z/intensity; all with a known name"),
    row("fields", Form::Pairs, Some(Kind::Bag), "field names of columns, intensity:reflectivity; the known names"),
    row("intensity_scale", Form::Number, Some(Kind::Bag), "factor on the intensity; 1"),
    row("seed", Form::Number, Some(Kind::Synth), "names a family of drives; 1"),
    row("drives", Form::Number, Some(Kind::Synth), "number of drives; 1"),
    row("frames", Form::Number, Some(Kind::Synth), "frames of each drive; 100"),
    row("samples", Form::Number, Some(Kind::Synth), "instead of drives: samples of an epoch, each a street of its own"),
    row("sensor", Form::Text, Some(Kind::Synth), "spinning64, spinning32, spinning16 or waymo5; spinning64"),
    row("rate_hz", Form::Number, Some(Kind::Synth), "frames per second; 10"),
    row("two_returns", Form::Flag, Some(Kind::Synth), "true or false; false"),
    row("source", Form::Text, None, "path, or `synth`; first in a string, without its name"),
];

/// Every setting with what it applies to and means, one line each; the default stands behind the semicolon.
pub fn option_table() -> String {
    let line = |option: &OptionRow| {
        let kind = option.kind.map_or("any source", Kind::words);
        format!("{:16} {kind:16} {}\n", option.name, option.meaning)
    };
    OPTIONS.iter().map(line).collect()
}

impl SourceConfig {
    /// Reads `PATH,key=value,…` or `synth:key=value,…`. The path ends at the first `,key=`.
    ///
    /// # Errors
    /// An unknown key, one that comes twice, or a value of the wrong form.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let text = text.trim();
        let (source, rest) = split_source(text);
        if source.is_empty() {
            let reason = "it is empty; expected a path, or synth:seed=1,drives=4".to_owned();
            return Err(DataError::Source { source_name: text.to_owned(), reason });
        }
        let mut values = Map::from_iter([("source".to_owned(), Value::from(source))]);
        for pair in rest.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (key.trim(), value.trim());
            let Some(option) = OPTIONS.iter().find(|option| option.name == key && key != "source") else {
                let known = names(|_| true);
                return Err(DataError::Key {
                    source_name: text.to_owned(),
                    key: key.to_owned(),
                    kind: "any source".to_owned(),
                    known,
                });
            };
            let setting = |rule: String| DataError::Setting {
                source_name: text.to_owned(),
                key: key.to_owned(),
                value: value.to_owned(),
                rule,
            };
            let parsed = option.form.parse(value).map_err(setting)?;
            if values.insert(key.to_owned(), parsed).is_some() {
                return Err(setting("it is given twice".to_owned()));
            }
            // One by one, so that the message can name the key.
            let alone = Map::from_iter([(key.to_owned(), values[key].clone())]);
            serde_json::from_value::<Self>(Value::Object(alone)).map_err(|fault| setting(fault.to_string()))?;
        }
        serde_json::from_value(Value::Object(values))
            .map_err(|fault| DataError::Source { source_name: text.to_owned(), reason: fault.to_string() })
    }

    /// Refuses settings that this kind of source does not have, and values out of their range.
    pub(super) fn check(&self, kind: Kind) -> Result<(), DataError> {
        let Value::Object(set) = serde_json::json!(self) else { return Ok(()) };
        let applies = |option: &OptionRow| option.kind.is_none_or(|of| of == kind) && option.name != "source";
        let is_foreign =
            |key: &&String| !OPTIONS.iter().any(|option| option.name == **key && (applies(option) || **key == "source"));
        if let Some(key) = set.keys().find(is_foreign) {
            return Err(DataError::Key {
                source_name: self.source.clone(),
                key: key.clone(),
                kind: kind.words().to_owned(),
                known: names(applies),
            });
        }
        let both = |a: bool, b: bool| a && b;
        let rules = [
            ("val_fraction", self.val_fraction.is_some_and(|share| !(share > 0.0 && share < 1.0)), "above 0 and below 1"),
            ("val_fraction", both(self.val_fraction.is_some(), self.split.is_none()), "only together with split"),
            ("every", self.every == Some(0), "1 or more"),
            ("label_window_ms", self.label_window_ms.is_some_and(|window| !(0.0..=60_000.0).contains(&window)), "0 to 60000"),
            ("label_file", both(self.label_file.is_some(), self.label_topic.is_some()), "not together with label_topic"),
            (
                "labels",
                self.labels == Some(LabelChoice::None) && (self.label_file.is_some() || self.label_topic.is_some()),
                "none, so neither label_file nor label_topic",
            ),
            (
                "columns",
                !self.columns.is_empty() && !self.columns.starts_with(&[Feature::X, Feature::Y, Feature::Z]),
                "x, y, z first",
            ),
            ("intensity_scale", self.intensity_scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)), "above 0"),
            ("drives", self.drives.is_some_and(|n| !(1..=1_000_000).contains(&n)), "1 to 1000000"),
            ("samples", self.samples == Some(0), "1 or more"),
            (
                "samples",
                both(self.samples.is_some(), self.drives.is_some() || self.frames.is_some()),
                "not together with drives or frames",
            ),
            (
                "split",
                both(self.samples.is_some(), self.split.is_some()),
                "samples are streets of their own; another seed validates",
            ),
        ];
        match rules.iter().find(|(_, is_broken, _)| *is_broken) {
            Some((key, _, rule)) => Err(DataError::Setting {
                source_name: self.source.clone(),
                key: (*key).to_owned(),
                value: set.get(*key).map(Value::to_string).unwrap_or_default(),
                rule: format!("expected {rule}"),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn bag_options(&self) -> BagOptions {
        BagOptions {
            topic: self.topic.clone(),
            without_labels: self.labels == Some(LabelChoice::None),
            label_topic: self.label_topic.clone(),
            label_file: self.label_file.clone(),
            label_window_ms: self.label_window_ms.unwrap_or(0.0),
            target_frame: self.target_frame.clone(),
            world_frame: self.world_frame.clone(),
            columns: self.columns.clone(),
            fields: self.fields.clone(),
            intensity_scale: self.intensity_scale,
        }
    }
}

/// The path or `synth`, and the settings.
fn split_source(text: &str) -> (&str, &str) {
    if let Some(rest) = text.strip_prefix("synth:") {
        return ("synth", rest);
    }
    let is_key = |piece: &str| {
        piece
            .split_once('=')
            .is_some_and(|(key, _)| !key.is_empty() && key.trim().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
    };
    let end = text.match_indices(',').map(|(at, _)| at).find(|&at| is_key(&text[at + 1..]));
    end.map_or((text, ""), |at| (text[..at].trim(), &text[at + 1..]))
}

impl Form {
    fn parse(self, value: &str) -> Result<Value, String> {
        Ok(match self {
            Self::Text => Value::from(value),
            Self::Flag => Value::from(value.parse::<bool>().map_err(|_| "expected true or false".to_owned())?),
            Self::Number => match (value.parse::<u64>(), value.parse::<f64>()) {
                (Ok(whole), _) => Value::from(whole),
                (_, Ok(number)) if number.is_finite() => Value::from(number),
                _ => return Err("expected a number".to_owned()),
            },
            Self::List => match value.strip_prefix('@') {
                Some(file) => {
                    let text = std::fs::read_to_string(file).map_err(|fault| fault.to_string())?;
                    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
                }
                None => value.split('/').filter(|item| !item.is_empty()).collect(),
            },
            Self::Pairs => {
                let mut pairs = Map::new();
                for pair in value.split('/').filter(|pair| !pair.is_empty()) {
                    let (name, other) = pair.split_once(':').ok_or_else(|| format!("expected NAME:OTHER, got `{pair}`"))?;
                    pairs.insert(name.to_owned(), Value::from(other));
                }
                Value::Object(pairs)
            }
        })
    }
}

fn names(wanted: impl Fn(&OptionRow) -> bool) -> String {
    let listed: Vec<&str> =
        OPTIONS.iter().filter(|option| option.name != "source" && wanted(option)).map(|option| option.name).collect();
    listed.join(", ")
}
