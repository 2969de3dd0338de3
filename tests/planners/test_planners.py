"""The planners: the paper's counts on its own data, small cases by hand, and any demand at all."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan, PlanOptions, calm, check_plan, require
from spacetime.plan.calmed import expected_ms
from spacetime.plan.demand import copies, floor_rps, lower_bound, serves
from spacetime.plan.plan_json import dumps, loads
from spacetime.planners.registry import PLANNERS, planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

A100 = device("a100-80gb")
PAPER = PlanOptions(max_utilisation=1)
ONE = PlanOptions(max_utilisation=1, max_procs=1)
SCENARIOS = ("S1", "S2", "S3", "S4")


def point(units: int, batch: int, ms: float, *, model: str = "m", procs: int = 1) -> Point:
    rate = batch * procs / ms * 1000
    return Point(model, "a100-80gb", "mig", units, batch, procs, ms, rate)


def tenant(name: str, rate: float, slo_ms: float = 100, model: str = "m") -> Tenant:
    return Tenant(name=name, model=model, slo_ms=slo_ms, rate_rps=rate)


PERCENT = ("gpulet", "sbp", "greedy", "self-tuning", "ideal", "igniter")  # see test_plan_gpulet


def sizes(plan: Plan) -> list[list[tuple[int, int, int]]]:
    """Of each device its (units, batch, procs)."""
    return [
        sorted((part.units, part.tenants[0].batch, part.procs) for part in gpu.partitions)
        for gpu in plan.gpus
    ]


def planned(name: str, load: Workload, options: PlanOptions = PAPER, **choices: object) -> Plan:
    profiles = published.parvagpu()
    plan = planner(name, **choices).plan(load, profiles, A100, options)
    return require(plan, load, profiles, A100, options)


@pytest.mark.parametrize("cap", [1, 3, 5])
def test_parvagpu_needs_the_devices_its_paper_says(cap: int) -> None:
    options = PlanOptions(max_utilisation=1, max_procs=cap)
    counts = [len(planned("parvagpu", published.scenario(name), options).gpus)
              for name in SCENARIOS]  # fmt: skip
    assert counts == [2, 3, 5, 7]


def test_parvagpu_uses_the_slices_of_the_committed_deployments() -> None:
    options = PlanOptions(max_utilisation=1, max_procs=5)
    for optimise, expected in ((True, [10, 20, 33, 48]), (False, [10, 20, 30, 44])):
        plans = [planned("parvagpu", published.scenario(name), options, optimise=optimise)
                 for name in SCENARIOS]  # fmt: skip
        used = [sum(p.units for gpu in plan.gpus for p in gpu.partitions) for plan in plans]
        assert used == expected


def test_parvagpu_without_its_optimisation_strands_devices() -> None:
    options = PlanOptions(max_utilisation=1, max_procs=5)
    plans = [planned("parvagpu", published.scenario(name), options, optimise=False)
             for name in SCENARIOS]  # fmt: skip
    assert [len(plan.gpus) for plan in plans] == [2, 3, 8, 11]


def test_parvagpu_puts_two_threes_on_a_device_only_where_asked() -> None:
    load = published.scenario("S4")
    for allowed in (False, True):
        plan = planned("parvagpu", load, two_threes=allowed, optimise=False)
        threes = [Counter(p.units for p in gpu.partitions)[3] for gpu in plan.gpus]
        assert (max(threes) == 2) is allowed


def test_batches_fill_where_the_artifact_waits_past_the_objective() -> None:
    plan = planned("parvagpu", published.scenario("S1"))
    (bert,) = (each for _, _, each in plan if each.tenant == "bert")
    assert 127 / 19 * 1000 > 6434  # the artifact's batch of 128 at 19 req/s
    assert bert.batch < 128
    assert bert.latency_ms <= 6434


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("whole-gpu", [6, 11, 11, 11]),
        ("mig-only", [2, 3, 5, 7]),
        ("mps-default", [2, 4, 6, 8]),
        ("time-only", [2, 3, 6, 10]),
    ],
)
def test_what_people_do_today(name: str, counts: list[int]) -> None:
    assert [len(planned(name, published.scenario(s)).gpus) for s in SCENARIOS] == counts


HAND = Profiles((
    *(point(units, 8, 80 / units) for units in (1, 2, 3, 4, 7)),
    point(1, 1, 20), point(7, 1, 5), point(7, 8, 30, procs=3), point(7, 1, 6, procs=3),
))  # fmt: skip
EVERY_KIND = Profiles((
    *HAND,
    *(replace(point(7, batch, ms), kind="mps", units=units)
      for units in (20, 40, 50, 60, 80, 100) for batch, ms in ((1, 5), (8, 13))),
))  # fmt: skip


def test_demand_matching_by_hand() -> None:
    # Within 0.45 of 100 ms one slice has batch 1 (50 req/s); from two slices on, 100 req/s a slice.
    # The first best by slice is 2 (200 req/s); 550 = 2 x 200 + 150, which the next 2 serves.
    load = Workload((tenant("a", 550),))
    plan = planner("parvagpu").plan(load, HAND, A100, ONE)
    assert sizes(plan) == [[(2, 8, 1)] * 3]
    assert plan.headroom == pytest.approx(600 / 550 - 1)
    assert plan.lower_bound_gpus == 1
    exact = planner("parvagpu").plan(Workload((tenant("a", 400),)), HAND, A100, ONE)
    assert sizes(exact) == [[(2, 8, 1)] * 2]  # divides exactly: no third


def test_the_ceiling_leaves_room() -> None:
    load = Workload((tenant("a", 550),))
    plan = planner("parvagpu").plan(load, HAND, A100, PlanOptions(max_utilisation=0.8))
    assert plan.headroom is not None
    assert plan.headroom >= 0.25
    assert check_plan(plan, load, HAND, A100, PlanOptions(max_utilisation=0.8)) == ()
    assert check_plan(plan, load, HAND, A100, PlanOptions(max_utilisation=0.6)) != ()


def test_processes_of_several_tenants_share_a_device_under_plain_mps() -> None:
    load = Workload(tuple(tenant(name, 200) for name in "abc"))
    plan = planner("mps-default").plan(load, HAND, A100, PAPER)
    (only,) = plan.gpus[0].partitions
    assert (only.units, only.procs, [each.tenant for each in only.tenants]) == (7, 3, list("abc"))


def test_slices_of_time_are_shared_by_as_many_as_the_objective_bears() -> None:
    load = Workload(tuple(tenant(f"t{number}", 5, slo_ms=20) for number in range(6)))
    plan = planner("time-only").plan(load, HAND, A100, PAPER)  # 5 ms alone: four to a device
    assert [len(gpu.partitions[0].tenants) for gpu in plan.gpus] == [4, 2]
    assert require(plan, load, HAND, A100, PAPER).routes("t0") == {"g0p0": 1}


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize(
    ("demand", "bound", "text"),
    [
        (tenant("a", 10, model="n"), "profile", "no point of n on a100-80gb"),
        (tenant("a", 10, slo_ms=1), "latency", "the fastest point takes 5 ms"),
    ],
)
def test_a_refusal_names_tenant_and_bound(name: str, demand: Tenant, bound: str, text: str) -> None:
    with pytest.raises(InfeasibleError, match=f"tenant a: {bound}: {text}") as caught:
        planner(name).plan(Workload((demand,)), EVERY_KIND, A100, PlanOptions())
    assert (caught.value.tenant, caught.value.bound) == ("a", bound)


def test_too_few_devices_are_refused_with_the_bound() -> None:
    load = Workload((tenant("a", 3000),))
    with pytest.raises(InfeasibleError, match="tenant a: gpus: any plan needs 5 devices at least"):
        planner("parvagpu").plan(
            load, HAND, A100, PlanOptions(gpus=4, max_utilisation=1, max_procs=1)
        )


def test_a_choice_a_planner_lacks_is_refused() -> None:
    with pytest.raises(
        UnsupportedError, match="planner parvagpu: slo is none of its choices: slo_factor"
    ):
        planner("parvagpu", slo=0.5)
    with pytest.raises(UnsupportedError, match="two_threes must be bool, got 'maybe'"):
        planner("parvagpu", two_threes="maybe")
    with pytest.raises(UnsupportedError, match="whole-gpu: x is none of its choices: none"):
        planner("whole-gpu", x=1)
    with pytest.raises(UnsupportedError, match="slo_factor: must be above 0 and at most 1, got 2"):
        planner("parvagpu", slo_factor=2)


def test_the_rate_a_batch_needs_to_fill() -> None:
    assert floor_rps(point(1, 8, 30), 100) == pytest.approx(100)  # 7 more in 70 ms
    assert floor_rps(point(1, 1, 30), 30) == 0
    assert floor_rps(point(1, 8, 30), 30) == float("inf")
    assert serves(point(1, 8, 30), 100, 100, PAPER)
    assert not serves(point(1, 8, 30), 99, 100, PAPER)
    assert copies(tenant("a", 500), [point(1, 8, 30)], PAPER) == (2, point(1, 8, 30))
    with pytest.raises(InfeasibleError, match="tenant a: fill: no batch on mig 1 both fills"):
        copies(tenant("a", 50), [point(1, 8, 30)], PAPER)


def test_calm_takes_the_batch_of_least_expected_latency() -> None:
    profiles = Profiles((point(1, 1, 4), point(1, 8, 16), point(1, 64, 100)))
    load = Workload((tenant("a", 240, slo_ms=400),))
    options = PlanOptions(max_procs=1)
    plan = planner("mig-only").plan(load, profiles, A100, options)
    calmer = calm(plan, load, profiles, options)
    # A batch of 1 is busy 0.96 of the time; of 64 it waits 262 ms to fill. Of 8: 29 + 16 + 15 ms.
    assert expected_ms(point(1, 8, 16), 240) == pytest.approx(7 / 0.24 + 16 + 16 * 0.48 / 0.52)
    assert [each.batch for _, _, each in plan] == [64]
    assert [each.batch for _, _, each in calmer] == [8]
    assert calmer.headroom == pytest.approx(500 / 240 - 1)
    both = Workload((tenant("a", 5), tenant("b", 5)))
    shared = planner("time-only").plan(both, HAND, A100, PAPER)
    assert calm(shared, both, HAND, PAPER) == shared


QUICK = ("parvagpu", "mig-only", "whole-gpu", "mps-default", "time-only", "paris", "spacetime")


@pytest.mark.parametrize("name", QUICK)
def test_a_thousand_tenants_in_seconds(name: str) -> None:
    load = Workload(tuple(tenant(f"t{number}", 10 + number % 390, 200) for number in range(1000)))
    started = time.perf_counter()
    plan = planner(name).plan(load, HAND, A100, PlanOptions())
    assert time.perf_counter() - started < 10
    assert check_plan(plan, load, HAND, A100) == ()


DEMANDS = st.lists(
    st.builds(
        Tenant,
        name=st.uuids().map(str),
        model=st.sampled_from(["m", "n"]),
        slo_ms=st.floats(10, 2000),
        rate_rps=st.floats(0.1, 5000),
        batch_sizes=st.sampled_from([(), (1, 8), (4,)]),
        batch_mix=st.sampled_from([(), (), ((1, 1.0), (4, 2.0)), ((8, 1.0),)]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda tenant: tenant.name,
).map(lambda tenants: Workload(tuple(tenants)))
OPTIONS = st.builds(
    PlanOptions,
    gpus=st.none() | st.integers(1, 20),
    max_utilisation=st.floats(0.3, 1),
    max_procs=st.integers(1, 3),
)


@st.composite
def profile_sets(draw: st.DrawFn) -> Profiles:
    """Points of two models: more slices, smaller batches and fewer processes answer sooner."""
    points = []
    for model in ("m", "n"):
        base, each = draw(st.floats(1, 40)), draw(st.floats(0.1, 40))
        for units in draw(st.sets(st.sampled_from([1, 2, 3, 4, 7]), min_size=1)) | {7}:
            for batch in draw(st.sets(st.sampled_from([1, 4, 8, 32]), min_size=1)):
                for procs in (1, 2, 3):
                    ms = base + each * batch / units * (0.5 + procs / 2)
                    points.append(point(units, batch, ms, model=model, procs=procs))
    return Profiles(tuple(points))


def plan_or_refusal(
    name: str, load: Workload, options: PlanOptions, profiles: Profiles
) -> Plan | InfeasibleError:
    quick = {"nodes": 50} if name == "exact" else {}
    try:
        return planner(name, **quick).plan(load, profiles, A100, options)
    except InfeasibleError as error:
        return error


@pytest.mark.parametrize("name", sorted(set(PLANNERS) - set(PERCENT)))
@settings(max_examples=40, deadline=None)
@given(DEMANDS, OPTIONS, profile_sets())
def test_every_plan_is_sound_or_refused(
    name: str, load: Workload, options: PlanOptions, profiles: Profiles
) -> None:
    plan = plan_or_refusal(name, load, options, profiles)
    if isinstance(plan, InfeasibleError):
        assert plan.tenant in {tenant.name for tenant in load.tenants}
        return
    assert check_plan(plan, load, profiles, A100, options) == ()
    assert lower_bound(load, profiles, A100, options) <= len(plan.gpus)
    assert plan.headroom is not None
    assert plan.headroom >= 1 / options.max_utilisation - 1 - 1e-6
    assert loads(dumps(plan)) == plan
    calmer = calm(plan, load, profiles, options)
    assert check_plan(calmer, load, profiles, A100, options) == ()
    assert (calmer.headroom or 0) >= 1 / options.max_utilisation - 1 - 1e-6
