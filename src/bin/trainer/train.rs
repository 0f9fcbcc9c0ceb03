//! `trainer train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use pivotal::data::{self, Source};
use pivotal::node::logging;
use pivotal::train::config::{ConfigError, RunConfig};
use pivotal::train::config_table::config_table_markdown;
use pivotal::train::run::RunError;
use pivotal::train::setup::TrainOptions;
use pivotal::train::{Outcome, TrainError, progress, train};
use tokio::signal::unix::{SignalKind, signal};

use super::exit;

/// Train a model, or go on with a run that was stopped or killed.
///
/// RUN gets the effective configuration (config.yaml), the record of code and data (run.json), checkpoints, the log (log.jsonl and a
/// TensorBoard file), the best model so far (best), the result (model), and DONE. The first Ctrl-C or SIGTERM finishes the step and saves;
/// the second ends at once, and the run goes on from its newest checkpoint.
///
/// Exit codes: 0 finished, 1 other errors, 2 arguments, configuration or a folder that cannot be trained in, 3 stopped by a signal and
/// saved, 4 a number that is not finite, 5 the disk refused a checkpoint or the log.
#[derive(clap::Args)]
pub struct TrainArgs {
    /// YAML of the run: what differs from the defaults, see --keys.
    #[arg(long, value_name = "FILE", required_unless_present = "keys")]
    config: Option<PathBuf>,
    /// What is trained on: a path, or synth:…; see `trainer inspect --help`.
    #[arg(long, value_name = "SOURCE", required_unless_present = "keys")]
    data: Option<String>,
    /// What is evaluated on, every validation.every_epochs epochs and at the end.
    #[arg(long, value_name = "SOURCE")]
    val: Option<String>,
    /// Folder of the run.
    #[arg(long, value_name = "RUN", required_unless_present = "keys")]
    out: Option<PathBuf>,
    /// Go on with the run in RUN from its newest whole checkpoint; begins one where there is none.
    #[arg(long)]
    resume: bool,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Change a key of the configuration, for instance schedule.peak_lr=0.001; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Print every key with its default as a Markdown table, and end.
    #[arg(long)]
    keys: bool,
}

const EXIT_USAGE: u8 = 2;
pub const EXIT_STOPPED: u8 = 3;
const EXIT_NON_FINITE: u8 = 4;
const EXIT_DISK: u8 = 5;
/// As a shell reports a process that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

pub fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let (Some(config), Some(data), Some(out)) = (&args.config, &args.data, &args.out) else {
        print!("{}", config_table_markdown());
        return Ok(ExitCode::SUCCESS);
    };
    logging::init(&[], "trainer", None).context("logging")?;
    let stop = stop_at_a_signal()?;
    match begin(args, config, data, out, &stop) {
        Ok(outcome) => Ok(report(&outcome, out)),
        Err(error) => {
            eprintln!("trainer: {error:#}");
            Ok(ExitCode::from(error.downcast_ref::<TrainError>().map_or(1, exit_code)))
        }
    }
}

fn begin(args: &TrainArgs, config: &Path, data: &str, out: &Path, stop: &AtomicBool) -> anyhow::Result<Outcome> {
    let config = RunConfig::load(config, &args.overrides).map_err(TrainError::from)?;
    let open = |text: &str| -> anyhow::Result<Arc<dyn Source>> { Ok(Arc::from(data::open(text)?)) };
    let options = TrainOptions {
        config,
        data: open(data).context("--data")?,
        validation: args.val.as_deref().map(open).transpose().context("--val")?,
        out: out.to_owned(),
        resume: args.resume,
        device: args.device.clone(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
    };
    Ok(train(&options, stop, &mut progress::on_stderr())?)
}

fn report(outcome: &Outcome, out: &Path) -> ExitCode {
    match outcome {
        Outcome::Finished { model, metrics } => {
            println!("{}: done", model.display());
            for (name, value) in metrics {
                println!("  {name} {value:.4}");
            }
            ExitCode::SUCCESS
        }
        Outcome::AlreadyFinished { model } => {
            println!("the run in {} is finished; its model is {}", out.display(), model.display());
            ExitCode::SUCCESS
        }
        Outcome::Stopped { step, n_steps } => {
            println!("stopped after {step} of {n_steps} steps, which are saved; the same command with --resume goes on");
            ExitCode::from(EXIT_STOPPED)
        }
    }
}

fn exit_code(error: &TrainError) -> u8 {
    match error {
        TrainError::Config(ConfigError::Read { .. }) => 1,
        TrainError::Config(_) => EXIT_USAGE,
        TrainError::Run(
            RunError::NotARun { .. } | RunError::Exists { .. } | RunError::Busy { .. } | RunError::Different { .. },
        ) => EXIT_USAGE,
        TrainError::NonFinite { .. } => EXIT_NON_FINITE,
        TrainError::Save { .. } | TrainError::Log(_) => EXIT_DISK,
        _ => 1,
    }
}

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process.
pub fn stop_at_a_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        let of = |kind| signal(kind).context("signal handlers");
        (of(SignalKind::interrupt())?, of(SignalKind::terminate())?)
    };
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    };
    // Ends with the process: without a signal there is nothing to wait for.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            next().await;
            tracing::info!("stopping: the step is finished and saved; a second signal ends at once");
            set.store(true, Ordering::Relaxed);
            next().await;
            exit::without_destructors(EXIT_INTERRUPTED)
        })
    })?;
    Ok(stop)
}
