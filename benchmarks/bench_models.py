"""`bench models`: whole models under the three policies, against what a user would write today.

Closed loop: every tenant keeps requests under way, so a server shows what it can do. Open loop:
Poisson arrivals at loads that time-only can and cannot bear, so it shows whom it serves in time.
All servers of a row are open at once, in a process each, and measured in turn, A B C A B C.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.booth import BASELINES, POLICIES, Booth, Keeper
from spacetime.benchmarks.driving.calls import timed_ns
from spacetime.benchmarks.driving.interleave import SETTLE_S, turned
from spacetime.benchmarks.driving.loads import LoadOutcome
from spacetime.benchmarks.driving.processes import preload
from spacetime.benchmarks.driving.servers import scripted
from spacetime.benchmarks.gpu import models as device_models
from spacetime.demo.zoo import exhibits as zoo
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.terminal.progress import track
from spacetime.units import ms_from_ns, ns_from_ms

TENANTS = (2, 4, 8, 16)
OPEN_TENANTS = 8
LOADS = (0.5, 1.0, 2.0)  # of what time-only answers in the closed loop
LANES_MODEL, LANES_TENANTS = "resnet", 4  # compute-bound: one one-core lane against one a core
OUTSTANDING = 4  # requests each tenant keeps under way in the closed loop
SLO_MS, SLO_FACTOR = 10.0, 10.0  # the objective: at least so much, and so many latencies alone
TOLERANCE = 0.97  # a server this close to the best has not lost: noise of the machine
SERVERS = (*POLICIES, *BASELINES)
QUICK_SERVERS = (*POLICIES, "threads, TorchScript")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoopEffort:
    """Seconds of one measurement, how many of them, and the seed of everything drawn."""

    seconds: float
    repetitions: int
    seed: int


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    models: Sequence[str] | None = None,
    tenants: Sequence[int] | None = None,
    seconds: float = 0.5,
    repetitions: int = 3,
    seed: int = 0,
    device: str = "cpu",
    dtypes: Sequence[str] | None = None,
    budget_s: float | None = None,
    compiled: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Measures every server for every model and R; prints tables, writes JSON and a picture to out.

    seconds: of one measurement, of which each server of a closed loop gets `repetitions`.
    quick: one model, two tenants, four servers, one load, instants: to see that it works.
    device, dtypes, budget_s, compiled, dry_run: those of `benchmarks.gpu.models`, for a CUDA
    device.
    """
    if device != "cpu":
        return device_models.run(
            device=device, quick=quick, out=out, as_json=as_json, models=models, tenants=tenants,
            dtypes=dtypes, budget_s=budget_s, compiled=compiled, seed=seed, dry_run=dry_run,
        )  # fmt: skip
    effort = LoopEffort(0.1, 1, seed) if quick else LoopEffort(seconds, repetitions, seed)
    record.known("models", models or (), zoo.KINDS)
    kinds = tuple(models or (("digits",) if quick else zoo.KINDS))
    counts = tuple(tenants or ((2,) if quick else TENANTS))
    named = {"models": models, "tenants": tenants}
    result = record.header("models", seed=seed, quick=quick, chosen=named)
    preload(
        ["spacetime.demo.zoo.digits"]
        + ["spacetime.demo.zoo.photographs"] * (set(kinds) != {"digits"})
    )
    rows: list[Row] = []
    for kind in track(kinds, "bench models", quiet=as_json):
        first = next(iter(zoo.load(kind, 1, seed=seed)))
        with booths(QUICK_SERVERS if quick else SERVERS, first, seed) as opened:
            for count in sorted(counts):
                opens = count == min(OPEN_TENANTS, max(counts))
                loads = LOADS[1:2] if quick and opens else LOADS if opens else ()
                rows += rows_of(
                    {"model": kind, "tenants": count}, opened, _slo_ms(first), loads, effort
                )
        if kind == LANES_MODEL:
            rows.append(_lanes_row(kind, first, effort))
    result |= {"rows": rows, "summary": _summary(rows)}
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="models")
    return result


@contextmanager
def booths(names: Sequence[str], first: ZooModel, seed: int) -> Iterator[dict[str, Booth]]:
    """Yields a booth for each name; they end with the block."""
    with ExitStack() as stack:
        opened = {}
        for name in names:
            opened[name] = Booth(name, first, seed)
            stack.callback(opened[name].kill)  # where it ends early, such as by Ctrl-C
        yield opened
        for booth in opened.values():
            booth.close()


def rows_of(
    setting: Row,
    opened: Mapping[str, Booth],
    slo_ms: float,
    loads: Sequence[float],
    effort: LoopEffort,
) -> list[Row]:
    """Measures one model and R: returns the closed loop's row, and the open loop's at each load."""
    tenants = setting["tenants"]
    grown = {
        server: booth.ask(partial(Keeper.grow, tenants=tenants)) for server, booth in opened.items()
    }
    refused = {server: reason for server, reason in grown.items() if reason is not None}
    able = {server: booth for server, booth in opened.items() if server not in refused}
    outcomes = _in_turn(able, effort.repetitions, _closed(tenants, effort))
    closed = {**setting, "loop": "closed", **_throughputs(outcomes), "refused": refused}
    rows = [{**closed, "how": opened["space-time"].ask(Keeper.how)}]
    alone_rps = closed["throughput_rps"]["time-only"]
    for load in loads if alone_rps else ():  # there is no load in parts of nothing
        rate_rps = load * alone_rps
        rates = {"load": load, "rate_rps": rate_rps, "slo_ms": slo_ms}
        rows.append({**setting, "loop": "open", **rates, **_open(tenants, able, rates, effort)})
    return rows


def _closed(tenants: int, effort: LoopEffort) -> Callable[[Keeper], LoadOutcome]:
    return partial(
        Keeper.closed_loop, tenants=tenants, outstanding=OUTSTANDING, seconds=effort.seconds
    )


def _in_turn(
    opened: Mapping[str, Booth], repetitions: int, order: Callable[[Keeper], LoadOutcome]
) -> dict[str, list[LoadOutcome]]:
    """Returns each server's outcomes, one a repetition; the order turns by one each time."""
    outcomes: dict[str, list[LoadOutcome]] = {name: [] for name in opened}
    for repetition in range(repetitions):
        for name in turned([*opened], repetition):
            time.sleep(SETTLE_S)
            outcomes[name].append(opened[name].ask(order))
    return outcomes


def _throughputs(outcomes: Mapping[str, Sequence[LoadOutcome]]) -> Row:
    rates_rps = {name: [o.throughput_rps for o in runs] for name, runs in outcomes.items()}
    speedups = {name: _speedup(rates_rps["space-time"], rps) for name, rps in rates_rps.items()}
    speedups.pop("space-time")
    hardest = min(speedups, key=speedups.__getitem__)
    return {
        "throughput_rps": {name: median(rps) for name, rps in rates_rps.items()},
        "p99_ms": {
            name: _median(o.percentile_ms(99) for o in runs) for name, runs in outcomes.items()
        },
        "speedup": speedups,
        "hardest": hardest,
        "lost": speedups[hardest] < TOLERANCE,
    }


def _speedup(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns the median factor over repetitions; no answer at all counts as one a second."""
    return median(a / max(b, 1.0) for a, b in zip(ours, theirs, strict=True))


def _median(values: Iterator[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


def _open(
    tenants: int, opened: Mapping[str, Booth], rates: Mapping[str, float], effort: LoopEffort
) -> Row:
    """Returns goodput, attainment and p99 of every server at one rate."""
    order = partial(
        Keeper.open_loop,
        tenants=tenants,
        rate_rps=rates["rate_rps"],
        slo_ns=ns_from_ms(rates["slo_ms"]),
        seconds=2 * effort.seconds,
        seed=effort.seed,
    )
    outcomes = {name: runs[0] for name, runs in _in_turn(opened, 1, order).items()}
    goodput = {name: outcome.goodput_rps for name, outcome in outcomes.items()}
    best = max(goodput, key=goodput.__getitem__)
    return {
        "goodput_rps": goodput,
        "attainment": {name: o.goodput_rps * o.seconds / o.offered for name, o in outcomes.items()},
        "p99_ms": {name: outcome.percentile_ms(99) for name, outcome in outcomes.items()},
        "best": best,
        "lost": goodput["space-time"] < TOLERANCE * goodput[best],
    }


def _lanes_row(kind: str, first: ZooModel, effort: LoopEffort) -> Row:
    """Measures one one-core lane beside one on every core: what space alone can give."""
    with booths(("one one-core lane", "space-only"), first, effort.seed) as opened:
        for booth in opened.values():
            booth.ask(partial(Keeper.grow, tenants=LANES_TENANTS))
        outcomes = _in_turn(opened, effort.repetitions, _closed(LANES_TENANTS, effort))
    one_rps, all_rps = ([o.throughput_rps for o in runs] for runs in outcomes.values())
    return {
        "model": kind,
        "tenants": LANES_TENANTS,
        "loop": "lanes",
        "throughput_rps": {
            "one one-core lane": median(one_rps),
            "one for each core": median(all_rps),
        },
        "scaling": _speedup(all_rps, one_rps),
    }


def _slo_ms(first: ZooModel) -> float:
    """Returns the objective: some latencies of the model alone on all cores, as TorchScript."""
    x = first.pool[:1]
    call = scripted(first.model, x)
    with torch.no_grad():
        times_ns = timed_ns(partial(call, x), 20)
    return max(SLO_MS, SLO_FACTOR * ms_from_ns(min(times_ns)))


def _summary(rows: Sequence[Row]) -> Row:
    closed = [row for row in rows if row["loop"] == "closed"]
    opened = [row for row in rows if row["loop"] == "open"]
    return {
        "speedup": {
            name: record.geometric_mean(r["speedup"][name] for r in closed if name in r["speedup"])
            for name in SERVERS
            if name != "space-time"
        },
        "closed_lost": sum(row["lost"] for row in closed),
        "closed": len(closed),
        "open_lost": sum(row["lost"] for row in opened),
        "open": len(opened),
    }


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    rows, summary = result["rows"], result["summary"]
    closed = [row for row in rows if row["loop"] == "closed"]
    servers = _measured(closed)
    yield record.table(
        f"closed loop, answers/s, {OUTSTANDING} requests a tenant under way; "
        f"{result['cores']} cores, {result['cpu']}",
        ("model", "R", *map(_head, servers), "over best other", "best other"),
        [
            (
                row["model"],
                row["tenants"],
                *(row["throughput_rps"].get(name) for name in servers),
                f"x{row['speedup'][row['hardest']]:.2f}{' LOST' * row['lost']}",
                row["hardest"],
            )
            for row in closed
        ],
    )
    means = [f"{name}: x{mean:.2f}" for name, mean in summary["speedup"].items() if mean]
    yield f"space-time's throughput over each, geometric means: {'; '.join(means)}"
    yield from _open_table([row for row in rows if row["loop"] == "open"], servers)
    for row in rows:
        if row["loop"] == "lanes":
            rates = ", ".join(f"{n} {rate:.0f}/s" for n, rate in row["throughput_rps"].items())
            yield f"lanes of {row['model']}: {rates}: x{row['scaling']:.2f}"
    lost = f"{summary['closed_lost']} of {summary['closed']} closed rows"
    yield f"space-time lost {lost}, {summary['open_lost']} of {summary['open']} open rows"


def _measured(rows: Sequence[Row]) -> Sequence[str]:
    """Returns the servers that some row has measured."""
    return [name for name in SERVERS if any(name in row["throughput_rps"] for row in rows)]


def _head(server: str) -> str:
    return server.replace(", ", "\n").replace(" ", "\n")


def _open_table(rows: Sequence[Row], servers: Sequence[str]) -> Iterator[Any]:
    settings = ("model", "R", "load", "offered, requests/s", "SLO ms")
    named = [
        (row["model"], row["tenants"], row["load"], row["rate_rps"], row["slo_ms"]) for row in rows
    ]
    if rows:
        yield record.table(
            "open loop, answers within the SLO a second; load in parts of time-only's closed loop",
            (*settings, *map(_head, servers), "best"),
            [
                (*name, *(row["goodput_rps"].get(s) for s in servers), _best(row))
                for name, row in zip(named, rows, strict=True)
            ],
        )
        yield record.table(
            "open loop, 99th percentile of latency in ms, of what was answered",
            (*settings, *map(_head, servers)),
            [
                (*name, *(row["p99_ms"].get(s) for s in servers))
                for name, row in zip(named, rows, strict=True)
            ],
        )


def _best(row: Row) -> str:
    return f"{row['best']}{' LOST' * row['lost']}"
