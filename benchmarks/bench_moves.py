"""`bench moves`: what moving a running session to other plans costs, and what it is worth.

Two tenants on this CPU, open loop; their rates swap in bursts that one core cannot serve. The same
arrivals meet a plan for the mean rates that never changes (*static*), one that is replaced when the
rates do by somebody who knows them (*oracle*), and the *controller*, which sees only what arrives.
A plan for both peaks at once, which is what static provisioning has to be, is asked for too. Models
are measured here first. A violation is a request that was answered late, dropped or refused.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spacetime.benchmarks import record
from spacetime.devices import facts
from spacetime.devices.device import open_device
from spacetime.errors import InfeasibleError
from spacetime.live import profiler
from spacetime.live.controller_thread import Event, LiveController, planning_on_one, summary
from spacetime.live.planned_session import PlannedSession
from spacetime.live.profiler_rig import facts_name
from spacetime.live.run import target
from spacetime.models.loading import LoadedModel
from spacetime.plan import Plan, PlanOptions
from spacetime.plan.controller import ControllerOptions
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_rounds import Rounds
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload.openloop import LEAD_NS, Sent, drive
from spacetime.workload.rate_trace import RateTrace
from spacetime.workload.workload import Arrival, InputSpec, Tenant, Workload

WAYS = ("static", "oracle", "controller")
# The two tenants' rates in turn, as parts of what all cores together answer.
LOAD_PARTS = ((0.1, 0.1), (0.62, 0.05), (0.1, 0.1), (0.05, 0.62))
BATCHES = (1, 2, 4, 8)
SLO_PER_LAUNCH = 10  # objective: this many times the largest batch on one core
HEADROOM = 1.2
PERIOD_S = 0.25
SIDE = 32


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    seed: int = 0,
    ways: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measures the model, drives every way with the same arrivals; prints and records them."""
    record.known("ways", ways or (), WAYS)
    step_s = 1.0 if quick else 8.0
    result = record.header("moves", seed=seed, quick=quick, chosen={"ways": ways})
    models = {f"t{number}": _model(seed + number) for number in range(2)}
    points = _profiles(models["t0"], rounds=1 if quick else 5)
    load, trace = _load(points, models["t0"], step_s=step_s, cycles=1 if quick else 3)
    arrivals = list(_arrivals(trace, seed))
    stage = MovesStage(load, points, models, trace, arrivals)
    rows = [stage.row(way) for way in ways or WAYS]
    peak_rps = [max(rates) for rates in zip(*trace.rates, strict=True)]
    result |= {
        "rates_rps": trace.rates, "step_s": step_s, "slo_ms": load.tenants[0].slo_ms,
        "requests": len(arrivals), "peak_devices": _devices(load.with_rates(peak_rps), points),
        "rows": rows,
    }  # fmt: skip
    record.publish(result, [shown(result)], out=out, as_json=as_json, plots="moves")
    return result


def _model(seed: int) -> LoadedModel:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
    net = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return LoadedModel(net.eval(), tuple((torch.randn(1, 3, SIDE, SIDE),) for _ in range(4)))


def _tenant(name: str, rate_rps: float = 1.0, slo_ms: float = 1000.0) -> Tenant:
    inputs = (InputSpec((1, 3, SIDE, SIDE), "FP32"),)
    return Tenant(name, "convolutions", slo_ms, rate_rps, example_inputs=inputs)


def _profiles(live: LoadedModel, *, rounds: int) -> Profiles:
    device = open_device("cpu")
    cores = len(device.units)
    extent = profiler.Extent(units=tuple(sorted({1, cores})), batches=BATCHES)
    wanted = profiler.settings({"convolutions": (_tenant("t0"), live)}, device, extent)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profiles.csv"
        measured = Rounds.open(path, facts_name(device), "measured", enough=rounds)
        profiler.measure(wanted, device, measured, seen=lambda _: None)
        return measured.profiles()


def _load(
    points: Profiles, live: LoadedModel, *, step_s: float, cycles: int
) -> tuple[Workload, RateTrace]:
    """Returns the workload at its mean rates, and how the rates change."""
    on_one_core = points.batches("convolutions", "cores", 1)
    on_all_cores = points.batches("convolutions", "cores", len(open_device("cpu").units))
    device_rps = max(point.throughput_rps for point in on_all_cores)
    steps = tuple(tuple(part * device_rps for part in parts) for parts in LOAD_PARTS * cycles)
    mean_rps = [sum(rates) / len(steps) for rates in zip(*steps, strict=True)]
    slo_ms = max(50.0, SLO_PER_LAUNCH * on_one_core[-1].latency_ms)
    tenants = (_tenant("t0", mean_rps[0], slo_ms), _tenant("t1", mean_rps[1], slo_ms))
    return Workload(tenants), RateTrace(step_s, steps)


def _arrivals(trace: RateTrace, seed: int) -> Iterator[Arrival]:
    """Yields Poisson arrivals at the rates of each step, in order of time."""
    arrivals: list[Arrival] = []
    for tenant in range(2):
        draw = random.Random(f"moves/{seed}/{tenant}")
        for step, rates in enumerate(trace.rates):
            at = float(step * trace.step_ns)
            while (at := at + draw.expovariate(rates[tenant]) * SECOND) < (
                step + 1
            ) * trace.step_ns:
                arrivals.append(Arrival(round(at), tenant))
    yield from sorted(arrivals)


def _planned(load: Workload, points: Profiles) -> Plan:
    ample = load.with_rates([tenant.rate_rps * HEADROOM for tenant in load.tenants])
    return planning_on_one(points, points.device, PlanOptions())(ample)


def _devices(load: Workload, points: Profiles) -> int | None:
    """Returns how many such devices a plan for these rates needs; None where there is no plan."""
    try:
        plan = planner("spacetime", nodes=100).plan(
            load, points, facts.device(points.device), PlanOptions()
        )
    except InfeasibleError:
        return None
    return len(plan.gpus)


@dataclass(frozen=True, slots=True)
class MovesStage:
    """What every way gets: workload, points, models, rates and the requests themselves."""

    load: Workload
    points: Profiles
    models: dict[str, LoadedModel]
    trace: RateTrace
    arrivals: Sequence[Arrival]

    def row(self, way: str) -> dict[str, Any]:
        """Drives a session by one way; returns its row."""
        load = self.load if way == "static" else self.load.with_rates(self.trace.rates[0])
        with PlannedSession(
            _planned(load, self.points), load, self.points, device="cpu", max_batch=max(BATCHES)
        ) as session:
            targets = [
                target(
                    session.add(live.module, example_inputs=live.example_inputs, name=name), live
                )
                for name, live in self.models.items()
            ]
            drive(targets, [Arrival(n * 2_000_000, n % 2) for n in range(50)], keep=False)
            sent: list[Sent] = []
            start_ns = time.monotonic_ns() + LEAD_NS
            with self.moving(way, session, start_ns) as moves:
                drive(targets, self.arrivals, into=sent, keep=False)
        return {"way": way} | _judged(sent, self.load.tenants[0].slo_ms, moves(), self.trace)

    @contextmanager
    def moving(
        self, way: str, session: PlannedSession, start_ns: int
    ) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Moves the session meanwhile, by the way; yields a function that returns the moves."""
        if way == "controller":
            step_s = self.trace.step_s
            options = ControllerOptions(
                half_life_s=step_s / 8, headroom=HEADROOM, calm_s=step_s / 4, dwell_s=step_s / 4
            )
            with LiveController(session, options=options, period_s=PERIOD_S) as controller:
                yield lambda: summary(controller.events, start_ns)
            return
        moves: list[dict[str, Any]] = []
        plans = [
            _planned(self.load.with_rates(rates), self.points)
            for rates in (self.trace.rates if way == "oracle" else ())
        ]
        stop = threading.Event()

        def follow() -> None:
            for step, plan in enumerate(plans[1:], start=1):
                due_ns = start_ns + step * self.trace.step_ns
                if stop.wait(max(0.0, (due_ns - time.monotonic_ns()) / SECOND)):
                    return
                at_ns = time.monotonic_ns()
                moved = session.apply(plan, self.load.with_rates(self.trace.rates[step]))
                moves.extend(summary([Event(at_ns, "move", "foreseen", 0.0, moved)], start_ns))

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield lambda: moves
        finally:
            stop.set()
            thread.join()


def _judged(
    sent: Sequence[Sent], slo_ms: float, events: list[dict[str, Any]], trace: RateTrace
) -> dict[str, Any]:
    """Returns the attainment over all, by step, and of requests due while a move was under way."""
    met = [r.latency_ns is not None and ms_from_ns(r.latency_ns) <= slo_ms for r in sent]
    moves = [event for event in events if event["outcome"] == "move"]
    windows = [(move["at_s"], move["at_s"] + _took_ms(move) / 1000) for move in moves]
    during = [
        good for request, good in zip(sent, met, strict=True)
        if any(a <= request.due_ns / SECOND <= b for a, b in windows)
    ]  # fmt: skip
    by_step: list[list[bool]] = [[] for _ in trace.rates]
    for request, good in zip(sent, met, strict=True):
        by_step[min(request.due_ns // trace.step_ns, len(by_step) - 1)].append(good)
    answered = sum(request.latency_ns is not None for request in sent)
    return {
        "offered": len(sent), "answered": answered,
        "dropped": len(sent) - answered, "attainment": sum(met) / max(len(met), 1),
        "attainment_by_step": [sum(step) / max(len(step), 1) for step in by_step],
        "moves": len(moves), "refused": len(events) - len(moves),
        "due_during_moves": len(during), "violations_during_moves": during.count(False),
        "move_ms": [_took_ms(move) for move in moves],
        "switch_ms": [move["switch_ms"] for move in moves],
        "plan_ms": [event["plan_ms"] for event in events], "events": events,
    }  # fmt: skip


def _took_ms(event: dict[str, Any]) -> float:
    return float(event["plan_ms"] + event["prepare_ms"] + event["switch_ms"] + event["drain_ms"])


def shown(result: dict[str, Any]) -> FittedTable:
    """Returns the table, a line a way."""
    needs = result["peak_devices"]
    peak = "no plan" if needs is None else f"{needs} device{'s' * (needs > 1)}"
    heads = ("way", "requests", "in time", "in time, worst step", "moves", "plans refused",
             "longest switch, ms", "violations during moves")  # fmt: skip
    rows = [
        (
            row["way"], f"{row['offered']:,}", f"{row['attainment']:.2%}",
            f"{min(row['attainment_by_step']):.2%}", str(row["moves"]), str(row["refused"]),
            f"{max(row['switch_ms'], default=0):.2f}",
            f"{row['violations_during_moves']} of {row['due_during_moves']}",
        )
        for row in result["rows"]
    ]  # fmt: skip
    title = (
        f"{result['requests']:,} requests, objective {result['slo_ms']:.0f} ms; a static plan for "
        f"both peaks needs {peak}"
    )
    return FittedTable(heads, rows, words=("way",), title=title)
