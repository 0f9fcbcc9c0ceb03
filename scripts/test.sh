#!/usr/bin/env bash
# Runs every test. Those named in tests/reference-tests.txt compare with golden numbers and recordings that are no part of the
# repository; where these are missing, this says so instead of passing the tests over in silence.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIVOTAL_SHARED="${PIVOTAL_SHARED:-$(realpath -m ../shared)}"
if [ -d "$PIVOTAL_SHARED/golden" ]; then
  exec cargo test
fi
mapfile -t skips < <(sed 's/^/--skip=/' tests/reference-tests.txt)
cargo test -- --exact "${skips[@]}"
cat <<EOF

NOT RUN: ${#skips[@]} reference tests (tests/reference-tests.txt). They compare with golden numbers of the original code and with
recorded data, expected in $PIVOTAL_SHARED; set PIVOTAL_SHARED to another folder. Everything else passed.
EOF
