//! `trainer convert kitti` and `trainer convert nuscenes`: other data sets as bags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::data::kitti::KittiOptions;
use pivotal::data::{Converted, DataError, kitti, nuscenes};

/// Frames that could not be converted are named up to this number.
const MAX_NAMED: usize = 10;

/// Make a bag with labels of KITTI's object data set.
///
/// Classes keep KITTI's names; for models with Waymo's, open the bag with
/// classes=Car:Vehicle/Van:Vehicle/Truck:Vehicle/Tram:Vehicle/Person_sitting:Pedestrian/Misc: behind its path.
#[derive(clap::Args)]
pub struct KittiArgs {
    /// Folder with velodyne, label_2 and calib, or the one above its training; or a flat one with NAME.bin, NAME_label.txt,
    /// NAME_calib.txt.
    folder: PathBuf,
    /// Bag folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Convert only the frames this file names, one per line, as ImageSets/train.txt does. Make one bag for each side of a split.
    #[arg(long)]
    list: Option<PathBuf>,
    /// Keep only points that the left colour camera shows, as nothing else is labelled. Needed before training on the bag.
    #[arg(long)]
    camera_view_only: bool,
    /// Width and height of the images.
    #[arg(long, value_delimiter = ',', num_args = 2, default_values_t = [1242.0, 375.0])]
    image_px: Vec<f64>,
}

/// Make a bag with labels of single nuScenes sweeps, each a .pcd.bin file and a JSON file that names it.
#[derive(clap::Args)]
pub struct NuscenesArgs {
    /// A JSON file, or a folder of them.
    path: PathBuf,
    /// Bag folder to write.
    #[arg(long)]
    out: PathBuf,
}

pub fn kitti(args: &KittiArgs) -> anyhow::Result<ExitCode> {
    let names = match &args.list {
        Some(list) => {
            let text = std::fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
            text.split_whitespace().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let image_px: [f64; 2] = args.image_px.as_slice().try_into().context("--image-px needs two numbers")?;
    let options = KittiOptions { names, view_px: args.camera_view_only.then_some(image_px) };
    report(&args.out, |progress| kitti::convert(&args.folder, &args.out, &options, progress))
}

pub fn nuscenes(args: &NuscenesArgs) -> anyhow::Result<ExitCode> {
    report(&args.out, |progress| nuscenes::convert(&args.path, &args.out, progress))
}

/// Converts with progress on stderr where that is a terminal. Exit code 3: finished, but frames were left out.
fn report(
    out: &Path,
    convert: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<Converted, DataError>,
) -> anyhow::Result<ExitCode> {
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("[{bar:30}] {pos}/{len} frames, {per_sec}, ETA {eta}")?);
    let converted = convert(&mut |n_done, n_frames| {
        bar.set_length(n_frames as u64);
        bar.set_position(n_done as u64);
    })?;
    bar.finish_and_clear();
    println!("{}: {} frames, {} points", out.display(), converted.n_frames, converted.n_points);
    println!("  labels: {}; {} points inside", counted(&converted.n_labels), converted.n_points_inside);
    println!("  no labels: {}", counted(&converted.n_not_labels));
    for fault in converted.faults.iter().take(MAX_NAMED) {
        eprintln!("left out: {fault}");
    }
    if converted.faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} frames could not be converted and were left out", converted.faults.len());
    Ok(ExitCode::from(3))
}

fn counted(counts: &BTreeMap<String, usize>) -> String {
    let words: Vec<String> = counts.iter().map(|(class, n)| format!("{n} {class}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
