//! The command line beside the ROS arguments, and the help for both.

use clap::{Parser, Subcommand};
use pivotal::replay::args::ReplayArgs;

use crate::play::PlayArgs;

/// What stands below clap's own help.
const AFTER_HELP: &str = "\
ROS arguments (between --ros-args and --, or the end):
  -r, --remap [NODE:]FROM:=TO     also __node:=NAME and __ns:=/SPACE
  -p, --param [NODE:]NAME:=VALUE  `detector_node params` lists the names
      --params-file FILE          YAML, see config/detector.yaml; later settings win
      --log-level [LOGGER:=]LEVEL debug, info, warn, error or fatal

Environment: ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_LOCALHOST_ONLY as in ROS 2.

Topics: ~/input/pointcloud in; ~/output/objects, ~/output/markers, ~/output/report, ~/output/autoware_objects, /diagnostics,
/parameter_events, /rosout and ~/debug/* out.

Services: those of parameters; ~/set_enabled, or with -p lifecycle:=true those of a managed node.

Exit codes:
  0  normal end, SIGINT and SIGTERM included
  1  anything without a code of its own; check found something wrong
  2  bad arguments, parameters, names or environment variables
  3  replay or play finished, with input or results lost or malformed
  4  model directory missing, damaged or contradictory
  5  device cannot be had, or failed again after the pipeline was rebuilt

Examples:
  detector_node --ros-args -p model_dir:=models/demo -r '~/input/pointcloud:=/lidar/points'
  detector_node --ros-args --params-file config/detector.yaml -p model_dir:=models/demo -p device:=cuda:0 -r __ns:=/front
  detector_node replay bags/drive -m models/demo -o out/drive
  detector_node play bags/drive --rate-hz 10
  detector_node check --ros-args -p model_dir:=models/demo
  detector_node params";

/// Finds vehicles, pedestrians and cyclists in LiDAR clouds and publishes them as ROS 2 messages.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does.
#[derive(Subcommand)]
pub enum Command {
    /// Run the live node on DDS; what happens without a subcommand.
    Run,
    /// Run every cloud of a bag through the detector and write detections, pictures, a page and a file for Foxglove.
    Replay(Box<ReplayArgs>),
    /// Send a bag's clouds over DDS to a running node and measure its answers.
    Play(PlayArgs),
    /// Look for what would keep the node from working well here: socket buffers, environment, parameters, device, model.
    Check,
    /// Print the table of the live node's parameters as Markdown.
    Params,
}
