#!/usr/bin/env bash
# Proves the CUDA part on a machine with one device and no network, and records its numbers.
#
#   benchmarks/gpu/run.sh --out DIR [--quick] [--part 1|2]
#
# Part 1: build, doctor, probes, tests/gpu, partitions, isolation. Part 2: layers, processes, models.
# Each takes less than nine minutes; without --part both run. A step that fails or hangs does not
# stop the rest. Exit status: 0 all done, 1 a step failed, 2 bad arguments, 3 no device.
set -uo pipefail

usage() {
  echo "usage: benchmarks/gpu/run.sh --out DIR [--quick] [--part 1|2]" >&2
  exit 2
}

out="" quick=() parts=(1 2)
while [ $# -gt 0 ]; do
  case "$1" in
    --out) [ $# -ge 2 ] || usage; out=$2; shift 2 ;;
    --quick) quick=(--quick); shift ;;
    --part)
      [ $# -ge 2 ] || usage
      case "$2" in 1 | 2) parts=("$2") ;; *) usage ;; esac
      shift 2
      ;;
    *) usage ;;
  esac
done
[ -n "$out" ] || usage
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd) || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
budget_s=$((${ST_PART_SECONDS:-520}))  # of one part
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
worst=0
no_device=""

# record NAME STATUS SECONDS LAST-LINE
record() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$scratch/steps"
  if [ "$2" = FAILED ] || [ "$2" = timeout ]; then worst=1; fi
}

# step NAME LIMIT-SECONDS COMMAND...: within what is left of the part's time.
step() {
  local name=$1 limit=$2 begin=$SECONDS left code status
  shift 2
  left=$((deadline - SECONDS))
  if [ "$left" -lt 5 ]; then
    record "$name" "no time" 0 "the part's $budget_s s are used up"
    worst=1
    return
  fi
  [ "$limit" -le "$left" ] || limit=$left
  echo "== $name: $*"
  timeout -k 10 "$limit" "$@" >"$scratch/said" 2>&1 </dev/null
  code=$?
  { echo "== $name: $*"; cat "$scratch/said"; } >>"$log"
  tail -n 25 "$scratch/said"
  case $code in
    0) status=ok ;;
    3) status="no device" ;;
    4) status="not here" ;;
    124 | 137) status=timeout ;;
    *) status=FAILED ;;
  esac
  record "$name" "$status" $((SECONDS - begin)) "$(grep '[[:alnum:]]' "$scratch/said" | tail -n 1 | tr '\t' ' ')"
}

# on_device NAME LIMIT COMMAND...: a step, unless it is known that there is no device.
on_device() {
  if [ -n "$no_device" ]; then
    echo "== $1: no device: $no_device"
    record "$1" "no device" 0 "no device: $no_device"
  else
    step "$@"
  fi
}

build() {
  ln -sfn ../kernels spacetime/kernels
  ln -sfn ../benchmarks spacetime/benchmarks
  step build 240 "$python" setup.py -q build_ext --inplace
  "$python" -m spacetime.benchmarks.gpu.probes --only versions >"$scratch/versions" 2>&1
  if [ $? -eq 3 ]; then
    no_device=$(sed -n 's/^versions *no device *[0-9.]* s *//p' "$scratch/versions" | head -n 1)
    no_device=${no_device:-unknown}
    worst=3
  fi
}

part_1() {
  step doctor 60 "$python" -m spacetime doctor
  on_device probes 150 "$python" -m spacetime.benchmarks.gpu.probes --out "$out/probes.json" "${quick[@]}"
  on_device partition 80 "$python" -m spacetime bench partition --device cuda:0 --out "$out" "${quick[@]}"
  on_device verify 100 "$python" -m spacetime verify --device cuda:0 --rounds 3 --out "$out"
  # Last, with what time is left: a line a test, so that a limit loses only what had not run.
  on_device tests 300 "$python" -m pytest -v --tb=short -m gpu --timeout 120 tests/gpu
}

part_2() {
  on_device flops 230 "$python" -m spacetime bench flops --device cuda:0 --budget-s 180 --out "$out" "${quick[@]}"
  on_device mps 80 "$python" -m spacetime.benchmarks.gpu.mps --out "$out/mps.json" "${quick[@]}"
  on_device models 200 "$python" -m spacetime bench models --device cuda:0 --budget-s 150 --out "$out" "${quick[@]}"
}

for part in "${parts[@]}"; do
  deadline=$((SECONDS + budget_s))
  log="$out/log-$part.txt"
  : >"$log"
  : >"$scratch/steps"
  build
  "part_$part"
  echo
  "$python" -m spacetime.benchmarks.gpu.summary "$scratch/steps" "$out" >"$out/summary-$part.txt" ||
    cp "$scratch/steps" "$out/summary-$part.txt"
  cat "$out/summary-$part.txt"
done
exit "$worst"
