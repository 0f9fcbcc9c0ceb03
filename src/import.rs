//! OpenPCDet and SparseKD checkpoints to model directories.
//!
//! A `.pth` file is a pickle, and Python's unpickler runs what a pickle names. Here nothing runs: [`pickle`] builds plain
//! data, [`torch`] says what the few allowed names mean, [`container`] finds the bytes, [`checkpoint`] gathers the tensors,
//! [`spconv`] settles the kernels' layout. The crate pytorch-reader (0.22, measured in `design/libtorch.md`) reads the same files
//! with limits, but keeps calls of unknown globals as opaque values instead of refusing them, and gives no positions; hence
//! this machine.

pub mod checkpoint;
pub mod container;
pub mod pickle;
pub mod spconv;
pub mod torch;

use std::path::{Path, PathBuf};

use tch::Kind;

use crate::model::directory::provenance::{ImportRecord, Provenance, SourceFile};
use crate::model::directory::{self, DirectoryError, Problem, SaveOptions, lines};
use crate::model::params::Weights;
use crate::model::spec::ModelSpec;
use checkpoint::{Checkpoint, CheckpointError};
use container::Format;
use spconv::{LayoutError, SparseLayout};

/// Largest file read; CP-Voxel with the state of its optimizer has 0.1 GB.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What an import read, decided and left out.
#[derive(Debug)]
pub struct ImportReport {
    /// Format of the checkpoint.
    pub format: Format,
    /// SHA-256 of the checkpoint in lower-case hex.
    pub source_sha256: String,
    /// Epochs done.
    pub epoch: Option<i64>,
    /// Iterations done.
    pub iteration: Option<i64>,
    /// The checkpoint's own `version`.
    pub version: Option<String>,
    /// Tensors written.
    pub n_tensors: usize,
    /// Values in them.
    pub n_values: usize,
    /// Layout of sparse kernels in the checkpoint; `None` without such kernels. They are written as spconv 2.x has them.
    pub sparse_layout: Option<SparseLayout>,
    /// Counters that were left out, by name.
    pub dropped_tensors: Vec<String>,
    /// Tensors stored with fewer bits that are f32 now, by name.
    pub widened_tensors: Vec<String>,
    /// Everything else in the file that was not read.
    pub skipped: Vec<String>,
}

/// Why a checkpoint was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        r#source: std::io::Error,
    },
    /// A file larger than any checkpoint.
    #[error("{} has {bytes} bytes, at most {MAX_FILE_BYTES} are read", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Damaged, refused, or no checkpoint.
    #[error("{}: {source}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        r#source: Box<CheckpointError>,
    },
    /// The layout of its sparse kernels cannot be told.
    #[error("{}: {source}", .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        r#source: LayoutError,
    },
    /// A voxel network, for which this build has no spec.
    #[error("{} holds a voxel network (`{example}`, {kernels} sparse kernels in {layout}), spec `{spec}` is a pillar network; there are no voxel specs yet", .path.display())]
    Voxel {
        /// The file.
        path: PathBuf,
        /// Name of a sparse kernel.
        example: String,
        /// How many there are.
        kernels: usize,
        /// Their layout.
        layout: SparseLayout,
        /// The spec that was asked for.
        spec: String,
    },
    /// Another network than the spec's.
    #[error("{} does not hold the network of spec `{spec}`, {} differences:{}", .path.display(), .problems.len(), lines(.problems))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Name of the spec.
        spec: String,
        /// Every difference.
        problems: Vec<Problem>,
    },
    /// The model directory could not be written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Reads a checkpoint's tensors as they are stored.
///
/// # Errors
/// [`ImportError`] when it cannot be read, is damaged, names anything outside the list, or is no checkpoint.
pub fn read_checkpoint(path: &Path) -> Result<Checkpoint, ImportError> {
    parse(path, &read_file(path)?)
}

/// Imports a checkpoint into a new model directory.
///
/// `provenance` says who asked and what the data were; the source and what was decided here are filled in.
///
/// # Errors
/// [`ImportError`] as [`read_checkpoint`], and when the tensors are not those of the spec's network.
pub fn import_pth(
    path: &Path,
    spec: &ModelSpec,
    out: &Path,
    provenance: &Provenance,
    options: SaveOptions,
) -> Result<ImportReport, ImportError> {
    let bytes = read_file(path)?;
    let source_sha256 = directory::sha256_hex(&bytes);
    let checkpoint = parse(path, &bytes)?;
    drop(bytes);

    let (counters, tensors) = checkpoint.tensors.into_iter().partition(|(name, _)| is_counter(name));
    let layout = spconv::detect(&tensors).map_err(|source| ImportError::Layout { path: path.to_owned(), source })?;
    let tensors = match layout {
        Some(layout) => spconv::to_spconv2(tensors, layout),
        None => tensors,
    };
    refuse_voxel_network(path, spec, &tensors, layout)?;
    let (weights, widened_tensors) = widen(tensors);
    let problems = directory::weight_problems(spec, &weights);
    if !problems.is_empty() {
        return Err(ImportError::Mismatch { path: path.to_owned(), spec: spec.name.clone(), problems });
    }

    let report = ImportReport {
        format: checkpoint.format,
        source_sha256,
        epoch: checkpoint.epoch,
        iteration: checkpoint.iteration,
        version: checkpoint.version,
        n_tensors: weights.len(),
        n_values: weights.values().map(tch::Tensor::numel).sum(),
        sparse_layout: layout,
        dropped_tensors: Weights::into_keys(counters).collect(),
        widened_tensors,
        skipped: checkpoint.skipped,
    };
    directory::save(out, spec, &weights, &complete(provenance, path, &report), options)?;
    Ok(report)
}

fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ImportError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(failed)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Checkpoint, ImportError> {
    checkpoint::parse_checkpoint(bytes)
        .map_err(|source| ImportError::Checkpoint { path: path.to_owned(), source: Box::new(source) })
}

/// Counters of the training framework; no network reads them.
fn is_counter(name: &str) -> bool {
    name == "global_step" || name.ends_with(".num_batches_tracked")
}

fn refuse_voxel_network(
    path: &Path,
    spec: &ModelSpec,
    tensors: &Weights,
    layout: Option<SparseLayout>,
) -> Result<(), ImportError> {
    let Some(layout) = layout else { return Ok(()) };
    let mut kernels = tensors.iter().filter(|(_, tensor)| tensor.dim() == 5).map(|(name, _)| name);
    let example = kernels.next().cloned().unwrap_or_default();
    let kernels = 1 + kernels.count();
    Err(ImportError::Voxel { path: path.to_owned(), example, kernels, layout, spec: spec.name.clone() })
}

/// f16 and bf16 as f32, which holds all their values; the names of those that were.
fn widen(tensors: Weights) -> (Weights, Vec<String>) {
    let mut widened = Vec::new();
    let convert = |(name, tensor): (String, tch::Tensor)| match tensor.kind() {
        Kind::Half | Kind::BFloat16 => {
            widened.push(name.clone());
            (name, tensor.to_kind(Kind::Float))
        }
        _ => (name, tensor),
    };
    (tensors.into_iter().map(convert).collect(), widened)
}

fn complete(provenance: &Provenance, path: &Path, report: &ImportReport) -> Provenance {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let format = match report.format {
        Format::Zip => "zip",
        Format::Legacy => "legacy",
    };
    Provenance {
        source: Some(SourceFile { file, sha256: report.source_sha256.clone() }),
        import: Some(ImportRecord {
            format: format.to_owned(),
            epoch: report.epoch,
            iteration: report.iteration,
            writer: report.version.clone(),
            sparse_layout: report.sparse_layout.map(|layout| layout.to_string()),
            dropped_tensors: report.dropped_tensors.clone(),
            widened_tensors: report.widened_tensors.clone(),
            skipped: report.skipped.clone(),
        }),
        ..provenance.clone()
    }
}
