//! Our numbers against golden numbers, stage by stage.
//!
//! A golden directory holds what the original PyTorch code computed (format: the README beside it). Every case the build
//! supports is run, each stage is compared within the tolerance that README gives, and the first stage that exceeds it is
//! named: what follows it is a consequence. Cases the build does not support are listed, never passed over.

mod anchor_head;
mod anchor_kd;
mod anchors;
mod boxes;
mod checkpoints;
mod compare;
mod components;
mod golden;
mod hash;
mod kd;
mod kd_step;
mod losses;
mod models;
mod optimizer;
mod steps;
mod tgi;
mod training;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use compare::{Limit, StageResult};

use crate::pipeline::guard;

/// Why a golden directory cannot be compared with at all.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A file cannot be read.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A golden file lacks a tensor or key its format prescribes.
    #[error("{path}: `{key}` {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Tensor name or JSON key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing in it looks like a golden case.
    #[error("{0} holds no golden case (no hash/, models/, components/, kd/, tgi/, optim/, loop/ or ckpt/ files)")]
    Empty(PathBuf),
    /// A spec made from a golden file breaks a rule.
    #[error(transparent)]
    Spec(#[from] crate::model::spec::SpecError),
    /// Head maps could not be turned into boxes.
    #[error(transparent)]
    Postprocess(#[from] crate::postprocess::PostprocessError),
    /// Sites of a 3-D backbone could not be read back.
    #[error(transparent)]
    Sparse(#[from] crate::sparse::SparseError),
    /// libtorch refused something.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// An operation failed inside a network or a comparison, for instance for shapes that do not go together.
    #[error("operation failed: {0}")]
    Operation(String),
}

/// What became of one case.
#[derive(Debug)]
pub struct Case {
    /// For instance `models/cp-pillar`.
    pub name: String,
    /// Stages in the order of the data flow.
    pub stages: Vec<StageResult>,
    /// Parts of the case this build has nothing to compare with.
    pub unsupported: Vec<String>,
    /// Why the case could not be run.
    pub error: Option<ParityError>,
}

/// All cases of one directory.
#[derive(Debug)]
pub struct ParityReport {
    /// In the order they were run.
    pub cases: Vec<Case>,
}

impl Case {
    fn new(name: String) -> Self {
        Self { name, stages: Vec::new(), unsupported: Vec::new(), error: None }
    }

    /// The first stage over its tolerance.
    pub fn first_excess(&self) -> Option<&StageResult> {
        self.stages.iter().find(|stage| !stage.within)
    }
}

impl ParityReport {
    /// Whether every supported case ran and no stage exceeds its tolerance.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.error.is_none() && case.first_excess().is_none())
    }

    /// The table people read.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let width = self.cases.iter().flat_map(|c| &c.stages).map(|s| s.stage.len()).max().unwrap_or(5).max(5);
        for case in self.cases.iter().filter(|case| !case.stages.is_empty() || case.error.is_some()) {
            let _ = writeln!(text, "\n{}", case.name);
            let _ = writeln!(text, "  {:width$}  {:>10}  {:>10}  limit", "stage", "max abs", "max rel");
            for stage in &case.stages {
                let mark = if stage.within { "" } else { "  <-- EXCEEDS" };
                let _ = writeln!(
                    text,
                    "  {:width$}  {:>10.2e}  {:>10.2e}  {}{mark}",
                    stage.stage, stage.max_abs, stage.max_rel, stage.limit
                );
            }
            if let Some(error) = &case.error {
                let _ = writeln!(text, "  could not be run: {error}");
            }
            if let Some(stage) = case.first_excess() {
                let _ = writeln!(text, "  first stage over its tolerance: {} ({})", stage.stage, stage.detail);
            }
        }
        let unsupported: Vec<_> =
            self.cases.iter().flat_map(|c| c.unsupported.iter().map(move |part| format!("{}: {part}", c.name))).collect();
        if !unsupported.is_empty() {
            let _ = writeln!(text, "\nnot supported by this build ({}):", unsupported.len());
            for part in &unsupported {
                let _ = writeln!(text, "  {part}");
            }
        }
        let n_stages: usize = self.cases.iter().map(|case| case.stages.len()).sum();
        let failed: Vec<_> =
            self.cases.iter().filter(|c| c.error.is_some() || c.first_excess().is_some()).map(|c| c.name.as_str()).collect();
        let n_cases = self.cases.iter().filter(|case| !case.stages.is_empty()).count();
        let verdict =
            if failed.is_empty() { "all within tolerance".to_owned() } else { format!("FAILED: {}", failed.join(", ")) };
        let _ = writeln!(text, "\n{n_cases} cases, {n_stages} stages compared: {verdict}");
        text
    }
}

/// Runs every case of a golden directory.
///
/// # Errors
/// [`ParityError::Empty`] when there is nothing to run; what goes wrong inside a case is reported with that case.
pub fn run(dir: &Path) -> Result<ParityReport, ParityError> {
    let mut cases = Vec::new();
    let vectors = dir.join("hash/vectors.json");
    if vectors.exists() {
        cases.push(run_case("hash/vectors", |case| hash::run(&vectors, case)));
    }
    for path in files(&dir.join("components"), "safetensors")? {
        cases.push(run_case(&case_name("components", &path), |case| components::run(&path, case)));
    }
    for path in files(&dir.join("models"), "safetensors")? {
        cases.push(run_case(&case_name("models", &path), |case| models::run(&path, case)));
    }
    for path in files(&dir.join("ckpt"), "pth")? {
        cases.push(run_case(&case_name("ckpt", &path), |case| checkpoints::run(&path, case)));
    }
    for path in files(&dir.join("kd"), "safetensors")? {
        cases.push(run_case(&case_name("kd", &path), |case| kd::run(&path, case)));
    }
    let tgi = dir.join("tgi/tgi.json");
    if tgi.exists() {
        for tag in tgi::tags(&tgi)? {
            cases.push(run_case(&format!("tgi/{tag}"), |case| tgi::run(&tgi, &tag, case)));
        }
    }
    for path in files(&dir.join("optim"), "safetensors")? {
        cases.push(run_case(&case_name("optim", &path), |case| optimizer::run(&path, case)));
    }
    for path in files(&dir.join("loop"), "safetensors")? {
        cases.push(run_case(&case_name("loop", &path), |case| steps::run(&path, case)));
    }
    if cases.is_empty() { Err(ParityError::Empty(dir.to_path_buf())) } else { Ok(ParityReport { cases }) }
}

fn run_case(name: &str, body: impl FnOnce(&mut Case) -> Result<(), ParityError>) -> Case {
    let mut case = Case::new(name.to_owned());
    // `guard` switches gradients off for inference; some cases need them.
    case.error = guard(ParityError::Operation, || tch::with_grad(|| body(&mut case))).err();
    case
}

fn case_name(folder: &str, path: &Path) -> String {
    format!("{folder}/{}", path.file_stem().unwrap_or_default().to_string_lossy())
}

/// Files of a folder with that extension, by name; none when the folder is not there.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, ParityError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let file_error = |error: std::io::Error| ParityError::File { path: dir.to_path_buf(), message: error.to_string() };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(file_error)? {
        let path = entry.map_err(file_error)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
