//! `trainer profile`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use pivotal::cloud::PointCloud;
use pivotal::data;
use pivotal::data::statistics::spread;
use pivotal::model::directory;
use pivotal::model::params::Weights;
use pivotal::model::spec::{FrontSpec, ModelSpec};
use pivotal::pipeline::{PipelineOptions, Precision};
use pivotal::profile::{LatencySettings, ProfileError, Report, Workload, profile, read_report, synthetic_frames, time};

use super::specs::{read_spec, untrained_weights};

/// Count parameters, multiply-accumulates and activations of models, as the paper counts them and as they are, and time every stage.
///
/// Prints Markdown tables, or JSON with --json. Work depends on how many pillars a cloud fills, so it is counted on frames:
/// a synthetic street unless --frames names others. Models without trained weights are timed with untrained ones, which takes as long.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("models").required(true))]
pub struct ProfileArgs {
    /// Model directory, name of a built-in spec, or path of a spec.yaml; several are compared.
    #[arg(long, num_args = 1.., value_name = "DIR|SPEC", group = "models")]
    model: Vec<String>,
    /// Every built-in spec.
    #[arg(long, group = "models")]
    all: bool,
    /// Frames to measure on: a path or synth:…, as `trainer inspect` takes them. A synthetic street unless named.
    #[arg(long, value_name = "SOURCE")]
    frames: Option<String>,
    /// Files report.json of `trainer eval`; adds a table of cost against accuracy, joined by the model's name.
    #[arg(long, num_args = 1.., value_name = "report.json")]
    reports: Vec<PathBuf>,
    /// Number of frames, evenly spread over the source.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    n_frames: u32,
    /// Count for this many pillars per frame, all of them full, instead of those of the frames.
    #[arg(long, value_name = "N")]
    pillars: Option<f64>,
    /// Count only, time nothing.
    #[arg(long)]
    no_latency: bool,
    /// Where it is timed: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Arithmetic of the convolutions.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// CPU threads; 0 leaves it to libtorch.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=1024))]
    threads: i32,
    /// Frames processed before times count.
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Arithmetic of the convolutions.
#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    /// 32-bit floats.
    F32,
    /// bfloat16 from the bird's-eye map on.
    Bf16,
}

pub fn run(args: &ProfileArgs) -> anyhow::Result<ExitCode> {
    let models = if args.all {
        ModelSpec::builtin_names()
            .into_iter()
            .map(|name| Ok((ModelSpec::builtin(name)?, None)))
            .collect::<anyhow::Result<Vec<_>>>()?
    } else {
        args.model.iter().map(|name| read_model(name)).collect::<anyhow::Result<Vec<_>>>()?
    };
    if args.pillars.is_some_and(|pillars| !(0.0..1e9).contains(&pillars)) {
        bail!("--pillars must be a number of pillars, 0 to 1e9");
    }
    if args.threads > 0 {
        pivotal::device::set_cpu_threads(args.threads);
    }
    let needs_frames = args.pillars.is_none() || !args.no_latency;
    let (clouds, frames) =
        if needs_frames { read_frames(args)? } else { (Vec::new(), "none, the number of pillars was given".to_owned()) };
    let mut profiles = Vec::new();
    for (spec, weights) in &models {
        let workload = match args.pillars {
            Some(_) if matches!(spec.network.front(), FrontSpec::Voxel(_)) => {
                bail!(
                    "{}: what a 3-D backbone has to do does not follow from the number of voxels; leave --pillars out",
                    spec.name
                )
            }
            Some(pillars) => Workload::given(spec, pillars),
            None => Workload::measure(spec, &clouds).map_err(ProfileError::from)?.ok_or(ProfileError::NoFrames)?,
        };
        let mut figures = profile(spec, workload);
        if !args.no_latency {
            figures.latency = Some(measure(args, spec, weights.as_ref(), &clouds)?);
        }
        profiles.push(figures);
    }
    let accuracies = args.reports.iter().map(|path| read_report(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(stranger) = accuracies.iter().find(|accuracy| !profiles.iter().any(|model| model.model == accuracy.model)) {
        bail!("{} is of `{}`, which is not among the models; add it with --model", stranger.report, stranger.model);
    }
    let report = Report::new(frames, profiles, &accuracies);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.to_markdown());
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    args: &ProfileArgs,
    spec: &ModelSpec,
    weights: Option<&Weights>,
    clouds: &[PointCloud],
) -> anyhow::Result<pivotal::profile::Latency> {
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    let options = PipelineOptions { device: args.device.clone(), precision };
    let settings = LatencySettings { warm_up: args.warm_up, n_frames: args.n_frames as usize };
    Ok(match weights {
        Some(weights) => time(spec, weights, clouds, &options, settings)?,
        None => time(spec, &untrained_weights(spec, 1), clouds, &options, settings)?,
    })
}

fn read_frames(args: &ProfileArgs) -> anyhow::Result<(Vec<PointCloud>, String)> {
    let n_frames = args.n_frames as usize;
    let Some(text) = &args.frames else { return Ok(synthetic_frames(n_frames)?) };
    let source = data::open(text)?;
    let clouds = spread(source.len(), n_frames)
        .into_iter()
        .map(|index| Ok(source.load(0, index)?.cloud))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let words = format!("{} of the {} frames of {}", clouds.len(), source.len(), source.fingerprint().source);
    Ok((clouds, words))
}

/// A model directory with its weights, or a spec without.
fn read_model(name: &str) -> anyhow::Result<(ModelSpec, Option<Weights>)> {
    let dir = Path::new(name);
    if dir.join(directory::SPEC_FILE).is_file() {
        let model = directory::load(dir)?;
        return Ok((model.spec, Some(model.weights)));
    }
    Ok((read_spec(name)?, None))
}
