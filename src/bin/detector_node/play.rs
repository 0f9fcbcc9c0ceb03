//! A bag to a running node, and what came back.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pivotal::node::args::RosArgs;
use pivotal::node::error::{EXIT_LOSS, EXIT_OK, NodeError};
use pivotal::node::logging;
use pivotal::play::{self, PlayOptions, PlaySummary};
use pivotal::replay::latency::LatencyStats;
use pivotal::transport::Transport;
use pivotal::transport::names::NodeName;
use pivotal::transport::settings::{DdsSettings, process_environment};

use crate::replay::stop_at_a_signal;

/// Name of the playing node in the ROS graph.
const NODE_NAME: &str = "pivotal_play";

/// The command line of `detector_node play`.
#[derive(Debug, Clone, Args)]
pub struct PlayArgs {
    /// rosbag2 folder, or one of its files
    bag: PathBuf,
    /// Topic of the clouds; needed when the bag has several
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Full name of the node that is fed
    #[arg(long, value_name = "NAME", default_value = "/detector_node")]
    node: String,
    /// Clouds per second instead of the recorded pace
    #[arg(long, value_name = "HZ", value_parser = rate)]
    rate_hz: Option<f64>,
    /// Send lost clouds again, which LiDAR drivers do not
    #[arg(long)]
    reliable: bool,
    /// Send only each Nth point, where receive buffers cannot hold whole clouds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every_nth_point: u32,
    /// Seconds to wait for the node, and after the last cloud for its results; at most a day
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait_s: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate_hz) if (0.01..=1000.0).contains(&rate_hz) => Ok(rate_hz),
        _ => Err("must be a number from 0.01 to 1000".to_owned()),
    }
}

/// Plays, prints the summary and gives the exit code.
pub fn play_bag(args: &PlayArgs, ros: &RosArgs) -> anyhow::Result<u8> {
    if !ros.remaps.is_empty() || !ros.params.is_empty() {
        bail!(crate::Usage("play takes its settings as options; of the ROS arguments only --log-level".to_owned()));
    }
    logging::init(&ros.log_levels, NODE_NAME, None).context("logging")?;
    let (settings, warnings) = DdsSettings::from_environment(process_environment).map_err(NodeError::from)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let name = NodeName::new("/", NODE_NAME).map_err(NodeError::from)?;
    let transport = Transport::dds(&name, &settings).map_err(NodeError::from)?;
    let options = PlayOptions {
        bag: args.bag.clone(),
        topic: args.topic.clone(),
        node: args.node.clone(),
        rate_hz: args.rate_hz,
        reliable: args.reliable,
        every_nth_point: args.every_nth_point as usize,
        wait: Duration::from_secs(args.wait_s),
    };
    let stop = stop_at_a_signal()?;
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
    let mut progress = |sent, received| {
        bar.set_message(format!("{sent} clouds sent, {received} arrays received"));
        bar.tick();
    };
    let summary = play::play(&transport, &options, &mut progress, &stop)?;
    bar.finish_and_clear();
    print_summary(&summary);
    Ok(if summary.loss() { EXIT_LOSS } else { EXIT_OK })
}

fn print_summary(summary: &PlaySummary) {
    let PlaySummary { sent, largest_bytes, reported, failed, arrays, boxes, overwritten, losses, .. } = summary;
    println!("sent {sent} clouds of up to {:.2} MB", *largest_bytes as f64 / 1e6);
    println!("the node answered {reported} of them, failed on {failed} and says that newer ones replaced {overwritten}");
    if summary.lost() > 0 {
        println!("{} were lost on the way{}", summary.lost(), if summary.interrupted { ", or are still on it" } else { "" });
    }
    println!("received {arrays} detection arrays with {boxes} boxes");
    if *losses > 0 {
        println!("{losses} parts or clouds of the bag could not be read");
    }
    println!("{:12} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "n", "mean", "p50", "p95", "p99", "max");
    for (name, stats) in [("round trip", summary.round_trip), ("in the node", summary.in_node)] {
        if let Some(LatencyStats { n, mean_ms, p50_ms, p95_ms, p99_ms, max_ms }) = stats {
            println!("{name:12} {n:5} {mean_ms:9.1} {p50_ms:9.1} {p95_ms:9.1} {p99_ms:9.1} {max_ms:9.1}");
        }
    }
}
