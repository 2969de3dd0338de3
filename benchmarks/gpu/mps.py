"""A process for each tenant, with and without MPS: what a user without this runtime would deploy.

python -m spacetime.benchmarks.gpu.mps --out FILE [--quick] [--dry-run]
MPS gets a daemon of its own in a temporary folder, which is ended again; nothing of the machine is
changed. Exit status 3 where there is no device, 4 where there is no MPS and all else was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spacetime.benchmarks.gpu.rig import precision, rig_of
from spacetime.benchmarks.gpu.ways import SERIAL, baselines, case_of
from spacetime.benchmarks.problems import PROBLEMS
from spacetime.errors import UnsupportedError

NO_DEVICE, NO_MPS = 3, 4
CONTROL = "nvidia-cuda-mps-control"
AT_ONCE = 20  # launches a worker enqueues before it waits
Environment = Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a line for each row, writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.gpu.mps")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="CPU tensors")
    parser.add_argument("--problem", choices=PROBLEMS, default="conv2_2")
    parser.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        return _work(asked)
    if not (asked.dry_run or torch.cuda.is_available()):  # asks without taking a context
        print(f"no device: torch {torch.__version__} finds none", file=sys.stderr)
        return NO_DEVICE
    rows, reason = _rows(asked)
    for row in rows:
        print(f"{row['way']}, R={row['tenants']}: {row['tflops']:.3g} TFLOP/s")
    print(f"MPS: {reason or 'measured'}")
    if asked.out is not None:
        record = {"format": "spacetime.bench/1", "topic": "mps", "rows": rows, "mps": reason}
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return NO_MPS if reason else 0


def _rows(asked: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Rows of both ways, and why there is none under MPS."""
    counts = (2,) if asked.quick or asked.dry_run else (2, 8, 16)
    rows = [_row("processes", count, asked, os.environ) for count in counts]
    try:
        with daemon() as environment:
            rows += [_row("processes under MPS", count, asked, environment) for count in counts]
    except UnsupportedError as why:
        return rows, str(why)
    return rows, ""


@contextmanager
def daemon() -> Iterator[Environment]:
    """The environment of clients of a daemon that lives meanwhile, or UnsupportedError."""
    control = shutil.which(CONTROL)
    if control is None:
        raise UnsupportedError(f"{CONTROL} is not on PATH")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        environment = os.environ | {
            "CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe",
            "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log",
        }
        for name in ("pipe", "log"):
            (Path(folder) / name).mkdir()
        begun = subprocess.run(
            [control, "-d"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if begun.returncode:
            said = (begun.stdout + begun.stderr).strip()
            raise UnsupportedError(f"{CONTROL} -d ended with {begun.returncode}: {said}")
        try:
            yield environment
        finally:
            subprocess.run(
                [control], input="quit -t 5\n", env=environment, text=True, check=False, timeout=30,
                capture_output=True,
            )  # fmt: skip


def _row(
    way: str, tenants: int, asked: argparse.Namespace, environment: Environment
) -> dict[str, Any]:
    """The rate of so many processes, all at work in the same seconds."""
    command = [sys.executable, "-m", "spacetime.benchmarks.gpu.mps", "--worker"]
    command += ["--problem", asked.problem, "--dtype", asked.dtype, *["--dry-run"] * asked.dry_run]
    command += ["--seconds", str(asked.seconds)]
    workers = [
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(tenants)
    ]
    try:
        for worker in workers:
            _line(worker)  # ready
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        rates = [float(_line(worker)) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    flop = PROBLEMS[asked.problem].flop
    return {
        "way": way,
        "tenants": tenants,
        "problem": asked.problem,
        "precision": asked.dtype,
        "launches_s": rates,
        "tflops": sum(rates) * flop / 1e12,
    }


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    if not line:
        raise UnsupportedError(f"a process ended with {worker.wait()} before it was measured")
    return line


def _work(asked: argparse.Namespace) -> int:
    """In a process: launches one tenant's layer for some seconds; prints launches a second."""
    rig = rig_of("cuda:0", dry_run=asked.dry_run)
    with rig.current(), precision(asked.dtype) as dtype:
        case = case_of(PROBLEMS[asked.problem], 1, asked.dtype, dtype, rig, seed=os.getpid())
        launch = dict(baselines(case, compiled=False))[SERIAL]()
        print("ready", flush=True)
        sys.stdin.readline()
        begin, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < asked.seconds:
            for _ in range(AT_ONCE):
                launch()
            rig.finish()
            count += AT_ONCE
    print(count / elapsed, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
