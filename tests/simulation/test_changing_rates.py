"""A plan under rates that change, in virtual time: exact figures, and what no move may break."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.benchmarks import bench_controller
from spacetime.cli import root
from spacetime.errors import UnsupportedError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan, plan_json
from spacetime.plan.controller import Controller, ControllerOptions, Decision, Outcome, PeriodCounts
from spacetime.plan.moves import move
from spacetime.policy import Policy
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.simulation.changing_rates import (
    DynamicOptions,
    DynamicRun,
    Keep,
    Oracle,
    simulate_dynamic,
)
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.simulation.staged_plan import StagedPlan
from spacetime.units import SECOND
from spacetime.workload.rate_trace import RateTrace
from spacetime.workload.workload import Arrivals, Tenant, Workload

MS = 1_000_000
PLAIN = Policy(route="weighted", order="fifo", batch="greedy", lend=False)
PROFILES = Profiles(tuple(
    Point("net", "a100-80gb", kind, units, batch, procs, ms, 1000 * procs * batch / ms, "measured")
    for kind, sizes in (("mps", (50, 100)), ("mig", (3, 7)))
    for units in sizes
    for procs in (1, 2)
    for batch in (1, 2, 4)
    for ms in [(4.0 + 4.0 * batch) * (1.0 if units in (100, 7) else 2.0)]
))  # fmt: skip
STEADY = Arrivals(process="constant")


def load(*names: str, rate: float = 10.0, slo: float = 200.0, how: Arrivals = STEADY) -> Workload:
    return Workload(tuple(Tenant(name, "net", slo, rate) for name in names), how)


def plan(*gpus: list[tuple[str, int, tuple[str, ...], int]], rate: float = 10.0,
         kind: str = "mps", duty: bool = False) -> Plan:  # fmt: skip
    return Plan("test", "a100-80gb", tuple(
        GpuPlan(number, tuple(
            PartitionPlan(
                name, kind, units,
                tuple(Assignment(each, 4, rate, 100.0, 50.0 if duty else None) for each in names),
                start=0 if kind == "mig" else None, procs=procs,
            )
            for name, units, names, procs in parts
        ))
        for number, parts in enumerate(gpus)
    ))  # fmt: skip


SMALL = plan([("a", 50, ("x",), 1)])
LARGE = plan([("b", 100, ("x",), 1)], rate=40.0)


@dataclass
class Script:
    """Gives the plans it was told to, at the ends of the periods it was told."""

    at: Plan
    then: dict[int, Plan]
    moved_at: list[int] = field(default_factory=list)
    seen: list[tuple[PeriodCounts, ...]] = field(default_factory=list)

    def observe(self, now_ns: int, seen: list[PeriodCounts]) -> Decision:
        self.seen.append(tuple(seen))
        new = self.then.get(now_ns // SECOND)
        if new is None:
            return Decision(Outcome.STAY, "")
        found = move(self.at, new)
        self.at = found.new
        return Decision(Outcome.MOVE, "told to", found)

    def moved(self, now_ns: int) -> None:
        self.moved_at.append(now_ns)


def run(first: Plan, workload: Workload, rates: list[float], decider, **options) -> DynamicRun:
    trace = RateTrace(1.0, tuple((rate,) * len(workload.tenants) for rate in rates))
    return simulate_dynamic(
        first, workload, PROFILES, trace, decider=decider,
        options=DynamicOptions(**{"period_s": 1.0, "start_ms": 500.0, **options}),
    )  # fmt: skip


def test_a_kept_plan_counts_its_devices_and_every_request() -> None:
    found = run(SMALL, load("x"), [10, 20, 0], Keep())
    assert found.tenants == ((31, 31),)  # at 0, 0.1 .. 1.0, 1.05 .. 2.0
    assert (found.device_s, found.seconds, found.short_s) == (3.0, 3.0, 1.0)
    assert [(each.arrived, each.devices) for each in found.periods] == [(11, 1), (20, 1), (0, 1)]
    assert found.attainment == found.worst_attainment == 1.0


def test_a_move_opens_routes_and_closes_at_its_instants() -> None:
    """A request a tenth of a second, 16 ms each: at 1.45 s the old lane is idle, at 1.5 s not."""
    for start_ms, closed_ms in ((450.0, 1450), (500.0, 1600)):
        script = Script(SMALL, {1: LARGE})
        found = run(SMALL, load("x"), [10] * 3, script, start_ms=start_ms)
        (made,) = found.moves
        times = (made.decided_ns, made.routed_ns, made.closed_ns)
        assert times == (SECOND, round((1000 + start_ms) * MS), closed_ms * MS)
        assert script.moved_at == [made.closed_ns]
        assert made.missed == 0
    assert found.tenants == ((30, 30),)


def test_devices_of_both_plans_count_until_the_old_has_drained() -> None:
    """A MIG instance over an old one opens on another device."""
    old = plan([("a", 3, ("x",), 1)], kind="mig")
    new = plan([("b", 7, ("x",), 1)], kind="mig")
    found = run(old, load("x"), [10] * 4, Script(old, {1: new}), start_ms=450.0)
    assert found.device_s == pytest.approx(4.45)
    assert found.moves[0].devices == 2
    free = run(old, load("x"), [10] * 4, Script(old, {1: new}), free=True)
    assert free.device_s == 4.0


def test_what_waits_on_the_old_lane_is_answered_there_in_time() -> None:
    """An overload just before the move: the backlog drains on its lane, nothing is lost."""
    found = run(
        SMALL, load("x", slo=60_000.0), [10, 200, 10, 10, 10, 10], Script(SMALL, {2: LARGE})
    )
    assert found.tenants == ((250, 250),)
    (made,) = found.moves
    assert made.closed_ns is not None
    assert made.closed_ns > (made.routed_ns or 0)


def test_a_move_that_does_not_end_in_time_is_said_to_be_open() -> None:
    found = run(SMALL, load("x"), [10] * 3, Script(SMALL, {1: LARGE}), start_ms=60_000.0)
    assert [(each.routed_ns, each.closed_ns) for each in found.moves] == [(None, None)]
    assert found.tenants == ((30, 30),)


def test_without_a_move_it_is_the_plans_own_simulation() -> None:
    workload = load("x", "y", rate=30.0, how=Arrivals(), slo=120.0)
    both = plan([("a", 50, ("x",), 2), ("b", 50, ("y",), 1)], rate=30.0)
    found = run(both, workload, [30.0] * 20, Keep())
    once = simulate_plan(both, workload, PROFILES,
                         SimOptions(duration_ns=20 * SECOND, replications=1))  # fmt: skip
    of_plan = [(each.offered, each.met) for each in once.replications[0].tenants]
    assert [offered for offered, _ in found.tenants] == pytest.approx(
        [offered for offered, _ in of_plan], rel=0.15
    )  # tenants drawn from rate 0 on: other first gaps, so not the same instants
    assert found.attainment == pytest.approx(once.attainment, abs=0.01)


def test_the_arrivals_are_the_same_whatever_is_decided() -> None:
    workload = load("x", how=Arrivals())
    rates = [10.0, 40.0, 0.0, 25.0, 10.0]
    kept = run(SMALL, workload, rates, Keep())
    moved = run(SMALL, workload, rates, Script(SMALL, {1: LARGE, 3: SMALL}))
    assert [each.arrived for each in kept.periods] == [each.arrived for each in moved.periods]
    assert len(moved.moves) == 2


def test_a_controller_follows_a_step_and_gives_the_device_back() -> None:
    def planning(asked: Workload) -> Plan:
        (tenant,) = asked.tenants
        count = -int(-tenant.rate_rps // 100)
        parts = [[(f"{n}", 100, ("x",), 1)] for n in range(count)]
        return plan(*parts, rate=tenant.rate_rps / count)

    workload = load("x", rate=60.0)
    first = planning(workload.with_rates([75.0]))
    options = ControllerOptions(half_life_s=2.0, calm_s=5.0, dwell_s=5.0)
    controller = Controller(first, workload, planning, options)
    found = run(first, workload, [60.0] * 10 + [150.0] * 20 + [60.0] * 30, controller)
    assert max(each.devices for each in found.periods) == 2
    assert found.periods[9].devices == found.periods[-1].devices == 1
    assert 60 < found.device_s < 100
    assert not found.refused


def test_an_oracle_has_the_plan_of_every_period_when_it_begins() -> None:
    def planning(asked: Workload) -> Plan:
        return LARGE if asked.tenants[0].rate_rps > 20 else SMALL

    trace = RateTrace(1.0, ((10.0,), (40.0,), (10.0,)))
    oracle = Oracle(SMALL, load("x"), planning, trace, SECOND)
    found = simulate_dynamic(
        SMALL, load("x"), PROFILES, trace, decider=oracle,
        options=DynamicOptions(period_s=1.0, free=True),
    )  # fmt: skip
    assert [each.routed_ns for each in found.moves] == [SECOND, 2 * SECOND, 3 * SECOND]
    assert found.short_s == 0


def test_lanes_of_closed_partitions_serve_again() -> None:
    staged = StagedPlan(SMALL, load("x"), PROFILES, PLAIN, horizon_ns=SECOND, seed=0)
    at, lanes = SMALL, []
    for turn in range(12):
        found = move(at, LARGE if turn % 2 == 0 else SMALL)
        staged.open(found)
        staged.route(found)
        assert staged.drained()
        at = found.new
        lanes.append(len(staged.run.lanes))
    assert lanes[2:] == [lanes[1]] * 10


@pytest.mark.parametrize("bad", ["trace", "mix", "tenants"])
def test_what_cannot_change_its_rate_is_refused(bad: str) -> None:
    workload = load("x")
    if bad == "trace":
        workload = Workload(workload.tenants, Arrivals(process="trace", file="t.csv"))
    if bad == "mix":
        workload = Workload((replace(workload.tenants[0], batch_mix=((1, 1.0), (2, 1.0))),))
    trace = RateTrace(1.0, ((10.0,) * (2 if bad == "tenants" else 1),))
    with pytest.raises(UnsupportedError, match="rates: are of 2" if bad == "tenants" else "drawn"):
        simulate_dynamic(SMALL, workload, PROFILES, trace, decider=Keep())


def test_a_fused_partition_is_refused_not_simulated_as_something_else() -> None:
    (gpu,) = plan([("a", 100, ("x", "y"), 1)]).gpus
    fused = replace(
        SMALL, gpus=(replace(gpu, partitions=(replace(gpu.partitions[0], fused=True),)),)
    )
    with pytest.raises(UnsupportedError, match="a: tenants that share launches"):
        run(fused, load("x", "y"), [10], Keep())


@pytest.mark.parametrize(("name", "value"), [("period_s", 0.0), ("start_ms", -1.0)])
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UnsupportedError, match=name):
        DynamicOptions(**{name: value})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), policy=st.sampled_from(["own", "duty", "space-time", "elsa"]))
def test_every_request_ends_once_whatever_is_moved_when(seed: int, policy: str) -> None:
    rng = random.Random(seed)
    workload = load("x", "y", how=Arrivals(), slo=rng.choice([40.0, 400.0]))
    plans = [drawn(rng, duty=policy == "duty") for _ in range(4)]
    times = rng.sample(range(1, 9), 3)
    script = Script(plans[0], dict(zip(times, plans[1:], strict=True)))
    chosen = {} if policy in {"own", "duty"} else {"policy": Policy.named(policy)}
    trace = [rng.choice([0.0, 20.0, 80.0, 200.0]) for _ in range(10)]
    found = run(plans[0], workload, trace, script,
                start_ms=rng.choice([0.0, 300.0]), free=True, **chosen)  # fmt: skip
    assert len(found.moves) == 3
    offered = sum(each for each, _ in found.tenants)
    assert sum(each.arrived for each in found.periods) == offered
    assert all(each.ended <= offered and each.met <= each.ended for each in found.periods)


def drawn(rng: random.Random, *, duty: bool) -> Plan:
    if duty:
        return plan([("a", rng.choice([50, 100]), ("x", "y"), 1)], duty=True)
    shapes = [
        [[("a", 50, ("x",), 2), ("b", 50, ("y",), 1)]],
        [[("a", 100, ("x",), 1)], [("b", 100, ("y",), 2)]],
        [[("a", 50, ("y",), 1), ("b", 50, ("x",), 1)], [("c", 100, ("x",), 1)]],
        [[("a", 100, ("x", "y"), 1)]],
        [[("a", 100, ("x", "y"), 2)]],
    ]
    return plan(*rng.choice(shapes), rate=rng.choice([10.0, 30.0]))


def write(path: Path, name: str, text: str) -> str:
    (path / name).write_text(text, encoding="utf-8")
    return str(path / name)


def test_the_command_moves_a_plan_through_a_day(tmp_path: Path) -> None:
    workload, profiles = bench_controller.built_in()
    study = bench_controller.ControllerStudy("parvagpu", workload, profiles, 0.0)
    first = study.plan(workload.with_rates([tenant.rate_rps / 3 for tenant in workload.tenants]))
    write_profiles(tmp_path / "p.csv", profiles)
    tenants = [
        {"name": each.name, "model": each.model, "slo_ms": each.slo_ms, "rate_rps": each.rate_rps}
        for each in workload.tenants
    ]
    given = [
        "simulate", write(tmp_path, "plan.json", plan_json.dumps(first)), "--workload",
        write(tmp_path, "w.json", json.dumps({"tenants": tenants})), "--profiles",
        str(tmp_path / "p.csv"), "--controller", "--planner", "parvagpu", "--duration", "60",
        "--start-ms", "100",
    ]  # fmt: skip
    shown = CliRunner().invoke(root.cli, given, catch_exceptions=False)
    assert "device-hours in 60 s" in shown.output
    report = json.loads(CliRunner().invoke(root.cli, [*given, "--json"]).output)
    assert report["format"] == "spacetime.dynamic/1"
    assert len(report["periods"]) == 12
    assert report["moves"]
    refused = CliRunner().invoke(root.cli, [*given, "--late"])
    assert isinstance(refused.exception, UnsupportedError)
    assert str(refused.exception) == "--late: does not go with --controller"


def test_the_benchmark_says_plainly_what_the_controller_saves(tmp_path: Path) -> None:
    found = bench_controller.run(quick=True, out=tmp_path)
    assert [(row["trace"], row["plan"]) for row in found["rows"]] == [
        (trace, way) for trace in ("diurnal", "bursty") for way in bench_controller.WAYS
    ]
    for trace in ("diurnal", "bursty"):
        static, _, oracle = (row for row in found["rows"] if row["trace"] == trace)
        assert static["device_s"] >= oracle["device_s"]
        assert len({row["requests"] for row in found["rows"] if row["trace"] == trace}) == 1
    assert (tmp_path / "controller.png").stat().st_size > 10_000
    rows = [{"plan": "controller", "trace": "t", "of_static": 1.2, "worst_attainment": 0.98}]
    assert bench_controller.verdict(rows) == (
        "t: the controller needs 20.0% more device-hours than the static plan but keeps only "
        "98.00% in time for some tenant"
    )
