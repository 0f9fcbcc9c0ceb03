//! `trainer eval`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use pivotal::data;
use pivotal::eval::report::Origin;
use pivotal::eval::store::ReportFiles;
use pivotal::eval::{EvalOptions, Region, evaluate_with_progress, json};
use pivotal::model::directory;
use pivotal::node::error::EXIT_LOSS;
use pivotal::pipeline::{Pipeline, PipelineOptions, Precision};
use pivotal::replay::progress;

/// Measure a model on labelled data with the official Waymo metric: AP and APH by class, range and level.
///
/// Prints a table; with --out also writes report.json and report.html, with precision-recall curves and the worst frames as
/// pictures. Frames without labels and bad frames are counted and left out; the exit code is 3 when there were bad ones.
#[derive(clap::Args)]
pub struct EvalArgs {
    /// Model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Labelled data: bag, Waymo files, cache, or synth:seed=1,drives=4; several separated by `;`.
    #[arg(long, value_name = "SOURCE")]
    data: String,
    /// Folder for report.json and report.html.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace a report in the folder.
    #[arg(long)]
    overwrite: bool,
    /// At most so many frames, spread evenly over the data.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Which objects count: those within the model's range, or all.
    #[arg(long, value_enum, default_value = "model")]
    region: RegionArg,
    /// A class of the data under the model's name for it, as THEIRS=OURS; may be repeated.
    #[arg(long, value_name = "THEIRS=OURS", value_parser = renaming)]
    class: Vec<(String, String)>,
    /// JSON with an object `config`: other settings of the metric.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many of the worst frames are drawn.
    #[arg(long, value_name = "N", default_value_t = 6)]
    worst: usize,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Arithmetic of the convolutions.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum RegionArg {
    /// Whose middle lies within the model's range.
    Model,
    /// Wherever they are.
    Everything,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    /// 32-bit floats.
    F32,
    /// bfloat16 from the bird's-eye map on.
    Bf16,
}

fn renaming(text: &str) -> Result<(String, String), String> {
    let (theirs, ours) = text.split_once('=').ok_or("expected THEIRS=OURS")?;
    Ok((theirs.to_owned(), ours.to_owned()))
}

pub fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    let region = match args.region {
        RegionArg::Model => Region::Model,
        RegionArg::Everything => Region::Everything,
    };
    let mut options = EvalOptions {
        region,
        renamed: args.class.iter().cloned().collect::<BTreeMap<_, _>>(),
        limit: args.limit,
        n_worst_frames: args.worst,
        ..EvalOptions::default()
    };
    if let Some(config) = &args.config {
        options.metrics = json::read_config(config)?;
    }
    let files = args.out.as_deref().map(|out| ReportFiles::prepare(out, args.overwrite)).transpose()?;
    let model = directory::load(&args.model).with_context(|| format!("model {}", args.model.display()))?;
    let mut pipeline = Pipeline::new(model.spec, &model.weights, &PipelineOptions { device: args.device.clone(), precision })?;
    let source = data::open(&args.data)?;
    let report = evaluate_with_progress(&mut pipeline, source.as_ref(), &options, &mut progress::on_stderr())?;
    println!("{report}");
    if report.n_frames == 0 {
        bail!("no frame could be evaluated");
    }
    if let Some(files) = files {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let origin = Origin { command, weights_sha256: model.sha256, precision };
        files.write(&report, &origin, source.as_ref(), &options)?;
        println!("page: {}", files.html.display());
    }
    Ok(if report.bad_frames.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LOSS) })
}
