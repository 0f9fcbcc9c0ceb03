//! `trainer metrics`.

use std::path::PathBuf;
use std::process::ExitCode;

use pivotal::eval::{self, json};

/// Compute the official Waymo detection metric of a file of boxes and print it as JSON.
///
/// Prints an object with `config` and `breakdowns`: name, AP, APH, and true and false positives, misses and heading-weighted
/// precision at every score cutoff.
#[derive(clap::Args)]
pub struct MetricsArgs {
    /// JSON with `predictions` and `ground_truths`, each a list of objects with frame, type and box.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// JSON with an object `config`, for instance the result of an earlier run. Default: the leaderboard's settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: &MetricsArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().map_or_else(|| Ok(eval::config::MetricsConfig::leaderboard()), json::read_config)?;
    let metrics = eval::measure(&json::read_input(&args.input)?, &config)?;
    println!("{}", json::write(&metrics, &config));
    Ok(ExitCode::SUCCESS)
}
