#!/usr/bin/env bash
# Prints the folder of a toolkit's cuda.h, fetched from the package index into build/driver if it is
# not there: headers.sh 13.0.96. Where it cannot be had: one line that says why, and status 3.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$1 place=$PWD/build/driver/cuda-$1 python=${PYTHON:-python3}

if [ ! -e "$place/done" ]; then
  rm -rf "$place" && mkdir -p "$place"
  if ! "$python" -m pip --disable-pip-version-check --timeout 10 --retries 1 download -q --no-deps \
    --only-binary :all: -d "$place" "nvidia-cuda-runtime==$version" >"$place/log" 2>&1; then
    echo "cuda.h of $version: skipped: $(grep . "$place/log" | tail -1)" >&2
    exit 3
  fi
  "$python" -m zipfile -e "$place"/*.whl "$place"
  rm "$place"/*.whl
  touch "$place/done"
fi
dirname "$(find "$place" -name cuda.h | head -1)"
