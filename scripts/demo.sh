#!/usr/bin/env bash
# The main job, shown: a synthetic drive through the replay, then over DDS to a running node and back.
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/demo
model=models/cp-pillar-v0.64-xxs
domain=77

echo "demo: building (release)"
cargo build --release --bins --quiet
bin="${CARGO_TARGET_DIR:-target}/release"

rm -rf "$out"
mkdir -p "$out"
echo "demo: making a drive of 20 frames on a street that $model has never seen"
"$bin/trainer" synth --out "$out/drive" --seed 5 --frames 20 --sensor spinning64

echo "demo: replaying it through the node's pipeline"
"$bin/detector_node" replay "$out/drive" --model "$model" --out "$out/replay" --score-threshold 0.5 --nms-iou 0.2 --ground-truth /ground_truth/objects

# Whole clouds need larger receive buffers than Linux gives by default; without them every n-th point shows the same.
thin=1
limit=$(cat /proc/sys/net/core/rmem_max 2> /dev/null || echo 0)
if [ "$limit" -lt 4194304 ]; then
  thin=100
  echo "demo: net.core.rmem_max is $limit, too small for whole clouds: sending every ${thin}th point only"
  echo "demo: to see whole clouds: sudo sysctl -w net.core.rmem_max=33554432 net.core.wmem_max=33554432"
fi
echo "demo: sending it over DDS on loopback to a running node"
export ROS_DOMAIN_ID=$domain ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
"$bin/detector_node" --ros-args -p "model_dir:=$model" -p score_threshold:=0.5 -p nms_iou:=0.2 2> "$out/node.log" &
node=$!
trap 'kill -INT $node 2> /dev/null || true; wait $node 2> /dev/null || true' EXIT
code=0
"$bin/detector_node" play "$out/drive" --every-nth-point "$thin" --rate-hz 5 || code=$?
case $code in
  0) ;;
  3) echo "demo: not every cloud was answered (see above); a busy machine loses best-effort clouds" ;;
  *) cat "$out/node.log"; exit 1 ;;
esac

echo
echo "demo: pictures and latency: $PWD/$out/replay/index.html"
