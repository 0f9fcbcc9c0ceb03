//! `trainer inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use pivotal::data::inspect::{inspect, picture};
use pivotal::data::statistics::spread;
use pivotal::data::{self, option_table};

/// Show what is in a data source: drives, points, labels, and what is odd in it.
///
/// SOURCE is a bag, a folder of bags, Waymo Open Dataset files, a cache folder, or synth:seed=1,drives=40,frames=50,sensor=waymo5
/// (with samples=2000 instead of drives and frames: a new street for every sample). Settings follow behind a comma as key=value;
/// several sources are separated by ; and joined.
#[derive(clap::Args)]
#[command(after_long_help = format!("Settings of a source; the default stands behind the semicolon:\n\n{}", option_table()))]
pub struct InspectArgs {
    /// What to look at.
    source: String,
    /// Look only at this frame of the source.
    #[arg(long)]
    frame: Option<usize>,
    /// Most frames to load; of more, that many evenly spread ones.
    #[arg(long, default_value_t = 20, conflicts_with = "frame")]
    frames: usize,
    /// Draw the frame, or else the middle one of those loaded, from above.
    #[arg(long)]
    png: Option<PathBuf>,
}

pub fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let source = data::open(&args.source)?;
    let indices = match args.frame {
        Some(frame) if frame >= source.len() => bail!("--frame {frame}: the source has frames 0 to {}", source.len() - 1),
        Some(frame) => vec![frame],
        None => spread(source.len(), args.frames.max(1)),
    };
    print!("{}", inspect(source.as_ref(), &indices).table());
    if let Some(path) = &args.png {
        let sample = source.load(0, indices[indices.len() / 2])?;
        std::fs::write(path, picture(&sample)?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("\n{}: frame {}", path.display(), sample.id);
    }
    Ok(ExitCode::SUCCESS)
}
