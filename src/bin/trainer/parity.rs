//! `trainer parity`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

/// Compare this build with golden numbers of the original PyTorch code, stage by stage.
///
/// Prints a table with the largest difference of every stage, the first stage over its tolerance, and the cases this build does
/// not support. Exit code 1 when any stage exceeds its tolerance.
#[derive(clap::Args)]
pub struct ParityArgs {
    /// Golden directory: hash/, models/, components/, ckpt/ in the format its README defines.
    dir: PathBuf,
}

pub fn run(args: &ParityArgs) -> anyhow::Result<ExitCode> {
    let report = pivotal::parity::run(&args.dir).with_context(|| format!("parity with {}", args.dir.display()))?;
    print!("{}", report.table());
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
