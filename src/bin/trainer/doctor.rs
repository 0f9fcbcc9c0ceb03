//! `trainer doctor`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use pivotal::data;
use pivotal::data::statistics::DataStatistics;
use pivotal::doctor::overfit::{OverfitOptions, overfit};
use pivotal::doctor::{Schedule, Subject, examine};
use pivotal::model::directory;
use pivotal::model::spec::{ModelSpec, SpecError};
use pivotal::train::config::{ConfigError, RunConfig};
use pivotal::train::progress;

/// Hold a run's or a model's configuration against its data before training: range, heights, intensity, labels, classes, splits.
///
/// Reads a few frames and tells what is wrong, in numbers, and which key or command mends it. Weights that are gone on with (--model
/// DIR, or those that the run inherits from) are held against the data too, where their provenance says what they saw.
///
/// Exit codes: 0 no errors (there may be warnings and notes), 1 errors found or the examination failed, 2 wrong arguments.
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// YAML of the run, as `trainer train` takes it.
    #[arg(long, value_name = "RUN.yaml", required_unless_present = "model")]
    config: Option<PathBuf>,
    /// Change a key of the run, for instance range=[-23.04,-23.04,-2,23.04,23.04,4]; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Model directory, name of a built-in spec, or path of a spec.yaml; with --config, a directory whose weights are gone on with.
    #[arg(long, value_name = "DIR|SPEC")]
    model: Option<String>,
    /// What is trained on: a path or synth:…, as `trainer inspect` takes them.
    #[arg(long, value_name = "SOURCE")]
    data: String,
    /// What is validated on.
    #[arg(long, value_name = "SOURCE")]
    val: Option<String>,
    /// Frames read, evenly spread over the source.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Also train on the one frame with most objects and tell how well they are found again: the test of everything together.
    #[arg(long, requires = "config")]
    overfit: bool,
    /// Steps of --overfit.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "overfit")]
    overfit_steps: u64,
    /// Where --overfit trains: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", requires = "overfit")]
    device: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the arguments name.
struct Named {
    spec: ModelSpec,
    config: Option<RunConfig>,
    seen: Option<DataStatistics>,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let Named { spec, config, seen } = read(args)?;
    let source = data::open(&args.data).context("--data")?;
    let validation = args.val.as_deref().map(data::open).transpose().context("--val")?;
    let no_names = BTreeMap::new();
    let subject = Subject {
        spec: &spec,
        class_names: config.as_ref().map_or(&no_names, |config| &config.class_names),
        source: source.as_ref(),
        validation: validation.as_deref(),
        schedule: config.as_ref().map(|config| Schedule { epochs: config.epochs, batch_size: config.loader.batch_size }),
        seen: seen.as_ref(),
    };
    let mut report = examine(&subject, args.frames as usize);
    if let (Some(config), true) = (&config, args.overfit) {
        let options = OverfitOptions { steps: args.overfit_steps, device: args.device.clone() };
        match overfit(config, &spec, source.as_ref(), &options, &mut progress::on_stderr()) {
            Ok(outcome) => report.add_overfit(outcome),
            Err(error) => report.skipped.push(format!("--overfit: {error}")),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(args: &DoctorArgs) -> anyhow::Result<Named> {
    let Some(path) = &args.config else {
        let Some(model) = &args.model else { bail!("--config or --model is needed") };
        let (spec, seen) = read_model(model)?;
        return Ok(Named { spec, config: None, seen });
    };
    let config = RunConfig::load_unchecked(path, &args.overrides)?;
    match config.check(&path.display().to_string()) {
        // The examination says more about a spec that breaks its rules.
        Err(ConfigError::Spec { source: SpecError::Values { .. }, .. }) | Ok(()) => (),
        Err(error) => return Err(error.into()),
    }
    let (mut spec, _) = read_model(&config.model).context("model")?;
    if let Some(range) = config.range {
        spec.grid.range = range;
    }
    let inherited = config.distill.as_ref().and_then(|distill| distill.inheritance()).map(|(dir, _)| dir.display().to_string());
    let seen = match args.model.clone().or(inherited) {
        Some(dir) => read_model(&dir)?.1,
        None => None,
    };
    Ok(Named { spec, config: Some(config), seen })
}

/// A spec, which may break its own rules, and what its weights were made from.
fn read_model(name: &str) -> anyhow::Result<(ModelSpec, Option<DataStatistics>)> {
    let dir = Path::new(name);
    if dir.join(directory::SPEC_FILE).is_file() {
        let model = directory::load(dir)?;
        return Ok((model.spec, model.provenance.data_statistics));
    }
    if !name.ends_with(".yaml") && !name.contains('/') {
        return Ok((ModelSpec::builtin(name)?, None));
    }
    if dir.is_dir() {
        bail!("{name} is no model directory: it has no {}", directory::SPEC_FILE);
    }
    let text = std::fs::read_to_string(name).with_context(|| format!("cannot read the spec {name}"))?;
    Ok((ModelSpec::from_yaml_unchecked(&text, name)?, None))
}
