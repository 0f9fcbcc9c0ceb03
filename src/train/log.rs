//! The log of a run: `log.jsonl`, one JSON object per line, and the same numbers for TensorBoard.
//!
//! The JSON lines are the truth. A resumed run cuts them off behind its checkpoint and writes TensorBoard's file anew from what is left,
//! so that no step is missing and none is there twice. A last line that a kill cut in two goes the same way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::checkpoint::{CheckpointError, replace_file};
use super::events;

/// The JSON lines.
pub const LOG_FILE: &str = "log.jsonl";
/// TensorBoard's file; it looks for `tfevents` in the name.
pub const EVENTS_FILE: &str = "events.out.tfevents.1.pivotal";

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Seconds since 1970.
    pub unix_s: f64,
    /// Steps done.
    pub step: u64,
    /// Epoch of the step, from 0.
    pub epoch: u64,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// Means since the line before.
    Step(StepEntry),
    /// Evaluation on the validation source.
    Validation {
        /// By name, for instance `maph_l2`.
        metrics: BTreeMap<String, f64>,
        /// It took so long.
        seconds: f64,
    },
}

/// Means over the steps since the line before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepEntry {
    /// Steps the means are over.
    pub n_steps: u64,
    /// Learning rate of the last of them.
    pub lr: f64,
    /// Adam's first beta of the last of them.
    pub beta1: f64,
    /// Loss terms by name, weighted as they are added up, and their sum `total`.
    pub loss: BTreeMap<String, f64>,
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Milliseconds by part: waiting for data, teacher, student.
    pub ms: BTreeMap<String, f64>,
    /// Totals of these steps by name: points, pillars, boxes, what was dropped.
    pub counts: BTreeMap<String, u64>,
}

impl Line {
    /// A line of now.
    pub fn now(step: u64, epoch: u64, entry: Entry) -> Self {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { unix_s, step, epoch, entry }
    }

    /// The numbers with the names TensorBoard shows.
    fn scalars(&self) -> Vec<(String, f64)> {
        let named = |group: &str, values: &BTreeMap<String, f64>| -> Vec<(String, f64)> {
            values.iter().map(|(name, value)| (format!("{group}/{name}"), *value)).collect()
        };
        match &self.entry {
            Entry::Validation { metrics, .. } => named("validation", metrics),
            Entry::Step(step) => {
                let single = [("rate/lr", step.lr), ("rate/beta1", step.beta1), ("gradient/norm", step.grad_norm)];
                let single = single.into_iter().map(|(name, value)| (name.to_owned(), value));
                named("loss", &step.loss).into_iter().chain(single).chain(named("ms", &step.ms)).collect()
            }
        }
    }
}

/// Why the log cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// Of the file.
        path: PathBuf,
        /// Why.
        r#source: io::Error,
    },
    /// A line in the middle of the file that no run wrote.
    #[error("{path}: line {number}: {message}")]
    Line {
        /// Of the file.
        path: PathBuf,
        /// From 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// The file could not be replaced.
    #[error(transparent)]
    Replace(#[from] CheckpointError),
}

/// The two files, open for more, and what the validations said.
#[derive(Debug)]
pub struct Log {
    lines: (PathBuf, fs::File),
    events: (PathBuf, fs::File),
    validations: BTreeMap<u64, BTreeMap<String, f64>>,
}

impl Log {
    /// Opens the log of a run that goes on after `step` steps; 0 begins it.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(folder: &Path, step: u64) -> Result<Self, LogError> {
        let (lines_path, events_path) = (folder.join(LOG_FILE), folder.join(EVENTS_FILE));
        let kept: Vec<Line> = read(&lines_path)?.into_iter().filter(|line| line.step <= step).collect();
        let mut text = Vec::new();
        let mut records = Vec::new();
        let started = kept.first().map_or_else(|| Line::now(0, 0, Entry::Step(StepEntry::default())).unix_s, |line| line.unix_s);
        let in_memory = |path: &Path, source| LogError::Io { path: path.to_owned(), source };
        events::write_record(&mut records, &events::version_event(started)).map_err(|error| in_memory(&events_path, error))?;
        for line in &kept {
            text.extend(json_line(line).map_err(|error| in_memory(&lines_path, error))?);
            let event = events::scalar_event(line.unix_s, line.step, line.scalars());
            events::write_record(&mut records, &event).map_err(|error| in_memory(&events_path, error))?;
        }
        replace_file(&lines_path, &text)?;
        replace_file(&events_path, &records)?;
        let append = |path: PathBuf| match fs::OpenOptions::new().append(true).open(&path) {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(LogError::Io { path, source }),
        };
        let mut log = Self { lines: append(lines_path)?, events: append(events_path)?, validations: BTreeMap::new() };
        kept.iter().for_each(|line| log.note(line));
        Ok(log)
    }

    /// Metrics of each validation by the step it followed.
    pub fn validations(&self) -> &BTreeMap<u64, BTreeMap<String, f64>> {
        &self.validations
    }

    fn note(&mut self, line: &Line) {
        if let Entry::Validation { metrics, .. } = &line.entry {
            self.validations.insert(line.step, metrics.clone());
        }
    }

    /// Appends a line to both files.
    ///
    /// # Errors
    /// [`LogError::Io`], for instance when the disk is full.
    pub fn push(&mut self, line: &Line) -> Result<(), LogError> {
        let (path, file) = &mut self.lines;
        json_line(line).and_then(|text| file.write_all(&text)).map_err(|source| LogError::Io { path: path.clone(), source })?;
        let (path, file) = &mut self.events;
        let event = events::scalar_event(line.unix_s, line.step, line.scalars());
        events::write_record(file, &event).map_err(|source| LogError::Io { path: path.clone(), source })?;
        self.note(line);
        Ok(())
    }

    /// Waits until the lines are on the disk: before a checkpoint, so that none of its steps is missing after a power cut.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn sync(&self) -> Result<(), LogError> {
        let (path, file) = &self.lines;
        file.sync_data().map_err(|source| LogError::Io { path: path.clone(), source })
    }
}

fn json_line(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// The lines of a log; none when there is no file. A last line without an end is what a kill left, and is no line.
///
/// # Errors
/// [`LogError`].
pub fn read(path: &Path) -> Result<Vec<Line>, LogError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| LogError::Io { path: path.to_owned(), source })?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line): (usize, &str)| {
        let refused =
            |error: serde_json::Error| LogError::Line { path: path.to_owned(), number: index + 1, message: error.to_string() };
        serde_json::from_str(line).map_err(refused)
    };
    whole.lines().enumerate().map(parse).collect()
}
