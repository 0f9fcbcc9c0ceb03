//! `trainer import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use pivotal::import;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{SaveOptions, WeightsDtype};

use super::specs::read_spec;

/// Turn an OpenPCDet or SparseKD checkpoint (.pth, zip or legacy) into a model directory. Nothing in the file is executed.
#[derive(clap::Args)]
pub struct ImportArgs {
    /// The checkpoint.
    file: PathBuf,
    /// Name of a built-in spec (see `trainer specs`) or path of a spec.yaml.
    #[arg(long)]
    spec: String,
    /// Model directory to write.
    #[arg(long)]
    out: PathBuf,
    /// Element type of the weights on disk.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Replace a model directory that is there.
    #[arg(long)]
    overwrite: bool,
}

/// Element type of weights on disk.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, widened when loaded.
    F16,
}

impl From<Dtype> for WeightsDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let ImportArgs { file, spec, out, dtype, overwrite } = args;
    let command = format!("trainer import {} --spec {spec}", file.display());
    let provenance = Provenance::new(&command, "as the checkpoint's training had it; not recorded in the file");
    let options = SaveOptions { dtype: (*dtype).into(), overwrite: *overwrite };
    let report = import::import_pth(file, &read_spec(spec)?, out, &provenance, options)?;
    println!("{}: {} tensors, {} values, sha256 {}", out.display(), report.n_tensors, report.n_values, report.source_sha256);
    println!(
        "  format {:?}, epoch {:?}, iteration {:?}, writer {:?}",
        report.format, report.epoch, report.iteration, report.version
    );
    println!("  sparse kernels: {}", report.sparse_layout.map_or("none".to_owned(), |layout| layout.to_string()));
    let lists = [
        ("counters left out", &report.dropped_tensors),
        ("widened to f32", &report.widened_tensors),
        ("not read", &report.skipped),
    ];
    for (what, names) in lists {
        if !names.is_empty() {
            println!("  {what} ({}): {}", names.len(), names.join(", "));
        }
    }
    Ok(ExitCode::SUCCESS)
}
