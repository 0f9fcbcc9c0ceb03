//! Cutting the labelled objects out of a source's frames.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    FORMAT, GtDatabaseError, MANIFEST_FILE, Manifest, OBJECTS_FILE, ObjectLine, POINTS_FILE, PROGRESS_FILE, hex, read_manifest,
};
use crate::cloud::Feature;
use crate::data::inside::{BoxIndex, OWNERSHIP_MARGIN_M};
use crate::data::prepare::{PrepareError, check_labels};
use crate::data::{Fingerprint, Sample, Source};
use crate::geometry::Box3d;
use crate::train::rule;

/// Frames between two marks of progress: what is lost when the program is killed.
const FRAMES_PER_MARK: usize = 64;

/// Which objects are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// By the source's class name: objects are cut out of every n-th frame of the source. Other classes are not kept.
    pub every: BTreeMap<String, u64>,
}

impl Default for DatabaseSettings {
    /// Vehicles of every fourth frame, pedestrians of every second, all cyclists.
    fn default() -> Self {
        Self { every: [("Vehicle", 4), ("Pedestrian", 2), ("Cyclist", 1)].map(|(class, n)| (class.to_owned(), n)).into() }
    }
}

/// How far a database is; also what `progress.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    settings: DatabaseSettings,
    source: Fingerprint,
    features: Option<Vec<Feature>>,
    /// Frames done.
    pub n_done: u64,
    /// Frames of the source.
    pub n_frames: u64,
    /// Of the frames done, those without labels.
    pub n_unlabelled: u64,
    /// Of the frames done, those that could not be read, with the reason.
    pub unreadable: Vec<String>,
    /// Objects so far, by class.
    pub n_objects: BTreeMap<String, u64>,
    /// Labels so far without a point.
    pub n_without_points: u64,
    points_bytes: u64,
    objects_bytes: u64,
}

/// What one frame gave.
#[derive(Default)]
struct Cut {
    features: Option<Vec<Feature>>,
    objects: Vec<(ObjectLine, Vec<u8>)>,
    is_unlabelled: bool,
    unreadable: Option<String>,
    n_without_points: u64,
}

/// Makes a database, or goes on with one that was begun with the same source and settings; a finished one is left as it is.
///
/// Frames that cannot be read are left out and listed. `on_progress` is called after each mark.
///
/// # Errors
/// A setting that breaks a rule, a folder that holds something else, frames with other columns than those before, no object at all, or the file system's word.
/// What was written before stays good, and the next call goes on from there.
pub fn build(
    source: &dyn Source,
    settings: &DatabaseSettings,
    dir: &Path,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Manifest, GtDatabaseError> {
    let counts = settings.every.values().all(|&n| n >= 1);
    rule(!settings.every.is_empty() && counts, "every", &settings.every, "at least one class, of every 1st, 2nd, … frame")?;
    let fingerprint = source.fingerprint();
    if let Some((manifest, _)) = read_manifest(dir)? {
        must_equal(dir, "source", &manifest.source.sha256, &fingerprint.sha256)?;
        must_equal(dir, "settings", &manifest.settings, settings)?;
        return Ok(manifest);
    }
    fs::create_dir_all(dir).map_err(|source| GtDatabaseError::Io { path: dir.to_owned(), source })?;
    let folder = File::open(dir).map_err(|source| GtDatabaseError::Io { path: dir.to_owned(), source })?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let problem = "another program is making a ground-truth database in it".to_owned();
            return Err(GtDatabaseError::Folder { path: dir.to_owned(), problem });
        }
        Err(TryLockError::Error(error)) => tracing::warn!("{}: cannot be locked: {error}", dir.display()),
        Ok(()) => {}
    }
    let mut progress = begin(dir, source, settings, fingerprint)?;
    let mut points = Appended::open(&dir.join(POINTS_FILE), progress.points_bytes)?;
    let mut objects = Appended::open(&dir.join(OBJECTS_FILE), progress.objects_bytes)?;
    while progress.n_done < progress.n_frames {
        on_progress(&progress);
        let first = progress.n_done as usize;
        let frames = first..(first + FRAMES_PER_MARK).min(progress.n_frames as usize);
        let cuts: Vec<Cut> = frames.clone().into_par_iter().map(|index| cut_frame(source, settings, index)).collect();
        for (index, cut) in frames.zip(cuts) {
            progress.take(dir, index, cut, &mut points, &mut objects)?;
        }
        (progress.points_bytes, progress.objects_bytes) = (points.sync()?, objects.sync()?);
        write_beside(dir, PROGRESS_FILE, &progress)?;
    }
    on_progress(&progress);
    finish(dir, progress)
}

/// The progress to go on from: that of the folder, or none.
fn begin(
    dir: &Path,
    source: &dyn Source,
    settings: &DatabaseSettings,
    fingerprint: Fingerprint,
) -> Result<Progress, GtDatabaseError> {
    let io_error = |path: &Path, source| GtDatabaseError::Io { path: path.to_owned(), source };
    let path = dir.join(PROGRESS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let progress: Progress = serde_json::from_str(&text).map_err(|error| GtDatabaseError::Content {
                path: path.clone(),
                place: "whole file".to_owned(),
                problem: error.to_string(),
            })?;
            must_equal(dir, "source", &progress.source.sha256, &fingerprint.sha256)?;
            must_equal(dir, "settings", &progress.settings, settings)?;
            must_equal(dir, "number of frames", &progress.n_frames, &(source.len() as u64))?;
            Ok(progress)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::read_dir(dir).map_err(|error| io_error(dir, error))?.next().is_some() {
                let problem = "is not empty and holds no ground-truth database; take another folder".to_owned();
                return Err(GtDatabaseError::Folder { path: dir.to_owned(), problem });
            }
            let progress = Progress {
                settings: settings.clone(),
                source: fingerprint,
                features: None,
                n_done: 0,
                n_frames: source.len() as u64,
                n_unlabelled: 0,
                unreadable: Vec::new(),
                n_objects: BTreeMap::new(),
                n_without_points: 0,
                points_bytes: 0,
                objects_bytes: 0,
            };
            write_beside(dir, PROGRESS_FILE, &progress)?;
            Ok(progress)
        }
        Err(error) => Err(io_error(&path, error)),
    }
}

fn must_equal<T: PartialEq + std::fmt::Debug>(
    dir: &Path,
    key: &'static str,
    there: &T,
    asked: &T,
) -> Result<(), GtDatabaseError> {
    if there == asked {
        return Ok(());
    }
    Err(GtDatabaseError::Differs { path: dir.to_owned(), key, there: format!("{there:?}"), asked: format!("{asked:?}") })
}

/// The wanted objects of a frame.
fn cut_frame(source: &dyn Source, settings: &DatabaseSettings, index: usize) -> Cut {
    let id = source.id(index);
    let unreadable =
        |error: &dyn std::fmt::Display| Cut { unreadable: Some(format!("{id}: {}", id.reason(error))), ..Cut::default() };
    match source.load(0, index) {
        Err(error) => unreadable(&error),
        Ok(sample) => cut_sample(&sample, settings, index).unwrap_or_else(|error| unreadable(&error)),
    }
}

fn cut_sample(sample: &Sample, settings: &DatabaseSettings, index: usize) -> Result<Cut, PrepareError> {
    let Some(labels) = &sample.labels else { return Ok(Cut { is_unlabelled: true, ..Cut::default() }) };
    check_labels(&sample.id, labels)?;
    let is_due = |every: &u64| (index as u64).is_multiple_of(*every);
    // A class that is not due takes no part at all; one that is not wanted still claims the points inside its boxes.
    let present: Vec<_> = labels.iter().filter(|label| settings.every.get(&label.class).is_none_or(is_due)).collect();
    let boxes: Vec<Box3d> = present.iter().map(|label| label.box3d).collect();
    let inside = BoxIndex::new(&boxes, OWNERSHIP_MARGIN_M);
    let mut points: Vec<Vec<u8>> = vec![Vec::new(); boxes.len()];
    for row in sample.cloud.rows() {
        let Some(box_idx) = inside.first_holding(row) else { continue };
        for (column, value) in row.iter().enumerate() {
            let middle = if column < 3 { boxes[box_idx].center[column] as f32 } else { 0.0 };
            points[box_idx].extend((value - middle).to_le_bytes());
        }
    }
    let mut cut = Cut { features: Some(sample.cloud.features.clone()), ..Cut::default() };
    let row_bytes = sample.cloud.features.len() * 4;
    for (label, bytes) in present.into_iter().zip(points).filter(|(label, _)| settings.every.contains_key(&label.class)) {
        if bytes.is_empty() {
            cut.n_without_points += 1;
            continue;
        }
        let line = ObjectLine {
            class: label.class.clone(),
            drive: sample.id.drive.clone(),
            frame: sample.id.frame,
            row: label.box3d.to_row(),
            difficulty: label.difficulty,
            n_points: (bytes.len() / row_bytes) as u32,
            crc32: crc32fast::hash(&bytes),
        };
        cut.objects.push((line, bytes));
    }
    Ok(cut)
}

impl Progress {
    /// Writes what a frame gave and counts it.
    fn take(
        &mut self,
        dir: &Path,
        index: usize,
        cut: Cut,
        points: &mut Appended,
        objects: &mut Appended,
    ) -> Result<(), GtDatabaseError> {
        if let Some(features) = cut.features {
            let expected = self.features.get_or_insert_with(|| features.clone());
            if *expected != features {
                let (path, place) = (dir.to_owned(), format!("frame {index}"));
                let problem = format!("has columns {features:?}, those before have {expected:?}; make one database per sensor");
                return Err(GtDatabaseError::Content { path, place, problem });
            }
        }
        for (line, bytes) in cut.objects {
            let mut text = serde_json::to_vec(&line).map_err(|error| objects.error(error.into()))?;
            text.push(b'\n');
            objects.write(&text)?;
            points.write(&bytes)?;
            *self.n_objects.entry(line.class).or_default() += 1;
        }
        self.n_done += 1;
        self.n_unlabelled += u64::from(cut.is_unlabelled);
        self.unreadable.extend(cut.unreadable);
        self.n_without_points += cut.n_without_points;
        Ok(())
    }
}

fn finish(dir: &Path, progress: Progress) -> Result<Manifest, GtDatabaseError> {
    let Progress { settings, source, features, n_frames, n_unlabelled, unreadable, n_objects, n_without_points, .. } = progress;
    let (Some(features), false) = (features, n_objects.is_empty()) else {
        return Err(GtDatabaseError::Empty {
            source_name: source.source,
            n_frames,
            n_unlabelled,
            n_unreadable: unreadable.len() as u64,
            first_reason: unreadable.into_iter().next(),
        });
    };
    let manifest = Manifest {
        format: FORMAT,
        settings,
        source,
        features,
        n_frames,
        n_unlabelled,
        unreadable,
        n_objects,
        n_without_points,
        objects_sha256: file_sha256(&dir.join(OBJECTS_FILE))?,
        points_sha256: file_sha256(&dir.join(POINTS_FILE))?,
    };
    write_beside(dir, MANIFEST_FILE, &manifest)?;
    let path = dir.join(PROGRESS_FILE);
    fs::remove_file(&path).map_err(|source| GtDatabaseError::Io { path, source })?;
    Ok(manifest)
}

/// A file that grows by whole marks: what a killed program left beyond the last one is cut off.
struct Appended {
    path: PathBuf,
    file: io::BufWriter<File>,
    n_bytes: u64,
}

impl Appended {
    fn open(path: &Path, n_bytes: u64) -> Result<Self, GtDatabaseError> {
        let io_error = |source| GtDatabaseError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io_error)?;
        let there = file.metadata().map_err(io_error)?.len();
        if there < n_bytes {
            let problem = format!("has {there} bytes, {PROGRESS_FILE} says {n_bytes}; remove the folder and begin anew");
            return Err(GtDatabaseError::Content { path: path.to_owned(), place: "whole file".to_owned(), problem });
        }
        file.set_len(n_bytes).map_err(io_error)?;
        Ok(Self { path: path.to_owned(), file: io::BufWriter::new(file), n_bytes })
    }

    fn error(&self, source: io::Error) -> GtDatabaseError {
        GtDatabaseError::Io { path: self.path.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), GtDatabaseError> {
        self.file.write_all(bytes).map_err(|error| self.error(error))?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Brings everything to the disk; returns the length.
    fn sync(&mut self) -> Result<u64, GtDatabaseError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(|error| self.error(error))?;
        Ok(self.n_bytes)
    }
}

/// Writes a JSON file beside its place and moves it there.
fn write_beside(dir: &Path, name: &str, content: &impl Serialize) -> Result<(), GtDatabaseError> {
    let path = dir.join(name);
    let io_error = |source| GtDatabaseError::Io { path: path.clone(), source };
    let mut text = serde_json::to_vec_pretty(content).map_err(|error| io_error(error.into()))?;
    text.push(b'\n');
    let fresh = dir.join(format!(".{name}.new"));
    let mut file = File::create(&fresh).map_err(io_error)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io_error)?;
    fs::rename(&fresh, &path).map_err(io_error)
}

fn file_sha256(path: &Path) -> Result<String, GtDatabaseError> {
    let io_error = |source| GtDatabaseError::Io { path: path.to_owned(), source };
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).map_err(io_error)?, &mut hash).map_err(io_error)?;
    Ok(hex(&hash.finalize()))
}
