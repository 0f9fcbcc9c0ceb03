#!/usr/bin/env bash
# Builds detector_node as a client of rcl into the given target folder. Called by CMake in a sourced ROS 2 workspace.
set -euo pipefail
target=$1
cd "$(dirname "$0")/../.."
: "${AMENT_PREFIX_PATH:?source a ROS 2 workspace first}"
# libtorch where LIBTORCH says, else fetched once beside the sources; the binary finds it there by its rpath.
scripts/setup-libtorch.sh
# r2r generates code for these packages, as far as they are in the workspace.
IDL_PACKAGE_FILTER=$(sed -n 's/^\([a-z][a-z0-9_]*\) .*/\1/p' ros/message_packages.txt | paste -sd ';')
export IDL_PACKAGE_FILTER
exec cargo build --locked --release --features r2r --bin detector_node --target-dir "$target"
