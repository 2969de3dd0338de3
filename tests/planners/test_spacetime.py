"""Our own planner: never worse than what it starts from, and devices that time makes needless."""

from __future__ import annotations

from dataclasses import replace

import published
import pytest
from hypothesis import given, settings
from test_planners import A100, DEMANDS, PAPER, SCENARIOS, plan_or_refusal, profile_sets, tenant

from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, PlanOptions, require
from spacetime.planners.packing.consolidate import consolidate
from spacetime.planners.registry import planner
from spacetime.planners.spacetime import BESIDE, START_FROM
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Workload

CEILING = PlanOptions(max_utilisation=0.9)


def small(count: int, rate_rps: float = 10.0) -> Workload:
    return Workload(tuple(tenant(f"t{i}", rate_rps, slo_ms=400) for i in range(count)))


def line() -> Profiles:
    """A model whose launches take 2 ms and 1 ms an input on every size: slices hardly matter."""
    return Profiles(
        tuple(
            Point("m", A100.name, "mig", units, batch, 1, 2.0 + batch, 1000 * batch / (2.0 + batch))
            for units in (1, 2, 3, 4, 7)
            for batch in (1, 2, 4, 8, 16)
        )
    )


def planned(load: Workload, profiles: Profiles, options: PlanOptions = CEILING) -> Plan:
    plan = planner("spacetime").plan(load, profiles, A100, options)
    return require(plan, load, profiles, A100, options)


def test_tenants_that_need_little_time_share_partitions() -> None:
    load = small(40)
    apart = planner("parvagpu").plan(load, line(), A100, CEILING)
    plan = planned(load, line())
    assert len(apart.gpus) == 6  # seven partitions a device, one tenant in each
    assert len(plan.gpus) == 1
    assert any(len(p.tenants) > 1 for p in plan.gpus[0].partitions)
    assert "idle units and time made needless" in plan.explain()


def test_a_device_that_cannot_be_emptied_stays() -> None:
    load = small(7, rate_rps=600)
    before = planner("parvagpu").plan(load, line(), A100, CEILING)
    assert consolidate(before, load, line(), A100, CEILING) is before


def test_what_is_emptied_serves_every_rate() -> None:
    load = small(23, rate_rps=37.0)
    plan = planned(load, line())
    for each in load.tenants:
        assert sum(plan.routes(each.name).values()) == pytest.approx(1)
        served = sum(a.rate_rps for _, _, a in plan if a.tenant == each.name)
        assert served == pytest.approx(37.0)


def test_stretches_of_many_devices_are_emptied_and_then_their_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = small(60)
    before = planner("mig-only").plan(load, line(), A100, CEILING)
    monkeypatch.setattr("spacetime.planners.packing.consolidate.STRETCH", 3)
    after = consolidate(before, load, line(), A100, CEILING)
    require(after, load, line(), A100, CEILING)
    assert (len(before.gpus), len(after.gpus)) == (9, 1)


def test_devices_of_one_plan_may_be_of_different_kinds() -> None:
    mps = [replace(point, model="n", kind="mps", units=40) for point in line() if point.units == 4]
    load = Workload((*small(3).tenants, tenant("share", 10.0, slo_ms=400, model="n")))
    plan = planned(load, Profiles((*line(), *mps)))
    kinds = [{part.kind for part in gpu.partitions} for gpu in plan.gpus]
    assert sorted(map(sorted, kinds)) == [["mig"], ["mps"]]


def test_too_few_devices_are_refused_with_the_bound() -> None:
    load = small(30, rate_rps=400)
    needed = len(planned(load, line()).gpus)
    options = PlanOptions(max_utilisation=0.9, gpus=needed - 1)
    with pytest.raises(InfeasibleError, match=f"needs {needed} devices.*, there are {needed - 1}"):
        planner("spacetime").plan(load, line(), A100, options)


def test_what_no_planner_serves_is_refused_as_the_first_refuses_it() -> None:
    load = Workload((tenant("t", 1.0, slo_ms=0.5),))
    with pytest.raises(InfeasibleError, match="latency"):
        planner("spacetime").plan(load, line(), A100, CEILING)


@pytest.mark.parametrize("options", [PAPER, CEILING])
@pytest.mark.parametrize("name", SCENARIOS)
def test_published_scenarios_take_no_more_than_any_paper(name: str, options: PlanOptions) -> None:
    load, profiles = published.scenario(name), published.parvagpu()
    plan = planned(load, profiles, options)
    for other in ("parvagpu", "mig-only"):
        assert len(plan.gpus) <= len(planner(other).plan(load, profiles, A100, options).gpus)


@settings(max_examples=25, deadline=None)
@given(DEMANDS, profile_sets())
def test_it_is_never_worse_than_where_it_starts_from(load: Workload, profiles: Profiles) -> None:
    ours = plan_or_refusal("spacetime", load, CEILING, profiles)
    for name in (*START_FROM, *BESIDE):
        other = plan_or_refusal(name, load, CEILING, profiles)
        if isinstance(other, Plan):
            assert isinstance(ours, Plan)
            assert len(ours.gpus) <= len(other.gpus)
    if isinstance(ours, Plan):
        require(ours, load, profiles, A100, CEILING)
