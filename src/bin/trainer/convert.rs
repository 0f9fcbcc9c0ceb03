//! `trainer convert`: one file per kind of conversion.

mod cache;

use std::process::ExitCode;

use clap::Subcommand;

/// Turn data into a form that is faster or easier to read.
#[derive(clap::Args)]
pub struct ConvertArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Cache(cache::CacheArgs),
    Waymo(cache::WaymoArgs),
}

pub fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Cache(args) => cache::run(args),
        What::Waymo(args) => cache::run_waymo(args),
    }
}
