//! `detector_node`: the live node, and beside it the table of its parameters.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use pivotal::node::args::{RosArgs, split_ros_args};
use pivotal::node::config::ResolvedParams;
use pivotal::node::error::{EXIT_OK, EXIT_OTHER, EXIT_USAGE, NodeError};
use pivotal::node::names::NodeNames;
use pivotal::node::params::params_table_markdown;
use pivotal::node::{logging, run};
use pivotal::transport::settings::{DdsSettings, process_environment};
use pivotal::transport::{Transport, buffers};
use tokio::signal::unix::{SignalKind, signal};

const AFTER_HELP: &str = "\
ROS arguments (between --ros-args and --, or the end):
  -r, --remap [NODE:]FROM:=TO     also __node:=NAME and __ns:=/SPACE
  -p, --param [NODE:]NAME:=VALUE  `detector_node params` lists the names
      --params-file FILE          YAML, see config/detector.yaml; later settings win
      --log-level [LOGGER:=]LEVEL debug, info, warn, error or fatal

Environment: ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_LOCALHOST_ONLY as in ROS 2.

Topics: ~/input/pointcloud in; ~/output/objects, ~/output/markers, ~/output/report and /diagnostics out.

Exit codes:
  0  normal end, SIGINT and SIGTERM included
  1  anything without a code of its own
  2  bad arguments, parameters, names or environment variables
  3  replay finished, with input lost or malformed
  4  model directory missing, damaged or contradictory
  5  device cannot be had, or failed again after the pipeline was rebuilt

Examples:
  detector_node --ros-args -p model_dir:=models/demo -r '~/input/pointcloud:=/lidar/points'
  detector_node --ros-args --params-file config/detector.yaml -p model_dir:=models/demo -p device:=cuda:0 -r __ns:=/front
  detector_node params";

/// Finds vehicles, pedestrians and cyclists in LiDAR clouds and publishes them as ROS 2 messages.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the live node on DDS; what happens without a subcommand.
    Run,
    /// Print the table of parameters as Markdown.
    Params,
}

fn main() -> ExitCode {
    let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let (own_args, ros) = match split_ros_args(args) {
        Ok(parts) => parts,
        Err(error) => return failed(&error.into(), EXIT_USAGE),
    };
    let cli = match Cli::try_parse_from(own_args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match cli.command.unwrap_or(Command::Run) {
        Command::Run => run_node(&ros),
        Command::Params => {
            print!("{}", params_table_markdown());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => {
            let code = error.downcast_ref::<NodeError>().map_or(EXIT_OTHER, NodeError::exit_code);
            failed(&error, code)
        }
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("detector_node: {error:#}");
    ExitCode::from(code)
}

fn run_node(ros: &RosArgs) -> anyhow::Result<()> {
    let (names, notices) = NodeNames::resolve(&ros.remaps).map_err(NodeError::from)?;
    logging::init(&ros.log_levels, names.node.base()).context("logging")?;
    let params = ResolvedParams::new(&ros.params, &names.node.to_string()).map_err(NodeError::from)?;
    for notice in ros.notices.iter().chain(&notices).chain(&params.notices) {
        tracing::warn!("{notice}");
    }
    let in_force: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tracing::info!("parameters: {}", in_force.join(" "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let result = runtime.block_on(async {
        // Before anything slow, so that a signal during the start ends the start.
        let shutdown = termination().context("signal handlers")?;
        let transport = join_dds(&names)?;
        Ok(run::run(&names, params, &transport, shutdown).await?)
    });
    tracing::info!("ended");
    result
}

/// Joins the DDS domain that the environment names, with warnings about what will not work.
fn join_dds(names: &NodeNames) -> Result<Transport, NodeError> {
    let (settings, warnings) = DdsSettings::from_environment(process_environment)?;
    for warning in warnings.iter().chain(&buffers::receive_limit_warning(buffers::receive_limit_bytes())) {
        tracing::warn!("{warning}");
    }
    let transport = Transport::dds(&names.node, &settings)?;
    tracing::info!("{} in DDS domain {}", names.node, settings.domain_id);
    Ok(transport)
}

/// Completes at the first SIGINT or SIGTERM.
fn termination() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
            _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        }
    })
}
