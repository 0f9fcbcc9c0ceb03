//! `trainer dump-teacher`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::data::{self, Source};
use pivotal::distill::TeacherMode;
use pivotal::distill::dump::{
    DumpContent, DumpEpochs, DumpFrames, DumpHeader, DumpReport, DumpWriter, InputWriter, dump_inputs, dump_outputs,
};
use pivotal::distill::teacher::{Teacher, TeacherOptions};
use pivotal::model::directory;
use pivotal::model::spec::ModelSpec;
use pivotal::node::logging;
use pivotal::pipeline::Precision;
use pivotal::train::config::RunConfig;
use pivotal::train::setup::RunFrames;

use super::train::{EXIT_STOPPED, stop_at_a_signal};

/// Frames that could not be read are named up to this number.
const MAX_NAMED: usize = 10;

/// Store what a teacher says about every frame of a run, so that many students learn from it without asking it again.
///
/// The frames are those that `trainer train` makes of the same configuration, data and data seed; students of any run seed can share
/// them. They name the folder by distill.teacher.from.dump. Can be stopped, also killed, and run again: it goes on, losing 64 MiB at
/// most. The format, and how a teacher of another framework is used, is described in src/distill/dump.rs.
///
/// Exit codes: 0 done, 3 stopped by a signal or some frames could not be read, 1 other errors.
#[derive(clap::Args)]
pub struct DumpTeacherArgs {
    /// Model directory of the teacher.
    #[arg(long, value_name = "DIR", required_unless_present = "inputs")]
    model: Option<PathBuf>,
    /// YAML of the run that will read the dump.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What that run is trained on; see `trainer inspect --help`.
    #[arg(long, value_name = "SOURCE")]
    data: String,
    /// Folder to write, or to go on with.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Epochs stored, from 0; as many as the run has unless given.
    #[arg(long)]
    epochs: Option<u64>,
    /// One epoch serves all: for runs without augmentation on data that does not change from epoch to epoch.
    #[arg(long, conflicts_with = "epochs")]
    alike: bool,
    /// Statistics of the teacher's batch norms; as the run's configuration has it, or train. In mode train, what is stored about a frame
    /// depends on the frames stored beside it, loader.batch_size at a time.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Arithmetic of the teacher; as the run's configuration has it, or f32.
    #[arg(long, value_enum)]
    precision: Option<Arithmetic>,
    /// Store the box maps too, which take 8/3 of the heat maps' bytes; only runs with regression_weight above 0 read them.
    #[arg(long)]
    regression: bool,
    /// Store the prepared points and true boxes instead, for a teacher of another program.
    #[arg(long, conflicts_with_all = ["model", "mode", "precision", "regression"])]
    inputs: bool,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Change a key of the configuration, for instance data_seed=3; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Statistics of batch norms.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Of the batch, as released.
    Train,
    /// Of the teacher's training.
    Eval,
}

/// Arithmetic of convolutions.
#[derive(Clone, Copy, ValueEnum)]
enum Arithmetic {
    F32,
    Bf16,
}

pub fn run(args: &DumpTeacherArgs) -> anyhow::Result<ExitCode> {
    logging::init(&[], "trainer", None).context("logging")?;
    let config = RunConfig::load(&args.config, &args.overrides)?;
    let spec = config.spec()?;
    let source: Arc<dyn Source> = Arc::from(data::open(&args.data).context("--data")?);
    let run = RunFrames::new(&config, &spec, source.fingerprint())?;
    let n_epochs = if args.alike { 1 } else { args.epochs.unwrap_or(config.epochs) };
    let frames = DumpFrames { source, preparation: Arc::new(run.preparation), loader: config.loader.clone(), n_epochs };
    let epochs = if args.alike { DumpEpochs::Alike } else { DumpEpochs::Each };

    let stop = stop_at_a_signal()?;
    let bar = progress_bar()?;
    let report = match &args.model {
        Some(model) => {
            let teacher = teacher(args, model, &config, &spec)?;
            let words = describe(&teacher, config.loader.batch_size);
            let outputs = DumpHeader::outputs(words, &spec.classes, teacher.grid(), teacher.stride(), Some(run.identity));
            let writer = DumpWriter::open(&args.out, &DumpHeader { epochs, ..outputs })?;
            dump_outputs(&teacher, &frames, writer, &stop, |done, total| advance(&bar, done, total))
        }
        None => {
            let outputs = DumpHeader::outputs(String::new(), &spec.classes, &spec.grid(), 1, Some(run.identity));
            let header = DumpHeader { epochs, content: DumpContent::Inputs, ..outputs };
            let writer = InputWriter::open(&args.out, &header, spec.input.features.len())?;
            dump_inputs(&frames, writer, &stop, |done, total| advance(&bar, done, total))
        }
    };
    bar.finish_and_clear();
    let report =
        report.with_context(|| format!("what is finished in {} is kept; the same command goes on", args.out.display()))?;
    report_on(&report, &args.out, &stop)
}

fn teacher(args: &DumpTeacherArgs, dir: &Path, config: &RunConfig, student: &ModelSpec) -> anyhow::Result<Teacher> {
    let configured = config.distill.as_ref().map(|distill| &distill.teacher);
    let mode = match args.mode {
        Some(Mode::Train) => TeacherMode::Train,
        Some(Mode::Eval) => TeacherMode::Eval,
        None => configured.map_or(TeacherMode::Train, |teacher| teacher.mode),
    };
    let precision = match args.precision {
        Some(Arithmetic::F32) => Precision::F32,
        Some(Arithmetic::Bf16) => Precision::Bf16,
        None => configured.map_or(Precision::F32, |teacher| teacher.precision),
    };
    let regression = args.regression || config.distill.as_ref().is_some_and(|distill| distill.regression_weight > 0.0);
    let device = pivotal::device::choose(&args.device)?.device;
    let model = directory::load(dir)?;
    anyhow::ensure!(
        model.spec.classes == student.classes && model.spec.input.features == student.input.features,
        "the teacher finds {:?} in columns {:?}, the student {:?} in {:?}; they must be the same in the same order",
        model.spec.classes,
        model.spec.input.features,
        student.classes,
        student.input.features
    );
    Ok(Teacher::new(&model, student.grid.range, TeacherOptions { mode, precision, regression, device })?)
}

/// The teacher in words that differ when its answers may.
fn describe(teacher: &Teacher, batch_size: usize) -> String {
    let TeacherOptions { mode, precision, regression, .. } = teacher.options();
    let statistics = match mode {
        TeacherMode::Train => format!("statistics of {batch_size} frames"),
        TeacherMode::Eval => "statistics of its training".to_owned(),
    };
    let maps = if regression { ", with box maps" } else { "" };
    format!("{}, weights {}, {statistics}, {precision:?}{maps}", teacher.spec().name, teacher.sha256())
}

fn progress_bar() -> anyhow::Result<ProgressBar> {
    let template = "[{bar:30}] {pos}/{len} frames, {per_sec}, ETA {eta}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?))
}

fn advance(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

fn report_on(report: &DumpReport, out: &Path, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let DumpReport { n_stored, unreadable, was_stopped } = report;
    let mut n_bytes = 0;
    for entry in std::fs::read_dir(out)? {
        n_bytes += entry?.metadata()?.len();
    }
    let each = n_bytes as f64 / 1e3 / (*n_stored).max(1) as f64;
    println!("{}: {n_stored} frames, {:.1} MB, {each:.1} kB a frame", out.display(), n_bytes as f64 / 1e6);
    for frame in unreadable.iter().take(MAX_NAMED) {
        eprintln!("left out {}: {}", frame.id, frame.reason);
    }
    if !unreadable.is_empty() {
        eprintln!("{} frames could not be read and were left out", unreadable.len());
    }
    if *was_stopped && stop.load(std::sync::atomic::Ordering::Relaxed) {
        println!("stopped; the same command goes on");
    }
    Ok(if *was_stopped || !unreadable.is_empty() { ExitCode::from(EXIT_STOPPED) } else { ExitCode::SUCCESS })
}
