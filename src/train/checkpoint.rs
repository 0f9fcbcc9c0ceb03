//! Checkpoints: everything a run needs to go on, in folders that are whole or not there.
//!
//! A checkpoint is a folder `step_00000120` with `tensors.safetensors`, `state.json` and `SHA256SUMS`. It is filled under another
//! name, synced and renamed, so a crash at any moment leaves the older ones as they were. Only when it has its name are older ones
//! removed. Random choices are functions of (seed, epoch, sample), so the position of the run stands for the state of every generator
//! and for the order of the epoch.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tensor_file;
use crate::model::directory::{STAGING, sha256_hex};
use crate::model::params::Weights;

const TENSORS_FILE: &str = "tensors.safetensors";
const STATE_FILE: &str = "state.json";
const SUMS_FILE: &str = "SHA256SUMS";
/// Folders with this in front are being written, or were when a run was killed.
const UNFINISHED: &str = ".writing-";
const PREFIX: &str = "step_";
/// Put in front of the name of a checkpoint that was found damaged.
const DAMAGED: &str = "damaged_";
/// Largest state.json read, in bytes.
const STATE_LIMIT: u64 = 16 << 20;
/// Largest tensors.safetensors read, in bytes.
const TENSORS_LIMIT: u64 = 16 << 30;

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Everything of a checkpoint but its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Steps done; with the seeds of the configuration this is the position of the schedule, of the epoch's order and of every random
    /// generator.
    pub step: u64,
    /// SHA-256 of `run.json`: configuration, spec and data of the run it belongs to.
    pub run_sha256: String,
    /// CPU threads of libtorch; sums are split by it, so another count gives other last bits.
    pub n_threads: i32,
    /// `cpu` or `cuda:N`.
    pub device: String,
}

/// A checkpoint as read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it lies.
    pub path: PathBuf,
    /// Everything but the tensors.
    pub state: State,
    /// By name; the parts of a run are told apart by prefixes.
    pub tensors: Weights,
}

/// What [`newest`] found.
#[derive(Debug)]
pub struct Found {
    /// The newest that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that are not, and why.
    pub damaged: Vec<CheckpointError>,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused a write.
    #[error("writing {path}: {source}")]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Why.
        r#source: io::Error,
    },
    /// The operating system refused a read.
    #[error("reading {path}: {source}")]
    Read {
        /// File or folder.
        path: PathBuf,
        /// Why.
        r#source: io::Error,
    },
    /// A file is not what its checksum says.
    #[error("{path}: SHA-256 is {computed}, SHA256SUMS says {listed}")]
    Hash {
        /// Of the file.
        path: PathBuf,
        /// From its bytes.
        computed: String,
        /// From SHA256SUMS, or `nothing`.
        listed: String,
    },
    /// Contents that cannot be understood, or values that cannot be written.
    #[error("{path}: {message}")]
    Content {
        /// Of the file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file larger than any checkpoint has.
    #[error("{path} has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// Of the file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Writes a checkpoint into `folder` and then removes all but the `keep` newest. Nothing there is touched before the new one is whole.
/// Where the step has a whole checkpoint already, that one stays.
///
/// # Errors
/// [`CheckpointError::Write`] with the system's word, for instance that the disk is full; what was written of it is gone then.
pub fn save(folder: &Path, state: &State, tensors: &Weights, keep: usize) -> Result<PathBuf, CheckpointError> {
    let path = folder.join(format!("{PREFIX}{:08}", state.step));
    if !path.exists() || read(&path).is_err() {
        write_as(&path, state, tensors)?;
    }
    for older in listed(folder)?.into_iter().skip(keep.max(1)) {
        fs::remove_dir_all(&older).map_err(|source| CheckpointError::Write { path: older.clone(), source })?;
    }
    Ok(path)
}

/// Writes a checkpoint under a name of its own, replacing what has that name.
///
/// # Errors
/// As [`save`].
pub fn write_as(path: &Path, state: &State, tensors: &Weights) -> Result<(), CheckpointError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.join(format!("{UNFINISHED}{name}"));
    let written = fill(&unfinished, state, tensors).and_then(|()| {
        remove_if_there(path)?;
        fs::rename(&unfinished, path).map_err(|source| CheckpointError::Write { path: path.to_owned(), source })?;
        sync_folder(folder)
    });
    if written.is_err() {
        // Best effort: a full disk gets its space back, and the first error is the one to report.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

fn fill(folder: &Path, state: &State, tensors: &Weights) -> Result<(), CheckpointError> {
    remove_if_there(folder)?;
    fs::create_dir_all(folder).map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })?;
    let content = |file: &str, message: String| CheckpointError::Content { path: folder.join(file), message };
    let tensor_bytes = tensor_file::encode(tensors).map_err(|message| content(TENSORS_FILE, message))?;
    let state_text = serde_json::to_string_pretty(state).map_err(|error| content(STATE_FILE, error.to_string()))? + "\n";
    let files = [(TENSORS_FILE, &tensor_bytes[..]), (STATE_FILE, state_text.as_bytes())];
    let sums: String = files.iter().map(|(file, bytes)| format!("{}  {file}\n", sha256_hex(bytes))).collect();
    for (file, bytes) in files.into_iter().chain([(SUMS_FILE, sums.as_bytes())]) {
        write_synced(&folder.join(file), bytes)?;
    }
    sync_folder(folder)
}

/// Writes a file beside its place, syncs it and renames it there.
///
/// # Errors
/// [`CheckpointError::Write`].
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let unfinished = folder.join(format!("{UNFINISHED}{}", path.file_name().unwrap_or_default().to_string_lossy()));
    let written = remove_if_there(&unfinished).and_then(|()| write_synced(&unfinished, bytes)).and_then(|()| {
        fs::rename(&unfinished, path).map_err(|source| CheckpointError::Write { path: path.to_owned(), source })?;
        sync_folder(folder)
    });
    if written.is_err() {
        // Best effort, as above.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let write = || {
        let mut file = fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| CheckpointError::Write { path: path.to_owned(), source })
}

/// A rename is safe from a power cut only when the folder that holds the name is on the disk too.
fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    let sync = || fs::File::open(folder)?.sync_all();
    sync().map_err(|source| CheckpointError::Write { path: folder.to_owned(), source })
}

fn remove_if_there(path: &Path) -> Result<(), CheckpointError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| CheckpointError::Write { path: path.to_owned(), source }),
    }
}

/// Removes what killed writes of checkpoints, files and model directories left in a folder.
///
/// # Errors
/// [`CheckpointError::Read`], [`CheckpointError::Write`].
pub fn remove_unfinished(folder: &Path) -> Result<(), CheckpointError> {
    let is_unfinished = |path: &PathBuf| [UNFINISHED, STAGING].iter().any(|prefix| file_name(path).starts_with(prefix));
    for path in entries(folder)?.iter().filter(|path| is_unfinished(path)) {
        remove_if_there(path)?;
    }
    Ok(())
}

/// The newest whole checkpoint of a folder. Newer ones that are damaged get another name, so that they neither stand in the way nor
/// count among those that are kept.
///
/// # Errors
/// [`CheckpointError::Read`] when the folder cannot be listed, [`CheckpointError::Write`] when it cannot be changed.
pub fn newest(folder: &Path) -> Result<Found, CheckpointError> {
    let mut damaged = Vec::new();
    for path in listed(folder)? {
        match read(&path) {
            Ok(checkpoint) => return Ok(Found { checkpoint: Some(checkpoint), damaged }),
            Err(error) => damaged.push(error),
        }
        let aside = folder.join(format!("{DAMAGED}{}", file_name(&path)));
        remove_if_there(&aside)?;
        fs::rename(&path, &aside).map_err(|source| CheckpointError::Write { path: aside, source })?;
    }
    Ok(Found { checkpoint: None, damaged })
}

/// Reads one checkpoint; every byte is held to its checksum.
///
/// # Errors
/// [`CheckpointError`] naming the file that is damaged.
pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let sums = read_limited(&path.join(SUMS_FILE), STATE_LIMIT)?;
    let sums = String::from_utf8_lossy(&sums).into_owned();
    let read_checked = |file: &str, limit: u64| {
        let path = path.join(file);
        let bytes = read_limited(&path, limit)?;
        let listed = sums.lines().filter_map(|line| line.split_once("  ")).find(|(_, name)| *name == file);
        let listed = listed.map_or("nothing", |(hash, _)| hash);
        let computed = sha256_hex(&bytes);
        if computed == listed { Ok(bytes) } else { Err(CheckpointError::Hash { path, computed, listed: listed.to_owned() }) }
    };
    let content = |file: &str, message: String| CheckpointError::Content { path: path.join(file), message };
    let state_bytes = read_checked(STATE_FILE, STATE_LIMIT)?;
    let state: State = serde_json::from_slice(&state_bytes).map_err(|error| content(STATE_FILE, error.to_string()))?;
    if state.format != FORMAT {
        return Err(content(STATE_FILE, format!("format is {}, this build reads {FORMAT}", state.format)));
    }
    let tensor_bytes = read_checked(TENSORS_FILE, TENSORS_LIMIT)?;
    let tensors = tensor_file::decode(&tensor_bytes).map_err(|message| content(TENSORS_FILE, message))?;
    Ok(Checkpoint { path: path.to_owned(), state, tensors })
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let refused = |source| CheckpointError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(refused)?.len();
    if bytes > limit {
        return Err(CheckpointError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    fs::read(path).map_err(refused)
}

/// Checkpoints of a folder, newest first; none when there is no folder.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let step_of = |path: &Path| file_name(path).strip_prefix(PREFIX)?.parse::<u64>().ok();
    let mut steps: Vec<_> = entries(folder)?.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect();
    steps.sort_by(|a, b| b.cmp(a));
    Ok(steps.into_iter().map(|(_, path)| path).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let refused = |source| CheckpointError::Read { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(refused(error)),
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(refused)?.path())).collect(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
