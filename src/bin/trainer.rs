//! Distils, evaluates, imports: the command line of [`pivotal`]'s offline side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::import;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{self, SaveOptions, WeightsDtype};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::spec::ModelSpec;
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{DriveConfig, ObjectClass};

/// Scale of the heat map's last weights in untrained models: small, so that a few cells exceed the score threshold, not thousands.
const UNTRAINED_HM_WEIGHT: f64 = 0.04;

/// Distils LiDAR detectors, imports weights, proves parity with the original code, makes synthetic drives.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare this build with golden numbers of the original PyTorch code, stage by stage.
    ///
    /// Prints a table with the largest difference of every stage, the first stage over its tolerance, and the cases this build does
    /// not support. Exit code 1 when any stage exceeds its tolerance.
    Parity {
        /// Golden directory: hash/, models/, components/, ckpt/ in the format its README defines.
        dir: PathBuf,
    },
    /// Turn an OpenPCDet or SparseKD checkpoint (.pth, zip or legacy) into a model directory. Nothing in the file is executed.
    Import {
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
    },
    /// Make labelled synthetic LiDAR drives as rosbag2 bags: clouds, true boxes, tf. The same seed gives the same bytes.
    Synth {
        /// Bag folder to write; with several drives, the folder that gets one bag each.
        #[arg(long)]
        out: PathBuf,
        /// Names a family of drives.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Drives of the family.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        drives: u64,
        /// Frames of each drive.
        #[arg(long, default_value_t = 100)]
        frames: usize,
        /// Frames per second.
        #[arg(long, default_value_t = 10.0)]
        rate_hz: f64,
        /// What records it: spinning64, spinning32, spinning16, or waymo5 with five lasers.
        #[arg(long, default_value = "spinning64", value_parser = sensor)]
        sensor: SensorKind,
        /// Report what stands behind a half-transparent first surface as well.
        #[arg(long)]
        two_returns: bool,
    },
    /// Write a model directory with deterministic weights that were never trained: for demos, tests and latency measurements.
    Untrained {
        /// Name of a built-in spec or path of a spec.yaml.
        #[arg(long)]
        spec: String,
        /// Chooses the weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Model directory to write.
        #[arg(long)]
        out: PathBuf,
        /// Replace a model directory that is there.
        #[arg(long)]
        overwrite: bool,
    },
    /// List the built-in specs, or print one as the YAML to start a new one from.
    Specs {
        /// Print this one.
        name: Option<String>,
    },
}

/// Element type of weights on disk.
#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, widened when loaded.
    F16,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trainer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Parity { dir } => {
            let report = pivotal::parity::run(&dir).with_context(|| format!("parity with {}", dir.display()))?;
            print!("{}", report.table());
            Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Import { file, spec, out, dtype, overwrite } => {
            let dtype = match dtype {
                Dtype::F32 => WeightsDtype::F32,
                Dtype::F16 => WeightsDtype::F16,
            };
            let command = format!("trainer import {} --spec {spec}", file.display());
            let provenance = Provenance::new(&command, "as the checkpoint's training had it; not recorded in the file");
            let report = import::import_pth(&file, &read_spec(&spec)?, &out, &provenance, SaveOptions { dtype, overwrite })?;
            println!(
                "{}: {} tensors, {} values, sha256 {}",
                out.display(),
                report.n_tensors,
                report.n_values,
                report.source_sha256
            );
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
        Command::Synth { out, seed, drives, frames, rate_hz, sensor, two_returns } => {
            for drive in 0..drives {
                let config = DriveConfig { rate_hz, two_returns, ..DriveConfig::new(seed, drive, frames, sensor) };
                let folder = if drives == 1 { out.clone() } else { out.join(format!("drive_{drive:04}")) };
                write_drive(&config, &folder)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Untrained { spec, seed, out, overwrite } => {
            let spec = read_spec(&spec)?;
            let weights = hash_weights(&expected_params(&spec), seed, &HeadMultipliers { hm_weight: UNTRAINED_HM_WEIGHT });
            let command = format!("trainer untrained --spec {} --seed {seed}", spec.name);
            let provenance = Provenance::new(&command, "none: deterministic weights, never trained");
            directory::save(&out, &spec, &weights, &provenance, SaveOptions { dtype: WeightsDtype::F32, overwrite })?;
            println!("{}: untrained {} with seed {seed}", out.display(), spec.name);
            Ok(ExitCode::SUCCESS)
        }
        Command::Specs { name: None } => {
            for name in ModelSpec::builtin_names() {
                let params: i64 =
                    expected_params(&ModelSpec::builtin(name)?).iter().map(|p| p.shape.iter().product::<i64>()).sum();
                println!("{name:24} {:>9} weights", params);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Specs { name: Some(name) } => {
            print!("{}", ModelSpec::builtin(&name)?.to_yaml()?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A built-in spec by name, or a file.
fn read_spec(name_or_path: &str) -> anyhow::Result<ModelSpec> {
    if !name_or_path.ends_with(".yaml") && !name_or_path.contains('/') {
        return Ok(ModelSpec::builtin(name_or_path)?);
    }
    let text = std::fs::read_to_string(name_or_path).with_context(|| format!("cannot read the spec {name_or_path}"))?;
    Ok(ModelSpec::from_yaml(&text, name_or_path)?)
}

fn sensor(name: &str) -> Result<SensorKind, String> {
    SensorKind::from_name(name).ok_or_else(|| {
        let known: Vec<_> = SensorKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there is no sensor `{name}`; there are: {}", known.join(", "))
    })
}

/// Writes one drive with progress, rate and ETA on stderr where that is a terminal, and the totals and the rate on stdout.
fn write_drive(config: &DriveConfig, folder: &Path) -> anyhow::Result<()> {
    let template = "{prefix} [{bar:30}] {pos}/{len} frames, {per_sec}, ETA {eta}";
    let bar = ProgressBar::new(config.n_frames as u64).with_style(ProgressStyle::with_template(template)?);
    bar.set_prefix(format!("drive {}", config.drive));
    let start = Instant::now();
    let totals = write_bag(config, folder, &mut |totals| bar.set_position(totals.n_frames as u64))
        .with_context(|| format!("drive {} into {}", config.drive, folder.display()))?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let boxes = ObjectClass::ALL.iter().zip(totals.n_boxes).map(|(class, n)| format!("{n} {}", class.name()));
    let points = totals.n_points as f64 / totals.n_frames.max(1) as f64;
    println!(
        "{}: {} frames in {seconds:.1} s ({:.1} frames/s), {points:.0} points each, boxes: {}",
        folder.display(),
        totals.n_frames,
        totals.n_frames as f64 / seconds,
        boxes.collect::<Vec<_>>().join(", ")
    );
    Ok(())
}
