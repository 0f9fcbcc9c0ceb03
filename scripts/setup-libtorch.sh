#!/usr/bin/env bash
# Fetches libtorch 2.11.0 from PyPI and lays it out in .libtorch/ the way torch-sys 0.24 expects a libtorch.
# Does nothing when it is already there, or when LIBTORCH / LIBTORCH_USE_PYTORCH point to another one.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.11.0
if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
  echo "setup: LIBTORCH_USE_PYTORCH is set, using the Python environment's torch"; exit 0
fi
if [ -n "${LIBTORCH:-}" ] && [ "$(realpath -m "$LIBTORCH")" != "$(realpath -m .libtorch)" ]; then
  echo "setup: LIBTORCH=$LIBTORCH is set, using it"; exit 0
fi
[ -e ".libtorch/.ok-$version" ] && exit 0
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "setup: the pinned wheels are for Linux x86_64, this is $(uname -sm); point LIBTORCH to a libtorch $version" >&2; exit 1
fi
command -v python3 >/dev/null || { echo "setup: python3 with pip is needed to fetch libtorch" >&2; exit 1; }
echo "setup: fetching libtorch $version from PyPI (about 540 MB, once)"
rm -rf .libtorch
mkdir -p .libtorch/lib
site=.libtorch/site
# Three wheels without their dependencies: libtorch_cpu.so needs only libcudart and libcupti of some 2 GB of nvidia wheels.
# The Python version of the wheel does not matter to us; one is pinned so that any host python can fetch it.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --only-binary=:all: \
  --python-version 3.12 --implementation cp --abi cp312 --abi none --abi abi3 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --target "$site" "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
ln -s site/torch/include .libtorch/include
for f in libc10.so libtorch_cpu.so libgomp.so.1; do ln -s "../site/torch/lib/$f" ".libtorch/lib/$f"; done
for f in libcudart.so.13 libcupti.so.13; do ln -s "../site/nvidia/cu13/lib/$f" ".libtorch/lib/$f"; done
# The wheel's own libtorch.so drags in libtorch_cuda.so and 2 GB of its needs; this linker script does not.
echo 'INPUT(libtorch_cpu.so libc10.so)' > .libtorch/lib/libtorch.so
# Lets torch-sys check the version.
echo "$version+cu130" > .libtorch/build-version
# Nothing here links against these; without them the folder is half the size.
find "$site/torch" -mindepth 1 -maxdepth 1 ! -name lib ! -name include ! -name version.py -exec rm -rf {} +
rm -f "$site"/torch/lib/libtorch_cuda*.so "$site"/torch/lib/libtorch_python.so "$site"/torch/lib/libtorch_nvshmem.so "$site"/torch/lib/libtorch.so
find "$site/nvidia" -name '*.a' -delete
touch ".libtorch/.ok-$version"
