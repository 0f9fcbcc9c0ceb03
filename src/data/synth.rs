//! Synthetic drives straight from the generator, without files.

use std::sync::OnceLock;

use super::{DataError, Fingerprint, Label, Sample, SampleId, Source, sha256_of};
use crate::synth::sensor::SensorKind;
use crate::synth::{Drive, DriveConfig, Frame};
use crate::time::Stamp;

/// A fixed set of drives of one family.
#[derive(Debug)]
pub struct SynthDrives {
    name: String,
    configs: Vec<DriveConfig>,
    /// Laid out when first asked for.
    drives: Vec<OnceLock<Drive>>,
    n_frames: usize,
}

impl SynthDrives {
    /// Drives `0..n_drives` of the family that `config` names, all of its length. `name` is the source as the user typed it.
    ///
    /// # Errors
    /// A number of frames or a rate outside of its range.
    pub fn new(name: &str, config: &DriveConfig, n_drives: u64) -> Result<Self, DataError> {
        Drive::new(&DriveConfig { drive: 0, ..config.clone() })?;
        let configs: Vec<_> = (0..n_drives).map(|drive| DriveConfig { drive, ..config.clone() }).collect();
        let drives = configs.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { name: name.to_owned(), configs, drives, n_frames: config.n_frames })
    }

    fn drive(&self, drive_idx: usize) -> Result<&Drive, DataError> {
        let slot = &self.drives[drive_idx];
        if let Some(drive) = slot.get() {
            return Ok(drive);
        }
        let drive = Drive::new(&self.configs[drive_idx])?;
        Ok(slot.get_or_init(|| drive))
    }
}

impl Source for SynthDrives {
    fn len(&self) -> usize {
        self.configs.len() * self.n_frames
    }

    fn id(&self, index: usize) -> SampleId {
        let config = &self.configs[index / self.n_frames];
        SampleId { drive: format!("{}-{:04}", family(config), config.drive), frame: (index % self.n_frames) as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let frame = self.drive(index / self.n_frames)?.frame(index % self.n_frames)?;
        Ok(sample(self.id(index), frame))
    }

    fn stamp(&self, index: usize) -> Option<Stamp> {
        self.drive(index / self.n_frames).ok().map(|drive| drive.stamp(index % self.n_frames))
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.name, &self.configs[0], self.configs.len() as u64, self.load(0, 0))
    }
}

/// An endless street: every sample is a place of its own, another one in every epoch.
#[derive(Debug)]
pub struct SynthSamples {
    name: String,
    config: DriveConfig,
    n_samples: usize,
}

impl SynthSamples {
    /// `n_samples` per epoch of the family that `config` names. `name` is the source as the user typed it.
    ///
    /// # Errors
    /// A rate outside of its range.
    pub fn new(name: &str, config: &DriveConfig, n_samples: usize) -> Result<Self, DataError> {
        let config = DriveConfig { n_frames: 1, ..config.clone() };
        Drive::new(&config)?;
        Ok(Self { name: name.to_owned(), config, n_samples })
    }
}

impl Source for SynthSamples {
    fn len(&self) -> usize {
        self.n_samples
    }

    fn id(&self, index: usize) -> SampleId {
        SampleId { drive: format!("{}-samples", family(&self.config)), frame: index as u64 }
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        let DriveConfig { seed, sensor, rate_hz, two_returns, .. } = self.config;
        let config = DriveConfig { rate_hz, two_returns, ..DriveConfig::sample(seed, epoch, index as u64, sensor) };
        Ok(sample(self.id(index), Drive::new(&config)?.frame(0)?))
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.name, &self.config, self.n_samples as u64, self.load(0, 0))
    }
}

fn family(config: &DriveConfig) -> String {
    let returns = if config.two_returns { "-two" } else { "" };
    format!("synth{}-{}{returns}", config.seed, SensorKind::name(config.sensor))
}

/// The first frame is in it, so that a dump made by another generator is refused.
fn fingerprint(name: &str, config: &DriveConfig, count: u64, first: Result<Sample, DataError>) -> Fingerprint {
    let mut parts = vec![format!("{count} of {}", serde_json::json!(config)).into_bytes()];
    parts.push(match first {
        Ok(sample) => sample.cloud.points.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Err(fault) => fault.to_string().into_bytes(),
    });
    Fingerprint { source: name.to_owned(), sha256: sha256_of(&parts) }
}

fn sample(id: SampleId, frame: Frame) -> Sample {
    let label = |label: &crate::synth::LabeledBox| Label {
        box3d: label.box3d,
        class: label.class.name().to_owned(),
        track_id: Some(label.track_id.to_string()),
        n_points: Some(label.n_points),
        difficulty: Some(label.difficulty.level()),
        velocity_mps: Some(label.velocity_mps),
    };
    Sample {
        id,
        labels: Some(frame.boxes.iter().map(label).collect()),
        cloud: frame.cloud,
        in_no_label_zone: Vec::new(),
        world_from_cloud: Some(frame.world_from_ego),
    }
}
