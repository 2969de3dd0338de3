#!/usr/bin/env bash
# Builds the C++ core without Python and runs tests/native/*.cpp under ThreadSanitizer, then under
# AddressSanitizer and UndefinedBehaviorSanitizer. With arguments, only those: thread address
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- thread address
jobs=${ST_JOBS:-$(nproc)}
sources=$(grep -v '^bind/' csrc/sources.txt | sed 's#^#csrc/#')

# A test that replaces operator new and delete is told apart from a mismatch by no compiler.
warnings="-Wall -Wextra -Werror -Wno-unknown-warning-option -Wno-mismatched-new-delete"

# abi_check compares with cuda.h of a toolkit, or of the package index; nothing else needs one.
recent() { grep -qs 'define CUDA_VERSION 1[3-9]' "$1/include/cuda.h" && echo "$1/include"; }
include=
for toolkit in ${CUDA_HOME:+"$CUDA_HOME"} /usr/local/cuda /usr/local/cuda-*; do
  [ -n "$include" ] || include=$(recent "$toolkit") || true
done
[ -n "$include" ] || include=$(tests/driver/headers.sh 13.0.96) || true
[ -z "$include" ] || warnings="$warnings -isystem $include"

build() { # sanitizers, folder
  mkdir -p "$2"
  ls $sources tests/native/*.cpp | xargs -P "$jobs" -I{} sh -c '
    object=$2/$(echo {} | tr / _).o
    newest=$(ls -t {} csrc/*/*.h tests/native/*.h | head -1)
    [ "$object" -nt "$newest" ] || ${CXX:-c++} -std=c++20 -O1 -g1 -pthread -Icsrc \
      $3 -fsanitize="$1" -fno-sanitize-recover=all -fno-omit-frame-pointer \
      -c {} -o "$object"' sh "$1" "$2" "$warnings"
}

run() { # sanitizers, folder
  objects=$(for source in $sources; do echo "$2/$(echo "$source" | tr / _).o"; done)
  for test in tests/native/*.cpp; do
    program=$2/$(basename "$test" .cpp)
    ${CXX:-c++} -fsanitize="$1" -pthread -o "$program" \
      "$2/tests_native_$(basename "$test").o" $objects -ldl
    timeout 100 "$program"
  done
}

export TSAN_OPTIONS="halt_on_error=1" UBSAN_OPTIONS="print_stacktrace=1"
for sanitizer in "$@"; do
  case $sanitizer in
    thread) flags=thread ;;
    address) flags=address,undefined ;;
    *) echo "run.sh: unknown sanitizer '$sanitizer'; use thread or address" >&2; exit 2 ;;
  esac
  echo "-- $flags"
  build "$flags" "build/native/$sanitizer"
  run "$flags" "build/native/$sanitizer"
done
