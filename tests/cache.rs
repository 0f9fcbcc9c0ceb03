//! The cache: what comes back, what survives, what is refused.

mod convert;
mod damage;
mod roundtrip;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nalgebra::{Isometry3, Vector3};
use pivotal::cloud::{Feature, PointCloud};
use pivotal::data::cache::{self, CacheSettings, Precision, Written};
use pivotal::data::{DataError, Fingerprint, Label, Sample, SampleId, Source};
use pivotal::geometry::Box3d;
use pivotal::time::Stamp;

/// Small frames that follow from their index; some cannot be read, and the disk may fail after a number of loads.
#[derive(Debug, Default)]
pub struct Made {
    n_frames: usize,
    unreadable: Vec<usize>,
    /// Loads until the operating system refuses; endless when 0.
    loads_left: AtomicUsize,
}

impl Made {
    fn new(n_frames: usize) -> Self {
        Self { n_frames, ..Self::default() }
    }
}

impl Source for Made {
    fn len(&self) -> usize {
        self.n_frames
    }

    fn id(&self, index: usize) -> SampleId {
        SampleId { drive: format!("drive-{}", index / 4), frame: index as u64 % 4 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        if self.loads_left.load(Ordering::SeqCst) > 0 && self.loads_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.loads_left.store(1, Ordering::SeqCst);
            return Err(DataError::Io { path: "made".to_owned(), source: std::io::ErrorKind::TimedOut.into() });
        }
        if self.unreadable.contains(&index) {
            return Err(DataError::Sample { id: self.id(index), reason: "made to fail".to_owned() });
        }
        Ok(sample(self.id(index), index))
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { source: "made".to_owned(), sha256: format!("{:?}", (self.n_frames, &self.unreadable)) }
    }
}

/// A sample with every field set, each in another way for another index.
pub fn sample(id: SampleId, index: usize) -> Sample {
    let n_points = [0, 1, 7, 8, 9, 1000][index % 6];
    let features = [Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation, Feature::TimeOffset];
    let n_columns = 3 + index % 4;
    let value = |idx: usize| ((idx * 7919 + index * 104_729) % 20_011) as f32 / 20_011.0 * 150.0 - 75.0;
    let label = |label_idx: usize| Label {
        box3d: Box3d::from_row([0.1 * label_idx as f64, -1.0 / 3.0, 0.7, 4.0, 2.0, 1.5, 1e-17]),
        class: ["Vehicle", "Sign"][label_idx % 2].to_owned(),
        track_id: label_idx.is_multiple_of(2).then(|| format!("track \"{label_idx}\"")),
        n_points: (label_idx > 0).then_some(label_idx as u32),
        difficulty: (label_idx > 1).then_some(2),
        velocity_mps: (label_idx > 2).then_some([0.1, f64::MIN_POSITIVE]),
    };
    Sample {
        id,
        cloud: PointCloud {
            stamp: Stamp { nanos: 1_700_000_000_123_456_789 + index as i64 },
            frame_id: "base_link".to_owned(),
            features: features[..n_columns].to_vec(),
            points: (0..n_points * n_columns).map(value).collect(),
        },
        labels: (!index.is_multiple_of(3)).then(|| (0..index % 5).map(label).collect()),
        in_no_label_zone: if index.is_multiple_of(2) { (0..n_points).map(|idx| idx % 3 == 1).collect() } else { Vec::new() },
        world_from_cloud: (!index.is_multiple_of(4))
            .then(|| Isometry3::new(Vector3::new(-25_211.3, 42_391.1, 1.0 / 3.0), Vector3::new(0.1, 0.2, index as f64))),
    }
}

pub fn settings(precision: Precision) -> CacheSettings {
    CacheSettings { precision, range_m: None, shard_frames: 4 }
}

pub fn write(source: &dyn Source, folder: &Path) -> Result<Written, DataError> {
    cache::write(source, folder, &settings(Precision::F32), &|_| {})
}

/// Names and bytes of all files of a folder.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())).collect()
}

pub fn message(result: Result<impl std::fmt::Debug, DataError>) -> String {
    result.unwrap_err().to_string()
}
