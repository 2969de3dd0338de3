"""`bench proc`: what a lane in a process of its own costs beside a lane that is a thread.

The same model, which only adds one, called one request at a time through both kinds of lanes in
turn; then how long a process takes to start, and to be back after it was killed under load.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spacetime.benchmarks import record
from spacetime.session import Session

GOAL_US = 50.0  # added to a request's median
ADDED_GOAL = {"24 bytes": GOAL_US}  # what is copied four times is not dispatching
SHAPES = {"24 bytes": (1, 6), "600 KB": (1, 3, 224, 224)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    rounds: int
    requests: int  # of each way in a round


FULL = Size(rounds=20, requests=500)
QUICK = Size(rounds=2, requests=50)


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


def latencies(name: str, together: Session, apart: Session, size: Size) -> list[dict[str, Any]]:
    """A row for each kind of lane, and what the second adds to the first."""
    x = torch.zeros(SHAPES[name])
    tenants = {
        way: session.add(AddOne().eval(), example_inputs=(x,), name=name)
        for way, session in (("thread", together), ("process", apart))
    }
    took: dict[str, list[int]] = {way: [] for way in tenants}
    for round_ in range(size.rounds):
        for way in sorted(tenants, reverse=bool(round_ % 2)):
            for _ in range(size.requests):
                before = time.perf_counter_ns()
                tenants[way](x)
                took[way].append(time.perf_counter_ns() - before)
    rows: list[dict[str, Any]] = []
    for way, nanoseconds in took.items():
        nanoseconds.sort()
        last = len(nanoseconds) - 1
        rows.append({
            "way": way, "input": name,
            "p50_us": nanoseconds[last // 2] / 1e3, "p99_us": nanoseconds[last * 99 // 100] / 1e3,
        })  # fmt: skip
    added = rows[1]["p50_us"] - rows[0]["p50_us"]
    met = name not in ADDED_GOAL or added <= ADDED_GOAL[name]
    return [rows[0], rows[1] | {"added_p50_us": added, "goal_met": met}]


def recovery_s(session: Session) -> float:
    """From killing the lane's process, with requests waiting, to the last one's answer."""
    tenant = session.tenants["24 bytes"]
    (pid,) = session.lane_pids
    assert pid is not None
    begin = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    wait([tenant.submit(torch.zeros(1, 6)) for _ in range(100)])
    return time.perf_counter() - begin


def shown(result: dict[str, Any]) -> Any:
    """The table, with the goal beside what was measured."""
    heads = ["lane", "input", "p50 us", "p99 us", "added p50 us", "goal"]
    lines = []
    for row in result["rows"]:
        goal = None
        if "added_p50_us" in row and row["input"] in ADDED_GOAL:
            goal = f"<= {GOAL_US:g}: {'met' if row['goal_met'] else 'NOT met'}"
        lines.append([*(row[k] for k in ("way", "input", "p50_us", "p99_us")),
                      row.get("added_p50_us"), goal])  # fmt: skip
    made = record.table("lanes in processes: launches that do next to nothing", heads, lines)
    made.caption = (
        f"started in {result['start_s']:.1f} s; 100 requests that waited when the process was "
        f"killed were all answered after {result['back_s']:.1f} s"
    )
    return made
