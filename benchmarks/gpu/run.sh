#!/usr/bin/env bash
# Proves the CUDA part on a machine with one device and no network, and records its numbers: 500 s.
#
#   benchmarks/gpu/run.sh --out DIR [--only STEP ...] [--prepared DIR] [--prepare DIR] [--rehearse]
#
# script.py does it all; --help says what the options mean. Nothing need be installed or built.
set -euo pipefail
cd_to=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ln -sfn ../kernels "$cd_to/spacetime/kernels"
ln -sfn ../benchmarks "$cd_to/spacetime/benchmarks"
export PYTHON=${PYTHON:-python3}
export PYTHONPATH="$cd_to${PYTHONPATH:+:$PYTHONPATH}"
# The driver reads it when a process initialises it; nothing before this line has.
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}
exec "$PYTHON" -m spacetime.benchmarks.gpu.run.script "$@"
