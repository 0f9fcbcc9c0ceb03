#!/usr/bin/env bash
# Fetches a foreign DDS implementation, Eclipse Cyclone DDS for Python, from PyPI into .venv-peers/ for the interoperation
# tests. Does nothing when it is already there. A plain folder instead of a virtual environment: `python3 -m venv` needs
# ensurepip, which Debian ships apart from python3 and pip.
set -euo pipefail
cd "$(dirname "$0")/.."
version=11.0.1
# The wheel holds a compiled module, which only the interpreter that fetched it can load.
python=$(python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
mark=".venv-peers/.ok-$version-$python"
[ -e "$mark" ] && exit 0
echo "setup: fetching cyclonedds $version from PyPI (7 MB, once)"
rm -rf .venv-peers
# Its one dependency serves a command line tool that the tests do not use.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
  --target .venv-peers "cyclonedds==$version"
touch "$mark"
