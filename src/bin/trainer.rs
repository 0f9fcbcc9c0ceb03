//! Distils, evaluates, imports: the command line of [`pivotal`]'s offline side. One file per command.

mod trainer {
    pub mod check_dump;
    pub mod convert;
    pub mod doctor;
    pub mod dump_teacher;
    pub mod eval;
    // The end of a process that still has a thread in libtorch, as `detector_node` has it.
    #[path = "../detector_node/exit.rs"]
    pub mod exit;
    pub mod import;
    pub mod inspect;
    pub mod metrics;
    pub mod parity;
    pub mod profile;
    pub mod specs;
    pub mod synth;
    pub mod train;
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trainer::*;

/// Distils LiDAR detectors, imports weights, proves parity with the original code, makes synthetic drives.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Eval(eval::EvalArgs),
    Metrics(metrics::MetricsArgs),
    Parity(parity::ParityArgs),
    Profile(profile::ProfileArgs),
    Doctor(doctor::DoctorArgs),
    Import(import::ImportArgs),
    Convert(convert::ConvertArgs),
    Inspect(inspect::InspectArgs),
    Synth(synth::SynthArgs),
    Train(train::TrainArgs),
    DumpTeacher(dump_teacher::DumpTeacherArgs),
    CheckDump(check_dump::CheckDumpArgs),
    Untrained(specs::UntrainedArgs),
    Specs(specs::SpecsArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Eval(args) => eval::run(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Synth(args) => synth::run(&args),
        Command::Train(args) => train::run(&args),
        Command::DumpTeacher(args) => dump_teacher::run(&args),
        Command::CheckDump(args) => check_dump::run(&args),
        Command::Untrained(args) => specs::untrained(&args),
        Command::Specs(args) => specs::list(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("trainer: {error:#}");
        ExitCode::FAILURE
    })
}
