//! Sources made of sources: joined, reduced to some drives or frames, classes renamed.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{DataError, Finding, Fingerprint, Sample, SampleId, Source, sha256_of};
use crate::time::Stamp;

/// Several sources one after the other.
#[derive(Debug)]
pub struct Joined {
    parts: Vec<Box<dyn Source>>,
    /// Index of the first frame of each part.
    starts: Vec<usize>,
    n_frames: usize,
}

impl Joined {
    /// # Errors
    /// When two sources have a drive of the same name.
    pub fn new(parts: Vec<Box<dyn Source>>) -> Result<Self, DataError> {
        let (mut starts, mut n_frames) = (Vec::new(), 0);
        let mut owners = BTreeMap::<String, usize>::new();
        for (part_idx, part) in parts.iter().enumerate() {
            starts.push(n_frames);
            n_frames += part.len();
            for drive in drives_of(part.as_ref()) {
                if let Some(first) = owners.insert(drive.clone(), part_idx) {
                    let [first, second] = [first, part_idx].map(|idx| format!("`{}`", parts[idx].fingerprint().source));
                    return Err(DataError::DriveTwice { drive, first, second });
                }
            }
        }
        Ok(Self { parts, starts, n_frames })
    }

    fn at(&self, index: usize) -> (&dyn Source, usize) {
        let part_idx = self.starts.partition_point(|start| *start <= index) - 1;
        (self.parts[part_idx].as_ref(), index - self.starts[part_idx])
    }
}

impl Source for Joined {
    fn len(&self) -> usize {
        self.n_frames
    }

    fn id(&self, index: usize) -> SampleId {
        let (part, index) = self.at(index);
        part.id(index)
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        let (part, index) = self.at(index);
        part.load(epoch, index)
    }

    fn stamp(&self, index: usize) -> Option<Stamp> {
        let (part, index) = self.at(index);
        part.stamp(index)
    }

    fn fingerprint(&self) -> Fingerprint {
        let prints: Vec<_> = self.parts.iter().map(|part| part.fingerprint()).collect();
        let hashes: Vec<Vec<u8>> = prints.iter().map(|print| print.sha256.clone().into_bytes()).collect();
        let names: Vec<&str> = prints.iter().map(|print| print.source.as_str()).collect();
        Fingerprint { source: names.join(";"), sha256: sha256_of(&hashes) }
    }

    fn findings(&self) -> Vec<Finding> {
        self.parts.iter().flat_map(|part| part.findings()).collect()
    }
}

/// Some frames of a source, in its order.
#[derive(Debug)]
pub struct Subset {
    inner: Box<dyn Source>,
    kept: Vec<usize>,
    drives: BTreeSet<String>,
}

impl Subset {
    /// The frames of these drives, and of each drive every `every`th one, from its first.
    pub fn new(inner: Box<dyn Source>, drives: BTreeSet<String>, every: usize) -> Self {
        let mut n_seen = BTreeMap::<String, usize>::new();
        let kept = (0..inner.len()).filter(|&index| {
            let drive = inner.id(index).drive;
            let is_wanted = drives.contains(&drive);
            let seen = n_seen.entry(drive).or_default();
            *seen += 1;
            is_wanted && (*seen - 1).is_multiple_of(every.max(1))
        });
        let kept = kept.collect();
        Self { inner, kept, drives }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.kept.len()
    }

    fn id(&self, index: usize) -> SampleId {
        self.inner.id(self.kept[index])
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        self.inner.load(epoch, self.kept[index])
    }

    fn stamp(&self, index: usize) -> Option<Stamp> {
        self.inner.stamp(self.kept[index])
    }

    fn fingerprint(&self) -> Fingerprint {
        let Fingerprint { source, sha256 } = self.inner.fingerprint();
        let kept = self.kept.iter().flat_map(|index| (*index as u64).to_le_bytes()).collect();
        Fingerprint { source, sha256: sha256_of(&[sha256.into_bytes(), kept]) }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.inner.findings();
        findings.retain(|finding| self.drives.contains(&finding.drive) || finding.drive == "all");
        findings
    }
}

/// A source whose classes and drives have other names.
#[derive(Debug)]
pub struct Renamed {
    inner: Box<dyn Source>,
    /// New name by old name; empty leaves the labels out.
    classes: BTreeMap<String, String>,
    /// Before the name of every drive.
    prefix: String,
}

impl Renamed {
    /// Classes that `classes` does not name keep theirs; those it gives an empty name are left out.
    pub fn new(inner: Box<dyn Source>, classes: BTreeMap<String, String>, prefix: String) -> Self {
        Self { inner, classes, prefix }
    }

    fn rename(&self, id: SampleId) -> SampleId {
        SampleId { drive: format!("{}{}", self.prefix, id.drive), frame: id.frame }
    }
}

impl Source for Renamed {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn id(&self, index: usize) -> SampleId {
        self.rename(self.inner.id(index))
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        let mut sample = self.inner.load(epoch, index)?;
        sample.id = self.rename(sample.id);
        for label in sample.labels.iter_mut().flatten() {
            if let Some(name) = self.classes.get(&label.class) {
                label.class.clone_from(name);
            }
        }
        if let Some(labels) = &mut sample.labels {
            labels.retain(|label| !label.class.is_empty());
        }
        Ok(sample)
    }

    fn stamp(&self, index: usize) -> Option<Stamp> {
        self.inner.stamp(index)
    }

    fn fingerprint(&self) -> Fingerprint {
        let Fingerprint { source, sha256 } = self.inner.fingerprint();
        let names = serde_json::json!([self.classes, self.prefix]).to_string();
        Fingerprint { source, sha256: sha256_of(&[sha256.into_bytes(), names.into_bytes()]) }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.inner.findings();
        for finding in findings.iter_mut().filter(|finding| finding.drive != "all") {
            finding.drive = format!("{}{}", self.prefix, finding.drive);
        }
        findings
    }
}

/// Names of the drives that have frames.
pub(super) fn drives_of(source: &dyn Source) -> BTreeSet<String> {
    (0..source.len()).map(|index| source.id(index).drive).collect()
}

/// Whether a drive belongs to validation: by a hash of its name, so that it stays there whatever drives are added.
pub fn is_val_drive(drive: &str, val_fraction: f64) -> bool {
    let digest = Sha256::digest(drive.as_bytes());
    let head = digest.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
    // 2^64 as f64
    (head as f64) < val_fraction * 18_446_744_073_709_551_616.0
}
