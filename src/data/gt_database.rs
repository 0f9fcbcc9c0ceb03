//! The ground-truth database: labelled objects cut out of their frames, to be pasted into others.
//!
//! # One database for all models
//! Points keep the columns of their source and its raw intensity, and objects the class names of their source. Columns, intensity
//! mode and class names are a model's own, so they are applied when an object is pasted, by the same code as for the frame around
//! it. A database with a model's intensity would be wrong for the next model without anybody noticing.
//!
//! # Files of the folder
//! - `points.f32`: the points of all objects one after the other, little-endian f32 rows, x, y, z relative to the box's middle.
//! - `objects.jsonl`: one [`ObjectLine`] each, in the same order.
//! - `database.json`: [`Manifest`]; written last, so a folder that has it is whole. `progress.json` stands in its place until then.
//!
//! The points are mapped, not read; each object's checksum is compared when it is used.

mod build;

pub use build::{DatabaseSettings, Progress, build};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Fingerprint;
use crate::bag::map::map_file;
use crate::cloud::Feature;
use crate::geometry::Box3d;
use crate::train::SettingError;

const POINTS_FILE: &str = "points.f32";
const OBJECTS_FILE: &str = "objects.jsonl";
const MANIFEST_FILE: &str = "database.json";
const PROGRESS_FILE: &str = "progress.json";

/// Version of the folder's layout.
const FORMAT: u32 = 1;

/// Bytes of one value of a point.
const VALUE_BYTES: u64 = 4;

/// An object as `objects.jsonl` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLine {
    /// As the source names it.
    pub class: String,
    /// Drive it was cut from.
    pub drive: String,
    /// Frame it was cut from.
    pub frame: u64,
    /// `[x, y, z, length, width, height, yaw]` in the frame's cloud; metres and radians.
    #[serde(rename = "box")]
    pub row: [f64; 7],
    /// As the source says.
    pub difficulty: Option<u8>,
    /// Its rows in `points.f32`.
    pub n_points: u32,
    /// Of those rows' bytes.
    pub crc32: u32,
}

/// What a database holds and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout; 1.
    pub format: u32,
    /// What it was made from, and how.
    pub settings: DatabaseSettings,
    /// The source.
    pub source: Fingerprint,
    /// Columns of the points.
    pub features: Vec<Feature>,
    /// Frames looked at.
    pub n_frames: u64,
    /// Frames without labels; nothing was cut from them.
    pub n_unlabelled: u64,
    /// Frames that could not be read, with the reason.
    pub unreadable: Vec<String>,
    /// Objects by class.
    pub n_objects: BTreeMap<String, u64>,
    /// Labels of the wanted classes and frames without a single point.
    pub n_without_points: u64,
    /// SHA-256 of `objects.jsonl`, lower-case hex.
    pub objects_sha256: String,
    /// SHA-256 of `points.f32`, lower-case hex.
    pub points_sha256: String,
}

/// An object of an open database.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredObject {
    /// In the frame it was cut from.
    pub box3d: Box3d,
    /// Number of its points.
    pub n_points: u32,
    class: u16,
    crc32: u32,
    first_row: u64,
}

/// An open database.
#[derive(Debug, Clone)]
pub struct GtDatabase {
    dir: PathBuf,
    manifest: Manifest,
    sha256: String,
    classes: Vec<String>,
    objects: Vec<StoredObject>,
    points: Bytes,
}

/// Why a database cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum GtDatabaseError {
    /// The operating system's word.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        r#source: io::Error,
    },
    /// Something is there that is no database.
    #[error("{}: {problem}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is there, and what to do.
        problem: String,
    },
    /// A file is not what it should be.
    #[error("{}: {place}: {problem}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, object or key.
        place: String,
        /// Both sides.
        problem: String,
    },
    /// The folder was begun from something else.
    #[error("{}: {key} is {there}, now {asked}; take another folder or remove this one", .path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// Which setting.
        key: &'static str,
        /// As begun.
        there: String,
        /// As asked for now.
        asked: String,
    },
    /// A setting that breaks a rule.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Not a single frame could be used.
    #[error("no object was found in {n_frames} frames of {source_name}: {n_unlabelled} without labels, {n_unreadable} unreadable{}",
            .first_reason.as_ref().map(|reason| format!(", first: {reason}")).unwrap_or_default())]
    Empty {
        /// As the user named it.
        source_name: String,
        /// Frames of the source.
        n_frames: u64,
        /// Of them without labels.
        n_unlabelled: u64,
        /// Of them unreadable.
        n_unreadable: u64,
        /// Why the first one was.
        first_reason: Option<String>,
    },
}

impl GtDatabase {
    /// Opens a finished database.
    ///
    /// # Errors
    /// A folder that is no finished database, or whose files contradict each other.
    pub fn open(dir: &Path) -> Result<Self, GtDatabaseError> {
        let (manifest, sha256) = read_manifest(dir)?.ok_or_else(|| {
            let begun = dir.join(PROGRESS_FILE).is_file();
            let problem = if begun {
                "a ground-truth database that is not finished; run the command that began it again"
            } else {
                NO_DATABASE
            };
            GtDatabaseError::Folder { path: dir.to_owned(), problem: problem.to_owned() }
        })?;
        let path = dir.join(OBJECTS_FILE);
        let text = fs::read_to_string(&path).map_err(|source| GtDatabaseError::Io { path: path.clone(), source })?;
        let hash = hex(&Sha256::digest(&text));
        if hash != manifest.objects_sha256 {
            let problem = format!("has SHA-256 {hash}, {MANIFEST_FILE} says {}", manifest.objects_sha256);
            return Err(GtDatabaseError::Content { path, place: "whole file".to_owned(), problem });
        }
        let (classes, objects, n_rows) = parse_objects(&path, &text)?;
        let path = dir.join(POINTS_FILE);
        let points = map_file(&path).map_err(|source| GtDatabaseError::Io { path: path.clone(), source })?;
        let expected = n_rows * manifest.features.len() as u64 * VALUE_BYTES;
        if points.len() as u64 != expected {
            let problem = format!("has {} bytes, {OBJECTS_FILE} needs {expected}", points.len());
            return Err(GtDatabaseError::Content { path, place: "whole file".to_owned(), problem });
        }
        Ok(Self { dir: dir.to_owned(), manifest, sha256, classes, objects, points })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds and what it was made from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest, which holds those of the other files: identity of the database for provenance.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Columns of the points; begin with x, y, z.
    pub fn features(&self) -> &[Feature] {
        &self.manifest.features
    }

    /// All objects, in the order of their frames.
    pub fn objects(&self) -> &[StoredObject] {
        &self.objects
    }

    /// The source's name for an object's class.
    pub fn class_of(&self, object: &StoredObject) -> &str {
        &self.classes[usize::from(object.class)]
    }

    /// Classes with their numbers, for messages to people.
    pub fn classes_in_words(&self) -> String {
        let counts: Vec<_> = self.manifest.n_objects.iter().map(|(class, n)| format!("{n} {class}")).collect();
        if counts.is_empty() { "no object".to_owned() } else { counts.join(", ") }
    }

    /// The points of an object.
    ///
    /// # Shapes
    /// - out: rows of [`GtDatabase::features`], x, y, z relative to the middle of the box
    ///
    /// # Errors
    /// [`GtDatabaseError::Content`] when the bytes are not those that were written.
    pub fn points(&self, object_idx: usize) -> Result<Vec<f32>, GtDatabaseError> {
        let object = &self.objects[object_idx];
        let row_bytes = self.features().len() as u64 * VALUE_BYTES;
        let start = (object.first_row * row_bytes) as usize;
        let bytes = &self.points[start..start + (u64::from(object.n_points) * row_bytes) as usize];
        let crc32 = crc32fast::hash(bytes);
        if crc32 != object.crc32 {
            let problem = format!("its points have CRC-32 {crc32:#010x}, {OBJECTS_FILE} says {:#010x}", object.crc32);
            let path = self.dir.join(POINTS_FILE);
            return Err(GtDatabaseError::Content { path, place: format!("object {object_idx}"), problem });
        }
        let (values, _) = bytes.as_chunks::<4>();
        Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }
}

const NO_DATABASE: &str = "no ground-truth database; `trainer convert gt-database` makes one";

/// The manifest and its hash; `None` where there is none.
fn read_manifest(dir: &Path) -> Result<Option<(Manifest, String)>, GtDatabaseError> {
    let path = dir.join(MANIFEST_FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| GtDatabaseError::Io { path: path.clone(), source })?,
    };
    let content = |place: String, problem: String| GtDatabaseError::Content { path: path.clone(), place, problem };
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| content("whole file".to_owned(), error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(content("format".to_owned(), format!("is {}, this build reads {FORMAT}", manifest.format)));
    }
    if !manifest.features.starts_with(&[Feature::X, Feature::Y, Feature::Z]) {
        return Err(content("features".to_owned(), format!("are {:?}, must begin with x, y, z", manifest.features)));
    }
    Ok(Some((manifest, hex(&Sha256::digest(&text)))))
}

/// Class names, objects, and the number of rows of points they need.
fn parse_objects(path: &Path, text: &str) -> Result<(Vec<String>, Vec<StoredObject>, u64), GtDatabaseError> {
    let (mut classes, mut objects, mut first_row) = (Vec::<String>::new(), Vec::new(), 0u64);
    for (line_idx, line) in text.lines().enumerate() {
        let content = |problem: String| {
            let place = format!("line {}", line_idx + 1);
            GtDatabaseError::Content { path: path.to_owned(), place, problem }
        };
        let ObjectLine { class, row, n_points, crc32, .. } = serde_json::from_str(line).map_err(|e| content(e.to_string()))?;
        if !row.iter().all(|v| v.is_finite()) || row[3..6].iter().any(|&size| size <= 0.0) || n_points == 0 {
            return Err(content(format!("box {row:?} with {n_points} points: must be finite, with sizes and points above 0")));
        }
        let class_idx = classes.iter().position(|known| *known == class).unwrap_or_else(|| {
            classes.push(class);
            classes.len() - 1
        });
        let class = u16::try_from(class_idx).map_err(|_| content("more than 65536 classes".to_owned()))?;
        objects.push(StoredObject { box3d: Box3d::from_row(row), n_points, class, crc32, first_row });
        first_row += u64::from(n_points);
    }
    if u32::try_from(objects.len()).is_err() {
        let place = "whole file".to_owned();
        let problem = format!("has {} objects, at most {}", objects.len(), u32::MAX);
        return Err(GtDatabaseError::Content { path: path.to_owned(), place, problem });
    }
    Ok((classes, objects, first_row))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
