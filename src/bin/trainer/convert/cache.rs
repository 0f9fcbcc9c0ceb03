//! `trainer convert cache` and `trainer convert waymo`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::data::cache::{self, CacheSettings, Precision};
use pivotal::data::{self, Source, waymo};

/// Frames that could not be read are named up to this number.
const MAX_NAMED: usize = 10;

/// Make a local copy of a data source that loads fast. Can be killed and run again: it goes on.
#[derive(clap::Args)]
pub struct CacheArgs {
    /// What to copy: a path, or for instance synth:seed=1,drives=40,frames=50,sensor=waymo5 (see `trainer inspect --help`).
    source: String,
    #[command(flatten)]
    options: CacheOptions,
}

/// Make a local copy of Waymo segments that loads fast. Can be killed and run again: it goes on.
#[derive(clap::Args)]
pub struct WaymoArgs {
    /// A *.tfrecord, a folder of them, or a split of version 2 with its component folders.
    path: PathBuf,
    #[command(flatten)]
    options: CacheOptions,
}

#[derive(clap::Args)]
struct CacheOptions {
    /// Folder to write, or to go on with.
    #[arg(long)]
    out: PathBuf,
    /// How points are stored: f32 as they are; f16 in half the bytes, coordinates within 2 mm at 75 m, other columns within 0.05 %.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Keep what is inside: xmin,ymin,zmin,xmax,ymax,zmax in metres. Leave room for augmentation: 1.5 times the training range.
    #[arg(long, value_parser = six_numbers, allow_hyphen_values = true)]
    range: Option<Range>,
    /// Frames of one file: what is in memory at once, and what a kill loses.
    #[arg(long, default_value_t = CacheSettings::default().shard_frames)]
    shard_frames: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    F16,
}

type Range = [f64; 6];

fn six_numbers(text: &str) -> Result<Range, String> {
    let numbers: Vec<f64> =
        text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>().map_err(|error| format!("{error}"))?;
    numbers.try_into().map_err(|numbers: Vec<f64>| format!("{} numbers, expected 6", numbers.len()))
}

pub fn run(args: &CacheArgs) -> anyhow::Result<ExitCode> {
    convert(data::open(&args.source)?.as_ref(), &args.options)
}

pub fn run_waymo(args: &WaymoArgs) -> anyhow::Result<ExitCode> {
    let source = waymo::open(&args.path)?;
    let code = convert(&source, &args.options)?;
    let left_out = source.left_out();
    println!(
        "  left out: {} labels of unknown type, {} returns that are not finite",
        left_out.n_unknown_labels, left_out.n_non_finite_points
    );
    Ok(code)
}

/// Converts with progress, rate and ETA on stderr where that is a terminal. Frames that could not be read are named, and the exit code
/// is then 3: finished with loss.
fn convert(source: &dyn Source, options: &CacheOptions) -> anyhow::Result<ExitCode> {
    let CacheOptions { out, dtype, range, shard_frames } = options;
    let precision = match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::F16 => Precision::F16,
    };
    let settings = CacheSettings { precision, range_m: *range, shard_frames: *shard_frames };
    let template = "[{bar:30}] {pos}/{len} frames, {per_sec}, ETA {eta}";
    let bar = ProgressBar::new(source.len() as u64).with_style(ProgressStyle::with_template(template)?);
    let start = Instant::now();
    let written = cache::write(source, out, &settings, &|n_done| bar.set_position(n_done as u64)).with_context(|| {
        format!(
            "{} of {} frames done; what is finished in {} is kept, run the same command again to go on",
            bar.position(),
            source.len(),
            out.display()
        )
    })?;
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    let n_new = source.len() - written.n_resumed;
    println!(
        "{}: {} frames, {:.1} MB; {n_new} in {seconds:.1} s ({:.1} frames/s), {} were there",
        out.display(),
        written.n_frames,
        written.n_bytes as f64 / 1e6,
        n_new as f64 / seconds,
        written.n_resumed
    );
    if written.left_out.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for frame in written.left_out.iter().take(MAX_NAMED) {
        eprintln!("left out {}: {}", frame.id, frame.reason);
    }
    eprintln!(
        "{} frames could not be read and were left out; all are named in {}",
        written.left_out.len(),
        out.join(cache::INDEX_FILE).display()
    );
    Ok(ExitCode::from(3))
}
