"""Plans in virtual time: closed forms, exact timelines, and the account of every request."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.errors import PlanError, UnsupportedError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.deployment import Deployment, Piece, deploy, own_policy
from spacetime.policy import PRESETS, Policy
from spacetime.profiles.profile import Point, Profiles
from spacetime.simulation.fixed_plan import PlanRun, SimOptions, simulate_plan
from spacetime.simulation.interval import interval
from spacetime.simulation.plan_report import plan_report, plan_timeline
from spacetime.simulation.simulator import SimNoise
from spacetime.workload.workload import Arrival, Arrivals, Tenant, Workload

SECOND = 10**9
DEVICE = "a100-80gb"


def points(model: str, latency_ms: float, *units: int) -> list[Point]:
    """Batches 1 to 8: a batch of b takes (1 + b) / 2 times a batch of one; more units, less."""
    return [
        Point(model, DEVICE, "mig", size, batch, procs, ms, batch * procs / ms * 1000)
        for size in units
        for batch in (1, 2, 4, 8)
        for procs in (1, 2, 3)
        for ms in [latency_ms * procs * (1 + batch) / 2 / size]
    ]


PROFILES = Profiles((*points("m", 10, 1, 2, 4), *points("n", 20, 1, 2)))


def part(name: str, units: int, *tenants: Assignment, procs: int = 1) -> PartitionPlan:
    return PartitionPlan(name, "mig", units, tenants, start=0, procs=procs)


def plan_of(*parts: PartitionPlan) -> Plan:
    return Plan("hand", DEVICE, tuple(GpuPlan(n, (each,)) for n, each in enumerate(parts)))


def on(tenant: str, batch: int = 1, rate_rps: float = 50.0, duty_ms: float | None = None) -> (
    Assignment
):  # fmt: skip
    return Assignment(tenant, batch, rate_rps, 1000.0, duty_ms)


def workload(*tenants: Tenant, process: str = "poisson", cv: float = 1.0) -> Workload:
    return Workload(tenants=tenants, arrivals=Arrivals(process=process, cv=cv), seed=3)


def recorded(tenants: tuple[Tenant, ...], *times_ms: float) -> Workload:
    """The tenants take turns in arriving."""
    trace = tuple(Arrival(round(t * 1e6), n % len(tenants)) for n, t in enumerate(times_ms))
    return Workload(tenants=tenants, arrivals=Arrivals(process="trace", file="-"), trace=trace)


A = Tenant(name="a", model="m", slo_ms=100, rate_rps=50)
B = Tenant(name="b", model="n", slo_ms=200, rate_rps=20)


def counts(run: PlanRun) -> list[tuple[Any, ...]]:
    return [
        (each.offered, each.completed, each.met, each.dropped, each.latency.mean_ns)
        for draw in run.replications
        for each in draw.tenants
    ]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_mean_wait_of_m_d_1_through_a_plan(load: float) -> None:
    tenant = replace(A, slo_ms=10_000, rate_rps=100 * load)
    options = SimOptions(duration_ns=2000 * SECOND, replications=4)
    run = simulate_plan(plan_of(part("p", 1, on("a"))), workload(tenant), PROFILES, options)
    waits = [each.tenants[0].wait.mean_ns for each in run.replications]
    expected = load / (2 * (1 - load)) * 10e6  # Pollaczek and Khinchine, no variance
    assert interval(waits).mean == pytest.approx(expected, rel=0.04)
    busy = plan_report(run)["partitions"][0]
    assert busy["utilisation"] == pytest.approx(load, rel=0.02)
    assert busy["idle_units"] == pytest.approx(1 - load, rel=0.05)


def test_tail_of_m_m_1_through_a_plan() -> None:
    tenant = replace(A, slo_ms=100_000)
    options = SimOptions(duration_ns=4000 * SECOND, noise=SimNoise(kind="exponential"))
    run = simulate_plan(plan_of(part("p", 1, on("a"))), workload(tenant), PROFILES, options)
    p99 = interval([each.latency_ns(0.99) for each in run.replications])
    # The time in the system is exponential with mean 1 / (mu - lambda).
    assert p99.mean == pytest.approx(math.log(100) * 20e6, rel=0.05)
    assert p99.half is not None
    assert 0 < p99.half < 0.1 * p99.mean


def test_an_exact_timeline_of_routes_processes_and_batches() -> None:
    # a: 3 of 4 requests on a partition of two processes (20 ms each), the rest on a faster one.
    plan = plan_of(part("p", 1, on("a", 1, 60), procs=2), part("q", 4, on("a", 2, 20)))
    asked = recorded((A,), *[0.0] * 8)
    run = simulate_plan(plan, asked, PROFILES, SimOptions(timeline=True))
    events = [e for e in plan_timeline(run) if e["ph"] == "X"]
    done = sorted((e["ts"], e["dur"], e["tid"], e["args"]["requests"]) for e in events)
    assert done == [
        (0.0, 3750.0, 3, 2),  # a batch of 2 on 4 slices
        (0.0, 20000.0, 1, 1),
        (0.0, 20000.0, 2, 1),
        (20000.0, 20000.0, 1, 1),
        (20000.0, 20000.0, 2, 1),
        (40000.0, 20000.0, 1, 1),
        (40000.0, 20000.0, 2, 1),
    ]


def test_turns_of_a_cycle_alternate_at_their_own_batches() -> None:
    cycle = part("p", 1, on("a", 4, 50, 100), on("b", 1, 10, 100))
    run = simulate_plan(
        plan_of(cycle), recorded((A, B), *[0.0] * 8), PROFILES, SimOptions(timeline=True)
    )
    assert run.policy.order == "duty"
    done = [(e["name"], e["ts"], e["dur"]) for e in plan_timeline(run) if e["ph"] == "X"]
    assert done == [
        ("a", 0.0, 25000.0),
        ("b", 25000.0, 20000.0),
        ("b", 45000.0, 20000.0),
        ("b", 65000.0, 20000.0),
        ("b", 85000.0, 20000.0),
    ]


def test_tenants_side_by_side_have_a_lane_each_and_sliced_ones_share_one() -> None:
    asked = workload(A, B)
    beside = deploy(plan_of(part("p", 1, on("a"), on("b"), procs=2)), asked, PROFILES)
    assert [list(lanes) for lanes in beside.served] == [[0], [1]]
    sliced = deploy(plan_of(part("p", 1, on("a"), on("b"))), asked, PROFILES)
    assert [list(lanes) for lanes in sliced.served] == [[0], [0]]
    assert own_policy(plan_of(), asked).order == "fifo"
    elsa = own_policy(replace(plan_of(), policy="elsa"), asked)
    assert (elsa.route, elsa.batch) == ("elsa", "greedy")
    assert own_policy(replace(plan_of(), policy="space-time"), asked) == PRESETS["space-time"]


def test_a_batch_between_two_points_costs_the_larger_and_every_lane_names_all_buckets() -> None:
    plan = plan_of(part("p", 1, on("a", 3)), part("q", 2, on("a", 8)))
    p, q = deploy(plan, workload(A), PROFILES).served[0].values()
    ms = 10**6
    assert p.latency_ns == {1: 10 * ms, 2: 15 * ms, 3: 25 * ms}
    assert q.latency_ns == {b: round(5 * (1 + (4 if b == 3 else b)) / 2 * ms)
                            for b in (1, 2, 3, 4, 8)}  # fmt: skip


assignments = st.tuples(st.sampled_from("ab"), st.integers(1, 8), st.floats(1, 100), st.booleans())
partitions = st.tuples(st.sampled_from([1, 2]), st.integers(1, 3),
                       st.lists(assignments, min_size=1, max_size=3))  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans that serve both tenants, sound or not."""
    parts = []
    for number, (units, procs, tenants) in enumerate(draw(st.lists(partitions, max_size=4))):
        side = len(tenants) if procs > 1 and len(tenants) > 1 else procs
        cycle = procs == 1 and tenants[0][3]
        parts.append(part(
            f"p{number}", units,
            *(on(name, batch, rate, 200.0 if cycle else None) for name, batch, rate, _ in tenants),
            procs=side,
        ))  # fmt: skip
    return plan_of(*parts, part("last-a", 2, on("a", 4)), part("last-b", 1, on("b", 2)))


@settings(max_examples=60, deadline=None)
@given(
    plan=plans(),
    policy=st.sampled_from([None, *sorted(PRESETS)]),
    process=st.sampled_from(["poisson", "gamma", "constant"]),
    drops=st.booleans(),
)
def test_nothing_is_lost(plan: Plan, policy: str | None, process: str, drops: bool) -> None:
    options = SimOptions(
        policy=None if policy is None else PRESETS[policy],
        duration_ns=SECOND,
        replications=2,
        drops=drops,
    )
    run = simulate_plan(plan, workload(A, B, process=process, cv=2.0), PROFILES, options)
    for each in (tenant for draw in run.replications for tenant in draw.tenants):
        assert each.offered == each.completed + sum(each.dropped.values())
        assert each.completed == each.met + each.late
    report = plan_report(run)
    assert report["overall"]["offered"] == sum(t["offered"] for t in report["tenants"].values())
    json.dumps(report, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), policy=st.sampled_from(["parvagpu", "elsa", "space-time", "gpulet"]))
def test_pieces_apart_are_the_plan_as_a_whole(plan: Plan, policy: str) -> None:
    class Whole(Deployment):
        def pieces(self, *, devices_apart: bool = True) -> tuple[Piece, ...]:
            return (Piece(tuple(range(len(self.lanes))), tuple(range(len(self.served)))),)

    options = SimOptions(policy=Policy.named(policy), duration_ns=SECOND, replications=1)
    asked = workload(A, B)
    apart = simulate_plan(plan, asked, PROFILES, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployment, "pieces", Whole.pieces)
        whole = simulate_plan(plan, asked, PROFILES, options)
    assert counts(apart) == counts(whole)


def test_threads_change_nothing_and_more_replications_only_add() -> None:
    plan = plan_of(part("p", 2, on("a", 4)), part("q", 1, on("b", 2)))
    asked = workload(A, B)
    options = SimOptions(duration_ns=20 * SECOND, replications=6)
    one = counts(simulate_plan(plan, asked, PROFILES, replace(options, threads=1)))
    assert one == counts(simulate_plan(plan, asked, PROFILES, replace(options, threads=7)))
    fewer = counts(simulate_plan(plan, asked, PROFILES, replace(options, replications=2)))
    assert one[: len(fewer)] == fewer
    assert len(set(map(str, one))) == len(one)  # every draw is another
    assert one != counts(simulate_plan(plan, asked, PROFILES, replace(options, seed=4)))


def test_a_trace_is_run_once_to_its_end_and_scaled_in_time() -> None:
    plan = plan_of(part("p", 1, on("a")))
    asked = recorded((A,), 0, 1000, 2000)
    run = simulate_plan(plan, asked, PROFILES)
    assert (len(run.replications), run.attainment) == (1, 1.0)
    denser = simulate_plan(plan, asked, PROFILES, SimOptions(rate_scale=1000))
    assert run.replications[0].tenants[0].latency.max_ns == 10 * 10**6
    assert denser.replications[0].tenants[0].latency.max_ns == 28 * 10**6  # it waits 18


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (plan_of(part("p", 1, on("c"))), "p: c is not a tenant of the workload"),
        (plan_of(part("p", 1, on("b"))), "tenant a: the plan serves it nowhere"),
        (plan_of(part("p", 1, on("a", 9)), part("q", 1, on("b"))), "no point of m covers batch 9"),
        (plan_of(part("p", 3, on("a")), part("q", 1, on("b"))), "on mig 3"),
        (Plan("hand", "v100-16gb", ()), "device: the plan is for v100-16gb"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit(plan: Plan, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        simulate_plan(plan, workload(A, B), PROFILES)


@pytest.mark.parametrize("field", ["duration_ns", "replications", "rate_scale", "threads"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_an_option_out_of_range(field: str, value: float) -> None:
    with pytest.raises(UnsupportedError, match=field):
        SimOptions(**{field: value})  # type: ignore[arg-type]


def test_processes_of_a_partition_serve_one_queue() -> None:
    # Four requests at once and batches of up to 4: the first process takes one, the second the
    # rest of what waits, though all are routed to one queue.
    plan = plan_of(part("p", 1, on("a", 4), procs=2))
    options = SimOptions(timeline=True)
    run = simulate_plan(plan, recorded((A,), 0, 1, 2, 3, 25), PROFILES, options)
    done = [
        (e["ts"], e["tid"], e["args"]["requests"]) for e in plan_timeline(run) if e["ph"] == "X"
    ]
    assert sorted(done) == [(0.0, 1, 1), (1000.0, 2, 1), (20000.0, 1, 2), (25000.0, 2, 1)]


def test_interference_slows_what_starts_beside_another_partition() -> None:
    asked = recorded((A, B), 0, 5, 100)
    parts = (part("p", 1, on("a")), part("q", 1, on("b")))
    together = Plan("hand", DEVICE, (GpuPlan(0, parts),))

    def slows(model: str, units: int, other: str, other_units: int) -> float:
        assert (units, other_units) == (1, 1)
        return {("m", "n"): 1.5, ("n", "m"): 2.0}[model, other]

    def finished(plan: Plan) -> list[tuple[str, float]]:
        options = SimOptions(interference=slows, timeline=True)
        run = simulate_plan(plan, asked, PROFILES, options)
        return [(e["name"], e["ts"] + e["dur"]) for e in plan_timeline(run) if e["ph"] == "X"]

    # a starts alone; b at 5 ms beside it, so its 20 ms take 40; a again alone.
    assert finished(together) == [("a", 10000.0), ("b", 45000.0), ("a", 110000.0)]
    assert finished(plan_of(*parts)) == [("a", 10000.0), ("b", 25000.0), ("a", 110000.0)]


WHOLE = Tenant(name="w", model="m", slo_ms=60, rate_rps=90, batch_mix=((1, 3.0), (8, 1.0)))


def test_requests_that_are_batches_go_whole_where_their_size_is_answered_in_time() -> None:
    plan = replace(plan_of(part("p", 1, on("w", 1)), part("q", 4, on("w", 8))), policy="elsa")
    assert own_policy(plan, workload(WHOLE)) == PRESETS["elsa"]  # alone: no other shares its launch
    run = simulate_plan(plan, workload(WHOLE), PROFILES, SimOptions(timeline=True, replications=1))
    events = [e for e in plan_timeline(run) if e["ph"] == "X"]
    # One slice takes 10 ms for one input and 45 ms for eight, four take 2.5 and 11.25 ms.
    assert {(e["tid"], e["dur"]) for e in events} <= {
        (1, 10e3), (1, 45e3), (2, 2.5e3), (2, 11.25e3)
    }  # fmt: skip
    eights = [e for e in events if e["dur"] > 10e3]
    assert len(eights) / len(events) == pytest.approx(1 / 4, abs=0.05)
    # 90 inputs a second in requests of 11 / 4 on average, for a minute.
    assert len(events) == pytest.approx(60 * 90 / 2.75, rel=0.1)
    assert run.attainment > 0.99


def test_what_is_larger_than_any_batch_measured_takes_several_launches() -> None:
    large = replace(WHOLE, batch_mix=((20, 1.0),))
    plan = replace(plan_of(part("p", 1, on("w", 4))), policy="elsa")
    (served,) = deploy(plan, workload(large), PROFILES).served
    assert {b: ns / 1e6 for b, ns in served[0].latency_ns.items()} == {
        1: 10, 2: 15, 4: 25, 8: 45, 16: 90, 32: 180,
    }  # fmt: skip
