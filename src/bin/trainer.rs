//! Distils, evaluates, imports: the command line of [`pivotal`]'s offline side.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

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
    }
}
