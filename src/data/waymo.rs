//! The Waymo Open Dataset, version 1 (TFRecord) and version 2 (parquet).
//!
//! Both give the same frames: all lasers in the order of Waymo's enumeration, first return before second, in the vehicle frame, with
//! raw intensity, elongation and the no-label-zone flag. Only what detection needs is read; camera images are skipped unread.
//!
//! # Limits
//! Files are mapped, so no declared length is allocated before it was compared with what is there. A zlib stream may inflate to
//! [`range_image::MAX_INFLATED`]; so may a parquet page, and a column may hold the rows and values
//! that `v2` allows.

mod frame;
mod geometry;
mod proto;
pub mod range_image;
mod tfrecord;
pub mod v1;
pub mod v2;

pub use frame::{FEATURES, Laser, LaserImages, LeftOut, RawFrame, RawLabel, VEHICLE_FRAME};
pub use geometry::{Calibration, Inclinations, MotionCompensation, PixelPoint};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DataError, Finding, Fingerprint, Sample, SampleId, Source};

/// Either version.
#[derive(Debug)]
pub enum Waymo {
    /// TFRecord.
    V1(v1::Segments),
    /// Parquet.
    V2(v2::Components),
}

/// Whether a path looks like Waymo data: a `*.tfrecord` or a file that begins like one, a folder of `*.tfrecord`, or a folder with a
/// `lidar` folder of `*.parquet`.
pub fn recognises(path: &Path) -> bool {
    let has = |folder: &Path, extension: &str| files_in(folder, extension).is_ok_and(|files| !files.is_empty());
    if path.is_dir() {
        has(path, "tfrecord") || has(&path.join("lidar"), "parquet")
    } else {
        has_extension(path, "tfrecord") || tfrecord::begins(path)
    }
}

/// Opens one segment or a folder of them, of either version.
///
/// # Errors
/// What the version's own `open` refuses.
pub fn open(path: &Path) -> Result<Waymo, DataError> {
    if path.join("lidar").is_dir() { v2::Components::open(path).map(Waymo::V2) } else { v1::Segments::open(path).map(Waymo::V1) }
}

impl Waymo {
    /// One frame before its range images become points.
    ///
    /// # Errors
    /// What is wrong with this frame.
    pub fn raw_frame(&self, index: usize) -> Result<RawFrame, DataError> {
        match self {
            Self::V1(segments) => segments.raw_frame(index),
            Self::V2(components) => components.raw_frame(index),
        }
    }

    /// What all loads so far left out.
    pub fn left_out(&self) -> LeftOut {
        match self {
            Self::V1(segments) => segments.left_out(),
            Self::V2(components) => components.left_out(),
        }
    }

    fn source(&self) -> &dyn Source {
        match self {
            Self::V1(segments) => segments,
            Self::V2(components) => components,
        }
    }
}

impl Source for Waymo {
    fn len(&self) -> usize {
        self.source().len()
    }

    fn id(&self, index: usize) -> SampleId {
        self.source().id(index)
    }

    fn load(&self, epoch: u64, index: usize) -> Result<Sample, DataError> {
        self.source().load(epoch, index)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.source().fingerprint()
    }

    fn findings(&self) -> Vec<Finding> {
        self.source().findings()
    }
}

/// What is wrong inside a file, before the file and the record are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Laser, label or field.
    pub place: String,
    /// Both sides.
    pub reason: String,
}

impl Fault {
    fn field(name: &str, reason: String) -> Self {
        Self { place: name.to_owned(), reason }
    }

    fn of(self, path: &Path, place: &str) -> DataError {
        DataError::Format { path: path.display().to_string(), place: format!("{place}: {}", self.place), reason: self.reason }
    }
}

/// Sums of [`LeftOut`] over the loads of a source.
#[derive(Debug, Default)]
struct Tally {
    n_unknown_labels: AtomicU64,
    n_non_finite_points: AtomicU64,
}

impl Tally {
    fn add(&self, id: &SampleId, left_out: LeftOut) {
        if left_out.n_non_finite_points > 0 {
            tracing::warn!("{id}: {} returns are not finite and were left out", left_out.n_non_finite_points);
        }
        self.n_unknown_labels.fetch_add(left_out.n_unknown_labels, Ordering::Relaxed);
        self.n_non_finite_points.fetch_add(left_out.n_non_finite_points, Ordering::Relaxed);
    }

    fn total(&self) -> LeftOut {
        LeftOut {
            n_unknown_labels: self.n_unknown_labels.load(Ordering::Relaxed),
            n_non_finite_points: self.n_non_finite_points.load(Ordering::Relaxed),
        }
    }
}

/// The files of a folder with that extension, sorted by name.
fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, DataError> {
    let io_error = |source| DataError::Io { path: folder.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if has_extension(&path, extension) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn no_source(path: &Path, reason: &str) -> DataError {
    DataError::Source { source_name: path.display().to_string(), reason: reason.to_owned() }
}

/// Frames are told apart by drive and index, so each segment may occur once.
fn check_drives<'a>(drives: impl Iterator<Item = (&'a str, &'a Path)>) -> Result<(), DataError> {
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for (drive, path) in drives {
        if let Some(first) = seen.insert(drive, path) {
            let [first, second] = [first, path].map(|path| path.display().to_string());
            return Err(DataError::DriveTwice { drive: drive.to_owned(), first, second });
        }
    }
    Ok(())
}
