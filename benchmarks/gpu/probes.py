"""Questions that only a device answers, each in a process of its own: what one breaks stays there.

python -m spacetime.benchmarks.gpu.probes [--out FILE] [--quick] [--only NAME ...]
Exit status 0 when every probe answered, 3 where there is no device, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spacetime.benchmarks.gpu.questions import QUESTIONS

FORMAT = "spacetime.probes/1"
NO_DEVICE = 3  # exit status of a probe, and of the whole, where there is no device
TIMEOUT_S = 60
# Read by the driver when a process first uses the device.
ENVIRONMENTS = {
    "queues_8": {"CUDA_DEVICE_MAX_CONNECTIONS": "8"},
    "queues_32": {"CUDA_DEVICE_MAX_CONNECTIONS": "32"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks every question, or answers one where called with --one."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.gpu.probes")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", action="append", choices=[*QUESTIONS], help="may be repeated")
    parser.add_argument("--one", choices=[*QUESTIONS], help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one:
        return _answer(asked.one, quick=asked.quick)
    answers: dict[str, Any] = {}
    for name in asked.only or QUESTIONS:
        answers[name] = ask(name, quick=asked.quick)
        told = answers[name]
        print(f"{name:<12} {told['status']:<10} {told['seconds']:5.1f} s  {told.get('error', '')}")
        if told["status"] == "no device":
            break  # the others would say the same
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "quick": asked.quick, "probes": answers}
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return status_of(answers)


def status_of(answers: Mapping[str, Mapping[str, Any]]) -> int:
    """The exit status that tells of these answers."""
    found = {answer["status"] for answer in answers.values()}
    if "no device" in found:
        return NO_DEVICE
    return 0 if found == {"ok"} else 1


def ask(name: str, *, quick: bool, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """One question in a fresh process: `status` ok, failed, timeout or no device, and why."""
    command = [sys.executable, "-m", "spacetime.benchmarks.gpu.probes", "--one", name]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *["--quick"] * quick],
            capture_output=True, text=True, check=False, timeout=timeout_s,
            env=os.environ | ENVIRONMENTS.get(name, {}),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "seconds": timeout_s, "error": f"none in {timeout_s:g} s"}
    seconds = time.monotonic() - begin
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0:
        return {"status": "ok", "seconds": seconds, "answer": json.loads(last)}
    status = "no device" if done.returncode == NO_DEVICE else "failed"
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"status": status, "seconds": seconds, "error": reason}


def _answer(name: str, *, quick: bool) -> int:
    """In the fresh process: the answer as the last line of output."""
    try:
        opened = QUESTIONS[name].device()
    except OSError as error:  # libcuda.so.1 is not here
        print(f"no driver: {error}", file=sys.stderr)
        return NO_DEVICE
    except RuntimeError as error:  # the driver is here and finds nothing to drive
        print(f"no device: {error}", file=sys.stderr)
        return NO_DEVICE
    print(json.dumps(QUESTIONS[name].ask(opened, quick=quick)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
