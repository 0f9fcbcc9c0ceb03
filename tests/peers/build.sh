#!/usr/bin/env bash
# Builds the compiled peers into OUT (default: target/peers), as far as their libraries are installed:
#   apt-get install cyclonedds-dev cyclonedds-tools libfastrtps-dev fastddsgen
set -euo pipefail
cd "$(dirname "$0")"
out=$(realpath -m "${1:-../../target/peers}")
mkdir -p "$out/cyclone" "$out/fastdds"
if command -v idlc >/dev/null; then
  idlc -o "$out/cyclone" ros_types.idl
  gcc -O2 -c "$out/cyclone/ros_types.c" -o "$out/cyclone/ros_types.o"
  g++ -O2 -std=c++17 -I. -I"$out/cyclone" cyclone_c_peer.cpp "$out/cyclone/ros_types.o" -lddsc -o "$out/cyclone_c_peer"
  echo "built $out/cyclone_c_peer"
fi
if command -v fastddsgen >/dev/null; then
  fastddsgen -replace -d "$out/fastdds" ros_types.idl >/dev/null
  g++ -O2 -std=c++17 -I. -I"$out/fastdds" fastdds_peer.cpp "$out"/fastdds/ros_types*.cxx -lfastrtps -lfastcdr -lpthread -o "$out/fastdds_peer"
  echo "built $out/fastdds_peer"
fi
