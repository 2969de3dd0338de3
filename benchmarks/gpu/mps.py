"""A process for each tenant, with and without MPS: what a user without this runtime would deploy.

python -m spacetime.benchmarks.gpu.mps --out FILE [--dry-run]
Without MPS the driver runs the processes in turn, which is the paper's time-only; MPS is its
space-only. The daemon is this process's own child, in the foreground, and ends with it, also on
SIGTERM. The file is rewritten after each row. Exit status 3 where there is no device, 4 where there
is no MPS and all else was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.benchmarks.gpu.names import LOOP, PROCESSES, SERIAL, STANDS_FOR, UNDER_MPS
from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation.mps import daemon
from spacetime.isolation.mps_control import PROGRAM

NO_DEVICE, NO_MPS = 3, 4
TENANTS = 8  # processes: each takes a context, and seconds to start
AT_ONCE = 20  # launches a worker enqueues before it waits
LAUNCHED = {"eager": LOOP, "captured": SERIAL}
Row = dict[str, Any]


class NoDevice(UnsupportedError):
    """A worker found none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a line for each row, writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.gpu.mps")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--dry-run", action="store_true", help="CPU tensors")
    parser.add_argument("--problem", default="conv2_2", help="of `bench flops`")
    parser.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--tenants", type=int, default=TENANTS, help="processes")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each row")
    parser.add_argument("--control", default=PROGRAM, help="the control program of MPS")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        return _work(asked)
    record = {"format": "spacetime.bench/1", "topic": "mps", "unreal": asked.dry_run}
    record |= {"baselines": {way: STANDS_FOR[way] for way in (PROCESSES, UNDER_MPS)}}
    record |= {"rows": [], "mps": "not measured"}

    def tell(row: Row | None = None) -> None:
        if row is not None:
            record["rows"].append(row)
        if asked.out is not None:
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            replace_text(asked.out, json.dumps(record, indent=1) + "\n")
        if row is not None:  # what was said is written
            rates = f"{row['way']}, {row['launched']}, R={row['tenants']}"
            print(f"{rates}: {row['tflops']:.3g} TFLOP/s", flush=True)

    # Ended in order, so that no worker and no daemon outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        record["mps"] = _measure(asked, tell)
    except NoDevice as why:
        print(why, file=sys.stderr)
        return NO_DEVICE
    tell()
    print(f"MPS: {record['mps'] or 'measured'}")
    return NO_MPS if record["mps"] else 0


def _measure(asked: argparse.Namespace, tell: Callable[[Row], None]) -> str:
    """Rows of both ways; why there is none under MPS, empty where there are."""
    with ExitStack() as stack:
        # All import at once; which way they run is told to them before they touch the device.
        there = shutil.which(asked.control) is not None
        alone = _Workers(asked, asked.tenants)
        together = _Workers(asked, asked.tenants * there)
        stack.callback(alone.end)
        stack.callback(together.end)
        _rows(alone, PROCESSES, {}, asked, tell)
        alone.end()  # contexts of idle processes would still take their turns
        try:
            control = stack.enter_context(daemon(program=asked.control))
            _rows(together, UNDER_MPS, control.variables, asked, tell)
        except MpsError as why:
            return str(why)
        finally:
            together.end()  # clients go before their daemon
    return ""


def _rows(
    workers: _Workers,
    way: str,
    environment: Mapping[str, str],
    asked: argparse.Namespace,
    tell: Callable[[Row], None],
) -> None:
    flop = float(workers.ask(json.dumps(dict(environment)))[0])
    for launched in LAUNCHED:
        rates = [float(line) for line in workers.ask(launched)]
        row = {"way": way, "launched": launched, "tenants": len(rates), "problem": asked.problem}
        row |= {"precision": asked.dtype, "launches_s": rates, "tflops": sum(rates) * flop / 1e12}
        tell(row)


class _Workers:
    """A process a tenant. end() ends them all."""

    def __init__(self, asked: argparse.Namespace, count: int) -> None:
        command = [sys.executable, "-m", "spacetime.benchmarks.gpu.mps", "--worker"]
        command += ["--problem", asked.problem, "--dtype", asked.dtype]
        command += ["--seconds", str(asked.seconds), *["--dry-run"] * asked.dry_run]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]

    def ask(self, order: str) -> list[str]:
        """Gives all the same order at once; what each answers."""
        for process in self._processes:
            _line(process)  # it is ready for an order
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(order + "\n")
            process.stdin.flush()
        return [_line(process) for process in self._processes]

    def end(self) -> None:
        """Closes their input, which ends them between two orders; kills those that hang."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(2.0)
            process.kill()
            process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        code = process.wait()
        if code == NO_DEVICE:
            raise NoDevice("no device: PyTorch finds none")
        raise UnsupportedError(f"a process ended with {code} before it was measured")
    return line


def _work(asked: argparse.Namespace) -> int:
    """In a process: launches one tenant's layer as ordered; prints launches a second."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started this process ends it
    from spacetime.benchmarks.flops.problems import PROBLEMS  # noqa: PLC0415
    from spacetime.benchmarks.gpu.rig import precision, rig_of  # noqa: PLC0415 - torch
    from spacetime.benchmarks.gpu.ways import baselines, case_of  # noqa: PLC0415

    print("imported", flush=True)
    if not (environment := sys.stdin.readline()):
        return 0
    os.environ.update(json.loads(environment))  # read by the driver when it is initialised
    try:
        rig = rig_of("cuda:0", dry_run=asked.dry_run)
    except UnsupportedError as why:
        print(why, file=sys.stderr)
        return NO_DEVICE
    problem = PROBLEMS[asked.problem]
    with rig.current(), precision(asked.dtype) as dtype:
        case = case_of(problem, 1, asked.dtype, dtype, rig, seed=os.getpid())
        ways = dict(baselines(case, compiled=False))
        launches = {launched: ways[way]() for launched, way in LAUNCHED.items()}
        for launch in launches.values():
            launch()
        rig.finish()
        print(problem.flop, "ready", sep="\n", flush=True)
        while launched := sys.stdin.readline().strip():
            print(
                _rate(launches[launched], rig.finish, asked.seconds), "ready", sep="\n", flush=True
            )
    return 0


def _rate(launch: Callable[[], Any], finish: Callable[[], None], seconds: float) -> float:
    begin, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        for _ in range(AT_ONCE):
            launch()
        finish()
        count += AT_ONCE
    return count / elapsed


if __name__ == "__main__":
    sys.exit(main())
