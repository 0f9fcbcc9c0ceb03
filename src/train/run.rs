//! The folder of a run: who may work in it, what the run is made from, and whether it is finished.
//!
//! | name | what |
//! | --- | --- |
//! | `run.json` | [`RunRecord`]: configuration, spec, data, command, code revision; written once, before the first step |
//! | `config.yaml` | the effective configuration, every key |
//! | `checkpoints/` | newest checkpoints ([`super::checkpoint`]) |
//! | `log.jsonl`, `events.out.tfevents.*` | the log ([`super::log`]) |
//! | `best/` | model directory of the best validation |
//! | `model/` | model directory of the result |
//! | `non_finite/` | the state before a step that went wrong, and its batch |
//! | `DONE` | written last |

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointError, remove_unfinished, replace_file};
use super::config::{RunConfig, flattened};
use crate::data::Fingerprint;
use crate::model::directory::sha256_hex;
use crate::model::spec::ModelSpec;

const RECORD_FILE: &str = "run.json";
const CONFIG_FILE: &str = "config.yaml";
const DONE_FILE: &str = "DONE";
const LOCK_FILE: &str = "lock";

/// Keys of the configuration that change nothing of what is learned; a resumed run may have others.
const FREE_KEYS: [&str; 11] = [
    "loader.n_workers",
    "loader.n_batches_ahead",
    "loader.max_unreadable_share",
    "checkpoints.",
    "validation.",
    "log_every_steps",
    "num_threads",
    "model_dtype",
    // Places of what is compared by its content.
    "augment.gt_sampling.database",
    "distill.teacher.from",
    "distill.inherit.from",
];

/// What a run is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Version of this file's format; 1.
    pub format: u32,
    /// The command line that began the run.
    pub command: String,
    /// Commit of the code that began it, as far as known.
    pub revision: String,
    /// Every key.
    pub config: RunConfig,
    /// Of the trained model, the configured range included.
    pub spec: ModelSpec,
    /// Frames of the training source.
    pub n_frames: u64,
    /// What was trained on.
    pub data: Fingerprint,
    /// What is evaluated on.
    pub validation: Option<Fingerprint>,
    /// SHA-256 of the teacher's weights, or what a dump says of its teacher.
    pub teacher: Option<String>,
    /// SHA-256 of the weights the student inherits from.
    pub inherited: Option<String>,
    /// SHA-256 of the ground-truth database.
    pub gt_database: Option<String>,
}

/// Why a folder cannot be trained in.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        r#source: std::io::Error,
    },
    /// Somebody else's files.
    #[error("{path} is not empty and holds no run; choose another folder")]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run is there and `--resume` was not given.
    #[error("{path} holds a run; add --resume to go on with it, or choose another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path} is being trained in by another process")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The run there is another one.
    #[error("{path} holds another run, which --resume cannot go on with:\n  {}", .differences.join("\n  "))]
    Different {
        /// The folder.
        path: PathBuf,
        /// One `key: was X, is Y` each.
        differences: Vec<String>,
    },
    /// A record that cannot be understood.
    #[error("{path}: {message}")]
    Content {
        /// Of the file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] CheckpointError),
}

/// A run's folder, held by this process until dropped.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    _lock: fs::File,
}

impl RunFolder {
    /// Takes the folder and records what the run is made from, or holds a resumed one to what it was made from.
    ///
    /// # Errors
    /// [`RunError`]; nothing of an earlier run is touched then.
    pub fn open(root: &Path, record: &RunRecord, resume: bool) -> Result<Self, RunError> {
        let io = |path: &Path, source| RunError::Io { path: path.to_owned(), source };
        let record_path = root.join(RECORD_FILE);
        let has_record = record_path.is_file();
        if has_record && !resume {
            return Err(RunError::Exists { path: root.to_owned() });
        }
        fs::create_dir_all(root).map_err(|source| io(root, source))?;
        if !has_record && has_strangers(root)? {
            return Err(RunError::NotARun { path: root.to_owned() });
        }
        let lock = lock(root)?;
        let folder = Self { root: root.to_owned(), _lock: lock };
        remove_unfinished(root)?;
        if has_record {
            let before = read_record(&record_path)?;
            let differences = differences(&before, record);
            if !differences.is_empty() {
                return Err(RunError::Different { path: root.to_owned(), differences });
            }
        } else {
            let content = |message: String| RunError::Content { path: record_path.clone(), message };
            let config = record.config.to_yaml().map_err(|error| content(error.to_string()))?;
            let text = serde_json::to_string_pretty(record).map_err(|error| content(error.to_string()))?;
            replace_file(&folder.path(CONFIG_FILE), config.as_bytes())?;
            // Last: with it, the folder holds a run.
            replace_file(&record_path, (text + "\n").as_bytes())?;
        }
        Ok(folder)
    }

    /// The record of the run, as it began.
    ///
    /// # Errors
    /// [`RunError::Content`], [`RunError::Io`].
    pub fn record(&self) -> Result<RunRecord, RunError> {
        read_record(&self.path(RECORD_FILE))
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints")
    }

    /// The result.
    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    /// The best validation.
    pub fn best(&self) -> PathBuf {
        self.path("best")
    }

    /// Marks the run as finished.
    ///
    /// # Errors
    /// [`RunError::Write`].
    pub fn finish(&self) -> Result<(), RunError> {
        Ok(replace_file(&self.path(DONE_FILE), b"")?)
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.path(DONE_FILE).is_file()
    }
}

impl RunRecord {
    /// What checkpoints name the run by: equal for runs that learn the same.
    pub fn sha256(&self) -> String {
        let text: String = essentials(self).into_iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        sha256_hex(text.as_bytes())
    }
}

/// Everything of a record that what is learned depends on, by dotted key.
fn essentials(record: &RunRecord) -> Vec<(String, String)> {
    let RunRecord {
        format: _,
        command: _,
        revision: _,
        config,
        spec,
        n_frames,
        data,
        validation: _,
        teacher,
        inherited,
        gt_database,
    } = record;
    let tree = |value: serde_json::Result<serde_json::Value>| flattened(&value.unwrap_or_default());
    let config =
        tree(serde_json::to_value(config)).into_iter().filter(|(key, _)| !FREE_KEYS.iter().any(|free| key.starts_with(free)));
    let spec = tree(serde_json::to_value(spec)).into_iter().map(|(key, value)| (format!("spec.{key}"), value));
    let word = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let others = [
        word("data", &data.sha256),
        word("data frames", &n_frames.to_string()),
        word("teacher", teacher.as_deref().unwrap_or("none")),
        word("inherited weights", inherited.as_deref().unwrap_or("none")),
        word("ground-truth database", gt_database.as_deref().unwrap_or("none")),
    ];
    config.chain(spec).map(|(key, value)| (key, value.to_string())).chain(others).collect()
}

fn differences(before: &RunRecord, now: &RunRecord) -> Vec<String> {
    let (before, now) = (essentials(before), essentials(now));
    let find = |list: &[(String, String)], key: &str| list.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone());
    let shown = |value: Option<String>| value.unwrap_or_else(|| "absent".to_owned());
    let mut lines = Vec::new();
    for (key, value) in &before {
        let other = find(&now, key);
        if other.as_ref() != Some(value) {
            lines.push(format!("{key}: was {value}, is {}", shown(other)));
        }
    }
    for (key, value) in now.iter().filter(|(key, _)| find(&before, key).is_none()) {
        lines.push(format!("{key}: was absent, is {value}"));
    }
    lines
}

fn read_record(path: &Path) -> Result<RunRecord, RunError> {
    let bytes = fs::read(path).map_err(|source| RunError::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| RunError::Content { path: path.to_owned(), message: error.to_string() })
}

/// Whether there is anything that a run which was killed before its record would not have left.
fn has_strangers(root: &Path) -> Result<bool, RunError> {
    let io = |source| RunError::Io { path: root.to_owned(), source };
    for entry in fs::read_dir(root).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if name != CONFIG_FILE && name != LOCK_FILE && !name.starts_with('.') {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lock ends with the process, however that ends.
fn lock(root: &Path) -> Result<fs::File, RunError> {
    let path = root.join(LOCK_FILE);
    let io = |source| RunError::Io { path: path.clone(), source };
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RunError::Busy { path: root.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(io(source)),
    }
}
