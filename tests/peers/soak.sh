#!/usr/bin/env bash
# A minute of 6 MB clouds at 10 Hz from every peer that is built, best effort and reliable, each answered by a detection array;
# on the loopback interface of a network namespace of its own, with its usual MTU and with Ethernet's. Needs root, some 15 minutes,
# and the peers of build.sh and scripts/setup-peers.sh. Prints one line per run; fails when a run failed or said nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
clouds=${1:-600}
failed=0
program=$(cargo test --test main --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*main-[^"]*\)".*/\1/p' | tail -1)
for mtu in 65536 1500; do
  space="pivotal-soak-$mtu"
  ip netns add "$space"
  trap 'ip netns del "$space"' EXIT
  ip netns exec "$space" ip link set lo mtu "$mtu" up
  for peer in "" target/peers/cyclone_c_peer target/peers/fastdds_peer; do
    [ -z "$peer" ] || [ -x "$peer" ] || continue
    echo "== MTU $mtu, ${peer:-cyclonedds 11 from PyPI}"
    ip netns exec "$space" env PIVOTAL_PEER_CLOUDS="$clouds" ${peer:+PIVOTAL_PEER="$PWD/$peer"} "$program" transport::exchange --nocapture --test-threads=1 2>&1 |
      grep -E "clouds [0-9]|panicked|left:|right:|answers" || { echo "FAILED (test ${PIPESTATUS[0]}, grep ${PIPESTATUS[1]})"; failed=1; }
  done
  ip netns del "$space"
  trap - EXIT
done
exit "$failed"
