"""A controller beside a static plan for the peak and beside an oracle, on a day and on bursts.

    spacetime bench controller [--seconds 1800] [--planner parvagpu] [--out DIR]

Everything is virtual time: the ParvaGPU artifact's scenario and A100 profiles (with --quick a
small built-in one), rates that change every 5 s, Poisson arrivals, the same for all.
*static* is planned for every tenant's highest rate at once. *controller* sees only what arrived,
once in `period_s`; its partitions serve `start_ms` after they were asked for, and until the old
ones have drained the devices of both plans count. *oracle* knows the rates of the next half minute
and moves for free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.devices import facts
from spacetime.plan import Plan, PlanOptions, require
from spacetime.plan.controller import Controller, ControllerOptions
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.changing_rates import (
    Decider,
    DynamicOptions,
    DynamicRun,
    Keep,
    Oracle,
    Period,
    simulate_dynamic,
)
from spacetime.units import SECOND
from spacetime.workload.rate_trace import RateTrace, bursty, diurnal
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload import Tenant, Workload

TRACES = ("diurnal", "bursty")
WAYS = ("static", "controller", "oracle")
ORACLE_S = 30.0
MOST_KEPT = 720  # periods of a run in its record
HEADS = ("trace", "plan", "device-hours", "% of static's", "in time %", "worst tenant in time %",
         "moves", "plans refused", "s without capacity", "requests missed",
         "missed in moves")  # fmt: skip


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0,
    planner: str = "parvagpu", scenario: str = "S3", seconds: float = 1800.0,
    start_ms: float = 12_000.0, period_s: float = 5.0,
) -> dict[str, Any]:  # fmt: skip
    """Simulates both traces under all three plans; prints and records them.

    seconds: of each trace. start_ms: from asking for a partition until it serves. period_s: between
    two looks at the load. Raises InvalidInput for an unknown scenario, UnsupportedError without
    data.
    """
    seconds = min(seconds, 150.0) if quick else seconds
    study = ControllerStudy(planner, *problem(scenario, quick=quick), start_ms, period_s)
    result = record.header("controller", seed=seed, quick=quick, chosen={
        "planner": [planner], "scenario": [scenario], "seconds": [seconds], "start-ms": [start_ms],
        "period-s": [period_s],
    })  # fmt: skip
    result |= {"simulated": study.profiles.device, "options": asdict(ControllerOptions())}
    result["rows"] = []
    for name in TRACES:
        trace = drawn(name, study.workload, seconds, seed)
        rows = [row(name, way, study.judge(way, trace)) for way in WAYS]
        result["rows"] += [run | {"of_static": run["device_s"] / rows[0]["device_s"]}
                           for run in rows]  # fmt: skip
    lines = [_line(run) for run in result["rows"]]
    title = (f"{scenario}, {seconds:g} s, planner {planner}, looked at every {period_s:g} s, "
             f"partitions serve after {start_ms:g} ms")  # fmt: skip
    shown = record.table(title, HEADS, lines)
    record.publish(result, [shown, verdict(result["rows"])], out=out, as_json=as_json,
                   plots="controller")  # fmt: skip
    return result


def problem(scenario: str, *, quick: bool = False) -> tuple[Workload, Profiles]:
    """Returns a published scenario and its profiles; with `quick` the built-in ones.

    Raises UnsupportedError outside a checkout, InvalidInput for an unknown scenario.
    """
    if quick:
        return built_in()
    scenarios = read_scenarios(record.a100("scenarios.csv"))
    record.known("scenario", [scenario], scenarios)
    return scenarios[scenario], read_profiles(record.a100("profiles.csv"))


def drawn(trace: str, workload: Workload, seconds: float, seed: int) -> RateTrace:
    """Returns the rates of one of TRACES: a day, or bursts."""
    if trace == "diurnal":
        return diurnal(workload, seconds=seconds, seed=seed)
    return bursty(workload, seconds=seconds, seed=seed)


def built_in() -> tuple[Workload, Profiles]:
    """Returns three models by a formula: a launch takes 2 ms, and each input its time by slices."""
    work = {"small": 1.0, "middle": 3.0, "large": 8.0}  # ms an input on one slice
    points = [
        Point(model, "a100-80gb", "mig", units, batch, 1, ms, 1000 * batch / ms, "predicted")
        for model, input_ms in work.items()
        for units in (1, 2, 3, 4, 7)
        for batch in (1, 2, 4, 8, 16, 32)
        for ms in [2 + input_ms * batch / units]
    ]
    rates = {"small": 1500.0, "middle": 700.0, "large": 250.0}
    tenants = tuple(Tenant(name, name, 150.0, rate) for name, rate in rates.items())
    return Workload(tenants), Profiles(tuple(points))


class ControllerStudy:
    """One workload with its profiles, planned by one planner."""

    def __init__(
        self, name: str, workload: Workload, profiles: Profiles, start_ms: float,
        period_s: float = 5.0,
    ) -> None:  # fmt: skip
        self.workload, self.profiles = workload, profiles
        self.options = DynamicOptions(start_ms=start_ms, period_s=period_s)
        self._planner, self._device = planner(name), facts.device(profiles.device)

    def plan(self, load: Workload) -> Plan:
        """Returns a checked plan. Raises InfeasibleError."""
        plan = self._planner.plan(load, self.profiles, self._device, PlanOptions())
        return require(plan, load, self.profiles, self._device)

    def judge(self, way: str, trace: RateTrace) -> DynamicRun:
        """Simulates the trace under one of WAYS."""
        options = self.options
        decider: Decider = Keep()
        if way == "static":
            first = self.plan(self.workload.with_rates(trace.highest()))
        elif way == "controller":
            headroom = ControllerOptions().headroom
            first = self.plan(self.workload.with_rates([rate * headroom for rate in trace.at(0)]))
            decider = Controller(first, self.workload.with_rates(trace.at(0)), self.plan)
        else:
            ahead_ns = round(ORACLE_S * SECOND)
            first = self.plan(self.workload.with_rates(trace.highest(0, ahead_ns)))
            decider = Oracle(first, self.workload, self.plan, trace, ahead_ns)
            options = DynamicOptions(period_s=ORACLE_S, free=True)
        return simulate_dynamic(
            first, self.workload, self.profiles, trace, decider=decider, options=options
        )


def row(trace: str, way: str, run: DynamicRun) -> dict[str, Any]:
    """Returns one run as the record keeps it."""
    missed = sum(offered - met for offered, met in run.tenants)
    return {
        "trace": trace,
        "plan": way,
        "device_s": run.device_s,
        "attainment": run.attainment,
        "worst_attainment": run.worst_attainment,
        "requests": sum(offered for offered, _ in run.tenants),
        "missed": missed,
        "missed_in_moves": sum(move.missed for move in run.moves),
        "short_s": run.short_s,
        "moves": [asdict(move) for move in run.moves],
        "refused": [{"at_ns": at, "why": why} for at, why in run.refused],
        "periods": _kept(run.periods),
    }


def _kept(periods: Sequence[Period]) -> dict[str, list[float]]:
    """Returns at most `MOST_KEPT` periods as columns: several are joined, with the most devices."""
    some = math.ceil(len(periods) / MOST_KEPT)
    joined = [periods[n : n + some] for n in range(0, len(periods), some)]
    return {
        "end_s": [several[-1].end_ns / SECOND for several in joined],
        "devices": [max(period.devices for period in several) for several in joined],
        "arrived": [sum(period.arrived for period in several) for several in joined],
        "missed": [sum(period.ended - period.met for period in several) for several in joined],
    }


def _line(run: dict[str, Any]) -> list[object]:
    return [
        run["trace"], run["plan"], f"{run['device_s'] / 3600:.3f}",
        f"{100 * run['of_static']:.1f}", f"{100 * run['attainment']:.3f}",
        f"{100 * run['worst_attainment']:.3f}", len(run["moves"]), len(run["refused"]),
        f"{run['short_s']:.0f}", run["missed"], run["missed_in_moves"],
    ]  # fmt: skip


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Returns whether the controller pays, in words, a line a trace."""
    said = []
    for run in rows:
        if run["plan"] != "controller":
            continue
        saved, kept = 1 - run["of_static"], run["worst_attainment"] >= 0.99
        said.append(
            f"{run['trace']}: the controller "
            + (f"saves {saved:.1%} of the static plan's device-hours" if saved >= 0
               else f"needs {-saved:.1%} more device-hours than the static plan")
            + (" and keeps 99 % in time for every tenant" if kept
               else f" but keeps only {run['worst_attainment']:.2%} in time for some tenant")
        )  # fmt: skip
    return "\n".join(said)
