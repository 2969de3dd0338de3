"""`bench proc`: what a lane in a process of its own costs beside a lane that is a thread.

The same model, which only adds one, called one request at a time through both kinds of lanes in
turn, in wall and CPU time; what waking another process and being woken takes by itself, in the same
rounds; then how long a process takes to start, and to be back after it was killed under load.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spacetime._native as _native
from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import percentile, timed_ns
from spacetime.processes.area import Area
from spacetime.session.session import Session

GOAL_US = 50.0  # added to a request's median
ADDED_GOAL = {"24 bytes": GOAL_US}  # what is copied four times is not dispatching
WOKEN = "wake-ups"  # of two processes that do nothing else
ANSWERS = """
import sys
import spacetime._native as _native
mailbox = _native.Mailbox(int(sys.argv[1]))
while mailbox.next():
    mailbox.answer()
"""
SHAPES = {"24 bytes": (1, 6), "600 KB": (1, 3, 224, 224)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcSize:
    """How much is measured: rounds, and requests of each way in a round."""

    rounds: int
    requests: int


FULL = ProcSize(rounds=20, requests=500)
QUICK = ProcSize(rounds=2, requests=50)


class AddOne(nn.Module):
    """Costs next to nothing, so that what is measured is the way there and back."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Measures everything, prints and records it. `seed` is recorded only: nothing is drawn."""
    size = QUICK if quick else FULL
    begin = time.perf_counter()
    with (
        Session("cpu", lanes=1, isolation="process") as apart,
        Session("cpu", lanes=1) as together,
    ):
        started_s = time.perf_counter() - begin
        rows = [row for name in SHAPES for row in latencies(name, together, apart, size)]
        back_s = recovery_s(apart)
    result = record.header("proc", seed=seed, quick=quick, chosen={})
    result |= {"size": asdict(size), "rows": rows, "start_s": started_s, "back_s": back_s}
    record.publish(result, [shown(result)], out=out, as_json=as_json, plots=None)
    return result


def latencies(name: str, together: Session, apart: Session, size: ProcSize) -> list[dict[str, Any]]:
    """Returns rows of bare wake-ups and of each kind of lane, and what a process adds to a thread.

    name: of an input in SHAPES. together, apart: sessions whose lane is a thread, and a process.
    """
    x = torch.zeros(SHAPES[name])
    (pid,) = apart.lane_pids
    assert pid is not None
    with answering() as mailbox:
        ways: dict[str, tuple[Callable[[], object], Sequence[int]]] = {WOKEN: (mailbox.call, [])}
        for way, session, others in (("thread", together, []), ("process", apart, [pid])):
            tenant = session.add(AddOne().eval(), example_inputs=(x,), name=name)
            ways[way] = (partial(tenant, x), others)
        took: dict[str, list[int]] = {way: [] for way in ways}
        busy = dict.fromkeys(ways, 0)
        for round_ in range(size.rounds):
            for way in sorted(ways, reverse=bool(round_ % 2)):
                call, pids = ways[way]
                before = cpu_ns(pids)
                took[way] += timed_ns(call, size.requests)
                busy[way] += cpu_ns(pids) - before
    rows = {way: row(way, name, took[way], busy[way]) for way in ways}
    del rows[WOKEN]["cpu_us"]  # of this side only
    added = rows["process"]["p50_us"] - rows["thread"]["p50_us"]
    met = name not in ADDED_GOAL or added <= ADDED_GOAL[name]
    rows["process"] |= {"added_p50_us": added, "goal_met": met}
    return [*rows.values()]


def row(way: str, name: str, nanoseconds: list[int], busy_ns: int) -> dict[str, Any]:
    """Returns percentiles of the requests' wall time, and the CPU time of one request, in us."""
    ordered = sorted(nanoseconds)
    return {
        "way": way,
        "input": name,
        "p50_us": percentile(ordered, 50) / 1e3,
        "p99_us": percentile(ordered, 99) / 1e3,
        "cpu_us": busy_ns / len(ordered) / 1e3,
    }


def cpu_ns(pids: Sequence[int]) -> int:
    """Returns the CPU time, in ns, of this process and of those with numbers `pids` together.

    Linux has a clock for each process, whose number is made of the process's.
    """
    others = sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)
    return time.process_time_ns() + others


@contextmanager
def answering() -> Iterator[_native.Mailbox]:
    """Yields a mailbox whose other side, in a process of its own, answers at once."""
    area = Area.new(_native.Mailbox.BYTES)
    mailbox = _native.Mailbox(area.fd)
    command = [sys.executable, "-c", ANSWERS, str(area.fd)]
    with subprocess.Popen(command, pass_fds=[area.fd]) as other:
        try:
            mailbox.call()  # it has started
            yield mailbox
        finally:
            other.kill()
            area.close()


def recovery_s(session: Session) -> float:
    """Returns the seconds from killing the lane's process to the answers of all that waited."""
    tenant = session.tenants["24 bytes"]
    (pid,) = session.lane_pids
    assert pid is not None
    begin = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    wait([tenant.submit(torch.zeros(1, 6)) for _ in range(100)])
    return time.perf_counter() - begin


def shown(result: dict[str, Any]) -> Any:
    """Returns the table, with the goal beside what was measured."""
    heads = ["lane", "input", "p50 us", "p99 us", "CPU us a request", "added p50 us", "goal"]
    lines = []
    for measured in result["rows"]:
        goal = None
        if "added_p50_us" in measured and measured["input"] in ADDED_GOAL:
            goal = f"<= {GOAL_US:g}: {'met' if measured['goal_met'] else 'NOT met'}"
        columns = ("way", "input", "p50_us", "p99_us", "cpu_us", "added_p50_us")
        lines.append([*map(measured.get, columns), goal])
    table = record.table("lanes in processes: launches that do next to nothing", heads, lines)
    table.caption = (
        f"started in {result['start_s']:.1f} s; 100 requests that waited when the process was "
        f"killed were all answered after {result['back_s']:.1f} s"
    )
    return table
