//! `trainer convert gt-database`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::data;
use pivotal::data::gt_database::{DatabaseSettings, build};

/// Frames that could not be read are named up to this number.
const MAX_NAMED: usize = 10;

/// Cut the labelled objects out of a data source, to be pasted into training frames. Can be killed and run again: it goes on.
#[derive(clap::Args)]
pub struct GtDatabaseArgs {
    /// Where the objects are: the drives trained on, never those validated on (see `trainer inspect --help`).
    #[arg(long, value_name = "SOURCE")]
    data: String,
    /// Folder to write, or to go on with.
    #[arg(long)]
    out: PathBuf,
    /// Take a class (the source's name) from every N-th frame; other classes are not taken. [default: Vehicle=4 Pedestrian=2 Cyclist=1]
    #[arg(long, value_name = "CLASS=N", value_parser = class_and_step)]
    every: Vec<(String, u64)>,
}

fn class_and_step(text: &str) -> Result<(String, u64), String> {
    let (class, step) = text.split_once('=').ok_or("expected CLASS=N, for instance Vehicle=4")?;
    Ok((class.to_owned(), step.parse().map_err(|_| format!("`{step}` is no number of frames"))?))
}

/// Progress, rate and ETA on stderr where that is a terminal. Exit code 3 when frames could not be read: finished with loss.
pub fn run(args: &GtDatabaseArgs) -> anyhow::Result<ExitCode> {
    let GtDatabaseArgs { data, out, every } = args;
    let source = data::open(data)?;
    let settings =
        if every.is_empty() { DatabaseSettings::default() } else { DatabaseSettings { every: every.iter().cloned().collect() } };
    let bar = ProgressBar::new(source.len() as u64);
    bar.set_style(ProgressStyle::with_template("[{bar:30}] {pos}/{len} frames, {per_sec}, ETA {eta}")?);
    let start = Instant::now();
    let built = build(source.as_ref(), &settings, out, &mut |progress| bar.set_position(progress.n_done));
    let manifest = match built {
        Err(error) if bar.position() > 0 => {
            let kept = format!("what is finished in {} is kept, run the same command again to go on", out.display());
            return Err(error).context(kept);
        }
        other => other?,
    };
    bar.finish_and_clear();
    let objects: Vec<String> = manifest.n_objects.iter().map(|(class, n)| format!("{n} {class}")).collect();
    println!(
        "{}: {} of {} frames in {:.1} s; {} labels without points, {} frames without labels",
        out.display(),
        objects.join(", "),
        manifest.n_frames,
        start.elapsed().as_secs_f64(),
        manifest.n_without_points,
        manifest.n_unlabelled
    );
    if manifest.unreadable.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for reason in manifest.unreadable.iter().take(MAX_NAMED) {
        eprintln!("left out {reason}");
    }
    eprintln!("{} frames could not be read; all are named in {}", manifest.unreadable.len(), out.join("database.json").display());
    Ok(ExitCode::from(3))
}
