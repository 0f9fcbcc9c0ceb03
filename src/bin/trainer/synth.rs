//! `trainer synth`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;
use pivotal::synth::{DriveConfig, ObjectClass};

/// Make labelled synthetic LiDAR drives as rosbag2 bags: clouds, true boxes, tf. The same seed gives the same bytes.
#[derive(clap::Args)]
pub struct SynthArgs {
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
}

pub fn run(args: &SynthArgs) -> anyhow::Result<ExitCode> {
    let &SynthArgs { ref out, seed, drives, frames, rate_hz, sensor, two_returns } = args;
    for drive in 0..drives {
        let config = DriveConfig { rate_hz, two_returns, ..DriveConfig::new(seed, drive, frames, sensor) };
        let folder = if drives == 1 { out.clone() } else { out.join(format!("drive_{drive:04}")) };
        write_drive(&config, &folder)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn sensor(name: &str) -> Result<SensorKind, String> {
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
