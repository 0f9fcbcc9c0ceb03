#!/usr/bin/env bash
# Runs every test. Those in modules called `reference` compare with golden numbers and recordings, which are no part of the
# repository; where they are missing this says so instead of passing them over in silence.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIVOTAL_SHARED="${PIVOTAL_SHARED:-$(realpath -m ../shared)}"
if [ -d "$PIVOTAL_SHARED/golden" ]; then
  exec cargo test
fi
cargo test -- --skip ::reference::
cat <<EOF

NOT RUN: the reference tests. They compare with golden numbers of the original code and with recorded data, expected in
$PIVOTAL_SHARED (set PIVOTAL_SHARED to another folder). Everything else passed.
EOF
