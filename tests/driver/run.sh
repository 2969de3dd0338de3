#!/usr/bin/env bash
# Runs what can be checked against NVIDIA's own parts without a GPU: the loader and the errors with
# Debian's libcuda, `spacetime doctor` with it, `spacetime.isolation.mps` with the real control daemon, our
# declarations with cuda.h. Parts are fetched once into build/driver; a part that cannot be had is
# one line, and its tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHON=${PYTHON:-python3} ST_DRIVER=$PWD/build/driver

tests/driver/fetch.sh build/driver trixie 550 || [ $? -eq 3 ]
tests/driver/fetch.sh build/driver bookworm 535 || [ $? -eq 3 ]
for version in 13.0.96 13.5.37; do
  tests/driver/headers.sh "$version" >/dev/null || [ $? -eq 3 ]
done
# Run by root, libcuda makes this node if it is missing.
[ -e /dev/nvidiactl ] || trap 'rm -f /dev/nvidiactl' EXIT
"$PYTHON" -m pytest -m driver tests/driver "$@"
