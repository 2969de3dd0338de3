"""`bench goodput`: R real models behind our server, Triton's and LitServe's; who answers in time?

Half of the tenants are small vision transformers, half small ResNets, with the same weights
everywhere, and every server's answers are compared with the models' own before it is measured.
Open loop: Poisson arrivals of all tenants, the same for every server, from 0.2 to 2 times what
ours answers in a closed loop; the client is a process of its own, latency counts from the instant
a request was due. All servers are up and are asked in turn, the others' processes being stopped
meanwhile. Each has torch on one thread a worker or instance (ours: a lane a core), may batch up to
16, and drops what waited too long: ours is told an objective of 30 of the 50 ms (of 30, 40 and 50
the best), the others a bound of 25 ms on waiting (Triton's best of 12, 25 and 40). Triton comes
from the wheel nvidia-pytriton (--triton FOLDER, as in `bench serving`); a server that is not there
is left out, and the record says so.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.interleave import turned
from spacetime.benchmarks.driving.loads import schedule
from spacetime.benchmarks.driving.server_process import triton_wheel
from spacetime.benchmarks.goodput import servers as goodput_servers
from spacetime.benchmarks.goodput.models import (
    KINDS,
    LARGEST_BATCH,
    SLO_MS,
    TOLD_MS,
    GoodputTenant,
    saved,
)
from spacetime.benchmarks.goodput.servers import WAIT_MS, RunningServer
from spacetime.benchmarks.serving.ways import has_litserve
from spacetime.errors import SpacetimeError
from spacetime.terminal.progress import track
from spacetime.units import ns_from_ms

TENANTS = (4, 8)
NAMES = ("spacetime", "triton", "litserve")
OK = 200
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GoodputSize:
    """Loads in parts of our capacity; rounds and seconds of each server at each load."""

    loads: Sequence[float]
    rounds: int
    seconds: float
    each: int = 8  # connections of a tenant in the closed loop that finds our capacity
    patience_s: float = 1.0  # for answers after the last request


FULL = GoodputSize(loads=(0.2, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0), rounds=3, seconds=2.0)
QUICK = GoodputSize(loads=(0.5, 2.0), rounds=1, seconds=0.3)


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    seed: int = 0,
    triton: str = "",
    tenants: Sequence[int] | None = None,
    servers: Sequence[str] | None = None,
) -> Row:
    """Measures, prints and records. seed: of the weights and the arrivals.

    servers: of NAMES, beside ours; None is all.
    """
    size = QUICK if quick else FULL
    wheel, names = triton_wheel(triton), _names(servers)
    fleets = [
        fleet(count, names, wheel, size, seed, quiet=as_json)
        for count in tenants or (TENANTS[:1] if quick else TENANTS)
    ]
    chosen = {"tenants": tenants, "servers": servers}
    result = record.header("goodput", seed=seed, quick=quick, chosen=chosen)
    result |= {
        **asdict(size), "kinds": KINDS, "slo_ms": SLO_MS, "told_ms": TOLD_MS, "wait_ms": WAIT_MS,
        "largest_batch": LARGEST_BATCH, "fleets": fleets,
    }  # fmt: skip
    record.publish(result, shown(result), out=out, as_json=as_json, plots="goodput")
    return result


def _names(servers: Sequence[str] | None) -> Sequence[str]:
    record.known("servers", servers or (), NAMES)
    return [name for name in NAMES if not servers or name in {NAMES[0], *servers}]


def fleet(
    tenants: int,
    names: Sequence[str],
    wheel: Path | None,
    size: GoodputSize,
    seed: int,
    *,
    quiet: bool,
) -> Row:
    """Measures the named servers with so many tenants.

    Returns our capacity, what each server uses idle, which are missing and why, and the rows.
    """
    missing = {name: "not installed" if name in names else "not asked" for name in NAMES}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        members = saved(Path(folder), tenants, seed=seed)
        up: dict[str, RunningServer] = {}
        for name, server in installed(names, wheel, Path(folder), members).items():
            try:
                up[name] = stack.enter_context(server)
            except RuntimeError as reason:  # noqa: PERF203 - three servers, not a hot loop
                missing[name] = str(reason)
            else:
                del missing[name]
        if NAMES[0] in missing:
            raise SpacetimeError(missing[NAMES[0]])
        idle = idle_cores(up)
        capacity_rps = capacity(up, size)
        rows: list[Row] = []
        for load in track(size.loads, f"bench goodput, R = {tenants}", quiet=quiet):
            rows += measured(up, load, capacity_rps, size, seed)
    return {
        "tenants": tenants, "capacity_rps": capacity_rps, "idle_cores": idle,
        "missing": missing, "rows": rows,
    }  # fmt: skip


def installed(
    names: Sequence[str], wheel: Path | None, folder: Path, members: Sequence[GoodputTenant]
) -> dict[str, AbstractContextManager[RunningServer]]:
    """Returns those of the named servers that are installed, not started yet."""
    servers: dict[str, AbstractContextManager[RunningServer]] = {}
    servers["spacetime"] = goodput_servers.ours(folder, members)
    if wheel is not None:
        servers["triton"] = goodput_servers.triton(wheel, folder, members)
    if has_litserve():
        servers["litserve"] = goodput_servers.litserve(folder, members)
    return {name: server for name, server in servers.items() if name in names}


def idle_cores(up: Mapping[str, RunningServer], seconds: float = 1.0) -> dict[str, float]:
    """Returns how many cores each server uses while nobody asks."""
    before = {name: running.cpu_s() for name, running in up.items()}
    time.sleep(seconds)
    return {name: (running.cpu_s() - before[name]) / seconds for name, running in up.items()}


def capacity(up: Mapping[str, RunningServer], size: GoodputSize) -> float:
    """Returns how many requests a second ours answers in a closed loop."""
    ours = up[NAMES[0]]
    with ours.alone(up.values()):
        for seconds in (0.3, 2 * size.seconds):  # the first is to warm up
            report = asked(ours, {"each": size.each, "seconds": seconds})
    return float(report["answered"]) / (2 * size.seconds)


def measured(
    up: Mapping[str, RunningServer], load: float, capacity_rps: float, size: GoodputSize, seed: int
) -> Iterator[Row]:
    """Yields a row for each server, of all rounds together; who begins changes with the round."""
    names, seen = list(up), {name: list[Row]() for name in up}
    for turn in range(size.rounds):
        tenants = len(up[names[0]].ways)
        arrivals = schedule(
            tenants, load * capacity_rps, ns_from_ms(SLO_MS), size.seconds, seed + turn
        )
        order = {
            "due_ns": [arrival.time_ns for arrival in arrivals],
            "tenants": [arrival.tenant for arrival in arrivals],
            "patience_s": size.patience_s,
        }
        for name in turned(names, turn):
            seen[name].append(asked_alone(up, name, order))
    for name, rounds in seen.items():
        yield {"server": name, "load": load, **summary(rounds, size.seconds)}


def asked_alone(up: Mapping[str, RunningServer], name: str, order: Row) -> Row:
    """Returns what the client says of one server, and the CPU seconds the server used."""
    running = up[name]
    with running.alone(up.values()):
        before = running.cpu_s()
        return asked(running, order) | {"cpu_s": running.cpu_s() - before}


def asked(running: RunningServer, order: Row) -> Row:
    """Returns what a client process says of the load it was ordered."""
    wires = [base64.b64encode(way.wire()).decode() for way in running.ways]
    full = order | {"port": running.ways[0].port, "wires": wires}
    command = [sys.executable, "-m", "spacetime.benchmarks.goodput.client"]
    done = subprocess.run(
        command, input=json.dumps(full), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SpacetimeError(f"the client failed: {done.stderr.splitlines()[-1:]}")
    report: Row = json.loads(done.stdout)
    return report


def summary(rounds: Sequence[Row], seconds: float) -> Row:
    """Returns one server's rounds at one load: how many ended how, rates, percentiles in ms."""
    statuses = np.concatenate([part["statuses"] for part in rounds])
    took_ms = np.concatenate([part["latencies_ns"] for part in rounds]) / 1e6
    late_ms = np.concatenate([part["late_ns"] for part in rounds]) / 1e6
    answered, total_s = statuses == OK, seconds * len(rounds)
    good = answered & (took_ms <= SLO_MS)
    some = bool(answered.any())
    return {
        "offered": len(statuses), "offered_rps": len(statuses) / total_s,
        "goodput_rps": int(good.sum()) / total_s, "goodput_of_rounds": [
            _good(part) / seconds for part in rounds
        ],
        "in_time": int(good.sum()), "late": int((answered & ~good).sum()),
        "refused": int((~answered & (statuses > 0)).sum()),
        "unanswered": int((statuses == 0).sum()),
        "p50_ms": float(np.percentile(took_ms[answered], 50)) if some else None,
        "p99_ms": float(np.percentile(took_ms[answered], 99)) if some else None,
        "client_late_p99_ms": float(np.percentile(late_ms, 99)),
        "cpu_cores": sum(part["cpu_s"] for part in rounds) / total_s,
        "cpu_ms": 1e3 * sum(part["cpu_s"] for part in rounds) / max(1, int(answered.sum())),
    }  # fmt: skip


def _good(part: Row) -> int:
    """Returns how many requests of a round were answered in time."""
    pairs = zip(part["statuses"], part["latencies_ns"], strict=True)
    return sum(status == OK and ns <= SLO_MS * 1e6 for status, ns in pairs)


def shown(result: Row) -> Iterator[Any]:
    """Yields a table for each number of tenants, and which servers are missing."""
    heads = [
        "server", "load", "offered, requests/s", "in time, answers/s", "p50 ms", "p99 ms", "late",
        "refused", "unanswered", "CPU ms an answer", "client late, p99 ms",
    ]  # fmt: skip
    keys = ["server", "load", "offered_rps", "goodput_rps", "p50_ms", "p99_ms", "late", "refused",
            "unanswered", "cpu_ms", "client_late_p99_ms"]  # fmt: skip
    for fleet in result["fleets"]:
        rows = sorted(fleet["rows"], key=lambda row: NAMES.index(row["server"]))
        yield record.table(
            f"goodput: R = {fleet['tenants']}, objective {result['slo_ms']:g} ms, "
            f"load 1 = {fleet['capacity_rps']:.0f} requests/s",
            heads, [[row[key] for key in keys] for row in rows],
        )  # fmt: skip
        idle = ", ".join(f"{name} {cores:.2f}" for name, cores in fleet["idle_cores"].items())
        yield f"idle CPU, cores: {idle}"
        yield from (f"{name}: {why}" for name, why in fleet["missing"].items())
