//! What is wrong with a model's configuration and its data, found before a training run is spent on it.
//!
//! A few frames are read once; each check holds one assumption of training against them and says in numbers where it fails and
//! which key or command mends it. Checks never change anything and use no randomness.

mod alignment;
mod arithmetic;
mod boxes;
mod classes;
mod frames;
mod heading;
pub mod overfit;
mod points;
mod scene;
mod sensor;
mod splits;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::data::statistics::{DataStatistics, spread};
use crate::data::{Sample, SampleId, Source};
use crate::model::spec::ModelSpec;
use overfit::{ClassOutcome, Overfit};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Training would fail or learn the wrong thing.
    Error,
    /// Training would be worse than it could be, unless this is meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Name of the check.
    pub check: &'static str,
    /// What was found, in numbers.
    pub measured: String,
    /// What to change.
    pub advice: String,
}

/// What is examined.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The model as it is configured; it may break its own rules.
    pub spec: &'a ModelSpec,
    /// The data's class names to the model's.
    pub class_names: &'a BTreeMap<String, String>,
    /// What is trained on.
    pub source: &'a dyn Source,
    /// What is validated on.
    pub validation: Option<&'a dyn Source>,
    /// Length of the run.
    pub schedule: Option<Schedule>,
    /// What weights that are gone on with, or run on this data, were made from.
    pub seen: Option<&'a DataStatistics>,
}

/// Length of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Passes over the data.
    pub epochs: u64,
    /// Frames of a step.
    pub batch_size: usize,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Worst first.
    pub findings: Vec<Finding>,
    /// The data in numbers.
    pub statistics: DataStatistics,
    /// How well one frame could be learnt by heart, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overfit: Option<Overfit>,
    /// Checks that could not be made, and why.
    pub skipped: Vec<String>,
}

/// The frames that were read.
#[derive(Debug)]
struct Frames {
    samples: Vec<Sample>,
    unreadable: Vec<(SampleId, String)>,
    statistics: DataStatistics,
}

impl Finding {
    fn new(severity: Severity, check: &'static str, measured: String, advice: String) -> Self {
        Self { severity, check, measured, advice }
    }
}

impl Subject<'_> {
    /// The model's name of a class of the data.
    fn model_class<'a>(&'a self, class: &'a str) -> Option<&'a str> {
        let name = self.class_names.get(class).map_or(class, String::as_str);
        self.spec.classes.iter().find(|known| *known == name).map(String::as_str)
    }
}

/// Reads `n_frames` frames, evenly spread over the source, and makes every check.
pub fn examine(subject: &Subject<'_>, n_frames: usize) -> Report {
    let mut findings = Vec::new();
    let mut skipped = Vec::new();
    let spec_is_sound = arithmetic::check(subject.spec, &mut findings);
    let frames = read(subject.source, n_frames);
    splits::check(subject, &frames, &mut findings);
    frames::check(subject, &frames, &mut findings);
    sensor::check(subject, &frames, &mut findings);
    classes::check(subject, &frames, &mut findings);
    boxes::check(subject, &frames, &mut findings);
    heading::check(&frames, &mut findings);
    alignment::check(&frames, &mut findings);
    if spec_is_sound {
        points::check(subject, &frames, &mut findings);
    } else {
        skipped.push("range, caps: the spec breaks its own rules".to_owned());
    }
    if frames.samples.iter().all(|sample| sample.labels.is_none()) {
        skipped.push("boxes, classes, alignment: no frame that was read has labels".to_owned());
    }
    findings.sort_by_key(|finding| finding.severity);
    Report { findings, statistics: frames.statistics, overfit: None, skipped }
}

fn read(source: &dyn Source, n_frames: usize) -> Frames {
    let mut samples = Vec::new();
    let mut unreadable = Vec::new();
    for index in spread(source.len(), n_frames) {
        match source.load(0, index) {
            Ok(sample) => samples.push(sample),
            Err(error) => {
                let id = source.id(index);
                unreadable.push((id.clone(), id.reason(&error)));
            }
        }
    }
    let statistics = DataStatistics { n_unreadable: unreadable.len(), ..DataStatistics::of(&samples) };
    Frames { samples, unreadable, statistics }
}

impl Report {
    /// Adds the result of the self test and what it says.
    pub fn add_overfit(&mut self, overfit: Overfit) {
        self.findings.extend(overfit.findings());
        self.findings.sort_by_key(|finding| finding.severity);
        self.overfit = Some(overfit);
    }

    /// Whether anything would make training fail or learn the wrong thing.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "ERROR",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistics = &self.statistics;
        writeln!(f, "{} read, {} could not be", counted(statistics.n_frames, "frame"), statistics.n_unreadable)?;
        if let Some(points) = &statistics.points_per_frame {
            writeln!(f, "points per frame: {:.0} to {:.0}, median {:.0}", points.min, points.max, points.p50)?;
        }
        for (feature, values) in &statistics.columns {
            writeln!(
                f,
                "{feature}: 1 % {:.3}, median {:.3}, 99 % {:.3}, max {:.3}",
                values.p01, values.p50, values.p99, values.max
            )?;
        }
        if let Some(ground) = &statistics.ground_z_m {
            writeln!(f, "ground around the origin at z = {:.2} m", ground.p50)?;
        }
        for (class, labels) in &statistics.classes {
            let size = [labels.length_m, labels.width_m, labels.height_m].map(|sizes| format!("{:.2}", sizes.p50)).join(" x ");
            let n = counted(labels.n, "label");
            writeln!(f, "{class}: {n}, median size {size} m, centres at z = {:.2} m", labels.z_m.p50)?;
        }
        if let Some(Overfit { frame, steps, classes }) = &self.overfit {
            let of_class = |c: &ClassOutcome| format!("{} {}: AP {:.3}, APH {:.3}", c.n_labels, c.class, c.ap, c.aph);
            let classes: Vec<String> = classes.iter().map(of_class).collect();
            writeln!(f, "learnt by heart in {steps} steps, {frame}: {}", classes.join("; "))?;
        }
        for finding in &self.findings {
            writeln!(f, "\n{} [{}] {}\n  -> {}", finding.severity, finding.check, finding.measured, finding.advice)?;
        }
        for skipped in &self.skipped {
            writeln!(f, "\nnot checked: {skipped}")?;
        }
        let total = |severity, noun| counted(self.findings.iter().filter(|finding| finding.severity == severity).count(), noun);
        let totals = [total(Severity::Error, "error"), total(Severity::Warning, "warning"), total(Severity::Note, "note")];
        write!(f, "\n{}\n", totals.join(", "))
    }
}

/// `1 frame`, `2 frames`, `3 boxes`.
fn counted(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ if noun.ends_with(['s', 'x']) => format!("{n} {noun}es"),
        _ => format!("{n} {noun}s"),
    }
}

/// `12.3 %`.
fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// Part of a whole; 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
