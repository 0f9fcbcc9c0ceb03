//! `trainer check-dump`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use pivotal::distill::dump::DumpCheck;

/// Look at a teacher's dump before a student learns from it, for instance one that another framework wrote.
///
/// Names, types, shapes and values of every frame are checked, and whether confident boxes lie where their class is hot on the heat map,
/// which shows swapped axes, a wrong stride and boxes in another frame. The format is described in src/distill/dump.rs. Exit code 1 when
/// anything is wrong.
#[derive(clap::Args)]
pub struct CheckDumpArgs {
    /// The dump.
    dir: PathBuf,
    /// Folder of `trainer dump-teacher --inputs` that the dump answers; each of its frames must be there.
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
}

pub fn run(args: &CheckDumpArgs) -> anyhow::Result<ExitCode> {
    let check = DumpCheck::run(&args.dir, args.inputs.as_deref()).context("the dump cannot be read")?;
    println!("teacher: {}", check.teacher);
    for (epoch, n_frames) in &check.frames {
        println!("epoch {epoch}: {n_frames} frames");
    }
    let boxes: Vec<String> = check.n_boxes.iter().map(|(class, n)| format!("{n} {class}")).collect();
    println!("boxes: {}", boxes.join(", "));
    println!("regression maps: {}", if check.has_regression { "yes" } else { "no" });
    let [n_confident, n_hot] = check.on_map;
    println!("confident boxes where their class is hot: {n_hot} of {n_confident}");
    for problem in &check.problems {
        println!("problem: {problem}");
    }
    if check.n_problems > check.problems.len() {
        println!("and {} more problems", check.n_problems - check.problems.len());
    }
    println!("{}", if check.n_problems == 0 { "sound" } else { "not sound" });
    Ok(if check.n_problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
