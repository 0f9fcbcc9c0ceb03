//! From what a user types to a source.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::bag::{BagSource, bags_at};
use super::combine::drives_of;
use super::options::{Kind, Side, SourceConfig};
use super::synth::{SynthDrives, SynthSamples};
use super::{DataError, Joined, Renamed, Source, Subset, cache, is_val_drive, waymo};
use crate::synth::DriveConfig;
use crate::synth::sensor::SensorKind;

/// Share of the drives that validates where nothing else is said.
const VAL_FRACTION: f64 = 0.2;

/// The data of a run: one or more sources. In YAML a string, an entry of settings, or a list of both.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct DataConfig(pub Vec<SourceConfig>);

/// Opens what a user typed: sources separated by `;`, each `PATH` or `synth:` with settings behind it.
///
/// | source | what it is |
/// | --- | --- |
/// | `drive.mcap`, `bag_folder` | a rosbag2 |
/// | `folder_of_bags` | every bag in it, each a drive |
/// | `segment.tfrecord`, a folder of these, a folder of Waymo's v2 components | Waymo Open Dataset |
/// | a folder that `trainer convert` wrote | its cache |
/// | `synth:seed=1,drives=40,frames=50,sensor=waymo5` | synthetic drives |
/// | `synth:seed=1,samples=2000` | 2000 synthetic streets per epoch, other ones in every epoch |
///
/// The settings are those of [`super::option_table`].
///
/// # Errors
/// What is wrong with the text, or with the first source that cannot be opened.
pub fn open(text: &str) -> Result<Box<dyn Source>, DataError> {
    DataConfig::parse(text)?.open()
}

impl DataConfig {
    /// Reads sources separated by `;`.
    ///
    /// # Errors
    /// Those of [`SourceConfig::parse`], or nothing between the separators.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let sources: Vec<SourceConfig> = parts.map(SourceConfig::parse).collect::<Result<_, _>>()?;
        if sources.is_empty() {
            sources_needed(text)?;
        }
        Ok(Self(sources))
    }

    /// Opens every source and joins them.
    ///
    /// # Errors
    /// What is wrong with the first one that cannot be opened, or drives of the same name.
    pub fn open(&self) -> Result<Box<dyn Source>, DataError> {
        let mut parts = self.0.iter().map(open_one).collect::<Result<Vec<_>, _>>()?;
        match parts.len() {
            0 => sources_needed(""),
            1 => Ok(parts.remove(0)),
            _ => Ok(Box::new(Joined::new(parts)?)),
        }
    }
}

fn sources_needed<T>(text: &str) -> Result<T, DataError> {
    let reason = "it is empty; expected a path, or synth:seed=1,drives=4".to_owned();
    Err(DataError::Source { source_name: text.to_owned(), reason })
}

fn open_one(config: &SourceConfig) -> Result<Box<dyn Source>, DataError> {
    let (path, kind) = match config.source.as_str() {
        "synth" => (None, Kind::Synth),
        path => (Some(Path::new(path)), recognise(Path::new(path))?),
    };
    config.check(kind)?;
    let source: Box<dyn Source> = match (kind, path) {
        (Kind::Bag, Some(path)) => {
            let bags = bags_at(path).map_err(io_error(path))?;
            Box::new(BagSource::open(&config.source, &bags, &config.bag_options())?)
        }
        (Kind::Waymo, Some(path)) => Box::new(waymo::open(path)?),
        (Kind::Cache, Some(path)) => Box::new(cache::open(path)?),
        _ => synth(config)?,
    };
    let is_renamed = !config.classes.is_empty() || config.prefix.is_some();
    let source = match is_renamed {
        true => Box::new(Renamed::new(source, config.classes.clone(), config.prefix.clone().unwrap_or_default())),
        false => source,
    };
    choose_drives(config, source)
}

/// What lies at a path, told by content.
fn recognise(path: &Path) -> Result<Kind, DataError> {
    std::fs::metadata(path).map_err(io_error(path))?;
    if cache::recognises(path) {
        return Ok(Kind::Cache);
    }
    if waymo::recognises(path) {
        return Ok(Kind::Waymo);
    }
    if !bags_at(path).map_err(io_error(path))?.is_empty() {
        return Ok(Kind::Bag);
    }
    let hint = if path.join("velodyne").is_dir() || path.join("training/velodyne").is_dir() {
        "it looks like KITTI; `trainer convert kitti` makes bags of it"
    } else {
        "expected a bag, a folder of bags, Waymo Open Dataset files (.tfrecord, or the folder of the v2 components), a cache folder, or synth:…"
    };
    Err(DataError::Source { source_name: path.display().to_string(), reason: hint.to_owned() })
}

fn synth(config: &SourceConfig) -> Result<Box<dyn Source>, DataError> {
    let sensor = config.sensor.unwrap_or(SensorKind::Spinning64);
    let drive = DriveConfig {
        rate_hz: config.rate_hz.unwrap_or(10.0),
        two_returns: config.two_returns.unwrap_or(false),
        ..DriveConfig::new(config.seed.unwrap_or(1), 0, config.frames.unwrap_or(100), sensor)
    };
    let name = source_text(config);
    Ok(match config.samples {
        Some(n_samples) => Box::new(SynthSamples::new(&name, &drive, n_samples)?),
        None => Box::new(SynthDrives::new(&name, &drive, config.drives.unwrap_or(1))?),
    })
}

/// The part of the settings that names synthetic drives, as one would type it.
fn source_text(config: &SourceConfig) -> String {
    let mut text = format!("synth:seed={}", config.seed.unwrap_or(1));
    let mut add = |key: &str, value: Option<String>| text.extend(value.map(|value| format!(",{key}={value}")));
    add("drives", config.drives.map(|n| n.to_string()));
    add("frames", config.frames.map(|n| n.to_string()));
    add("samples", config.samples.map(|n| n.to_string()));
    add("sensor", config.sensor.map(|sensor| sensor.name().to_owned()));
    add("rate_hz", config.rate_hz.map(|rate| rate.to_string()));
    add("two_returns", config.two_returns.map(|two| two.to_string()));
    text
}

fn choose_drives(config: &SourceConfig, source: Box<dyn Source>) -> Result<Box<dyn Source>, DataError> {
    let every = config.every.unwrap_or(1);
    if config.split.is_none() && config.only.is_empty() && config.except.is_empty() && every == 1 {
        return Ok(source);
    }
    let all = drives_of(source.as_ref());
    let fault = |reason: String| {
        let drives = all.iter().cloned().collect::<Vec<_>>().join(", ");
        DataError::Split { source_name: config.source.clone(), reason, drives }
    };
    if let Some(unknown) = config.only.iter().chain(&config.except).find(|drive| !all.contains(*drive)) {
        return Err(fault(format!("there is no drive `{unknown}`")));
    }
    let mut chosen: BTreeSet<String> =
        all.iter().filter(|drive| config.only.is_empty() || config.only.contains(drive)).cloned().collect();
    chosen.retain(|drive| !config.except.contains(drive));
    if let Some(side) = config.split {
        let val_fraction = config.val_fraction.unwrap_or(VAL_FRACTION);
        let (val, train): (BTreeSet<String>, BTreeSet<String>) =
            chosen.iter().cloned().partition(|drive| is_val_drive(drive, val_fraction));
        for (name, drives) in [("train", &train), ("val", &val)] {
            if drives.is_empty() {
                return Err(fault(format!(
                    "split={} with val_fraction={val_fraction} leaves no drive for {name}; choose drives with only=… and except=…, \
                     or another val_fraction",
                    if side == Side::Val { "val" } else { "train" }
                )));
            }
        }
        chosen = if side == Side::Val { val } else { train };
    }
    if chosen.is_empty() {
        return Err(fault("no drive is left".to_owned()));
    }
    Ok(Box::new(Subset::new(source, chosen, every)))
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let path = path.display().to_string();
    move |source| DataError::Io { path: path.clone(), source }
}

impl<'de> Deserialize<'de> for DataConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

/// By hand, so that a fault in an entry is told as it is and not as "no variant matches".
struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = DataConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source as text, its settings, or a list of these")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DataConfig, E> {
        DataConfig::parse(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataConfig, A::Error> {
        Ok(DataConfig(vec![SourceConfig::deserialize(MapAccessDeserializer::new(map))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DataConfig, A::Error> {
        let mut sources = Vec::new();
        while let Some(DataConfig(entry)) = seq.next_element()? {
            sources.extend(entry);
        }
        Ok(DataConfig(sources))
    }
}
