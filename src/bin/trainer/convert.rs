//! `trainer convert`: one file per kind of conversion.

mod cache;
mod foreign;
mod gt_database;

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
    GtDatabase(gt_database::GtDatabaseArgs),
    Waymo(cache::WaymoArgs),
    Kitti(foreign::KittiArgs),
    Nuscenes(foreign::NuscenesArgs),
}

pub fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Cache(args) => cache::run(args),
        What::GtDatabase(args) => gt_database::run(args),
        What::Waymo(args) => cache::run_waymo(args),
        What::Kitti(args) => foreign::kitti(args),
        What::Nuscenes(args) => foreign::nuscenes(args),
    }
}
