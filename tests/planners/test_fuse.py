"""Families fused: where it saves devices, where it does not pay, and the same in simulation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planners import A100, plan_or_refusal

from spacetime.errors import PlanError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan, PlanOptions, check_plan
from spacetime.plan import require as sound
from spacetime.plan.deployment import deploy
from spacetime.planners.packing.fuse import fusions
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.workload.workload import Arrivals, Tenant, Workload

OPTIONS = PlanOptions(max_utilisation=0.9)


def whole(batch: int, ms: float, tenants: int = 1, mib: float | None = None) -> Point:
    rate = batch / ms * 1000
    return Point("m", A100.name, "mig", 7, batch, 1, ms, rate, tenants=tenants, memory_mib=mib)


def eight(rate_rps: float = 20, slo_ms: float = 100) -> Workload:
    return Workload(tuple(Tenant(f"t{n}", "m", slo_ms, rate_rps) for n in range(8)))


ALONE = (whole(1, 10), whole(8, 40))


def planned(load: Workload, profiles: Profiles) -> Plan:
    plan = planner("spacetime", nodes=100).plan(load, profiles, A100, OPTIONS)
    return sound(plan, load, profiles, A100, OPTIONS)


def test_fusing_halves_the_devices() -> None:
    # Apart a batch of 8 at 20 req/s never fills; 160 req/s in launches of 10 ms are 1.6 devices.
    # Together the eighth comes after 44 ms, 40 more answer all, and 160 of 200 req/s are used.
    apart = planned(eight(), Profiles(ALONE))
    fused = planned(eight(), Profiles((*ALONE, whole(8, 40, tenants=8))))
    assert (len(apart.gpus), len(fused.gpus)) == (2, 1)
    (part,) = fused.gpus[0].partitions
    assert part.fused
    assert {(each.tenant, each.batch) for each in part.tenants} == {(f"t{n}", 8) for n in range(8)}
    assert part.rate_rps == pytest.approx(160)
    assert part.tenants[0].latency_ms == pytest.approx(7 / 0.16 + 40)
    assert "shares launches with 7 more of m" in fused.explain()


def test_fusing_that_does_not_pay_is_left() -> None:
    slow = planned(eight(), Profiles((*ALONE, whole(8, 95, tenants=8))))
    assert len(slow.gpus) == 2
    assert not any(part.fused for gpu in slow.gpus for part in gpu.partitions)


def test_nothing_is_guessed_where_nothing_was_measured() -> None:
    assert list(fusions(eight(), Profiles(ALONE), 3)) == []
    two = Profiles((*ALONE, whole(8, 40, tenants=2)))  # a launch of eight inputs is of eight
    (pairs,) = [f for f in fusions(eight(), two, 3) if len(next(iter(f.groups.values()))) == 2]
    assert len(pairs.groups) == 4
    assert len(planned(eight(), two).gpus) == 2


def test_the_weights_of_all_members_are_in_memory() -> None:
    fits = (whole(1, 10, mib=9_000), whole(8, 40, tenants=8, mib=80_000))
    plan = planned(eight(), Profiles(fits))
    assert plan.gpus[0].partitions[0].memory_mib == 80_000
    heavy = (whole(1, 10, mib=9_000), whole(8, 40, tenants=8, mib=81_000))
    assert len(planned(eight(), Profiles(heavy)).gpus) == 2


FUSED = PartitionPlan("p", "mig", 7, tuple(
    Assignment(f"t{n}", 8, 20, 7 / 0.16 + 40) for n in range(8)
), 0, fused=True)  # fmt: skip
PROFILES = Profiles((*ALONE, whole(8, 40, tenants=8)))


def test_tenants_of_a_family_share_launches_in_simulation() -> None:
    plan = Plan("hand", A100.name, (GpuPlan(0, (FUSED,)),))
    load = replace(eight(), arrivals=Arrivals("constant"))
    run = simulate_plan(plan, load, PROFILES, SimOptions(duration_ns=10 * 10**9))
    (draw,) = run.replications
    (lane,) = draw.lanes
    answered = sum(tenant.completed for tenant in draw.tenants)
    assert answered == 8 * 200
    assert lane.launches < answered / 2  # eight come at once, and go at once
    assert min(run.attainments.values()) == 1.0
    apart = replace(FUSED, fused=False)  # each by itself: 160 launches of 10 ms a second
    late = simulate_plan(
        replace(plan, gpus=(GpuPlan(0, (apart,)),)), load, PROFILES,
        SimOptions(duration_ns=10 * 10**9),
    )  # fmt: skip
    assert min(late.attainments.values()) < 0.9


def test_who_shares_launches_shares_all_of_them() -> None:
    alone = PartitionPlan("q", "mig", 7, (Assignment("t0", 1, 20, 10),), 0)
    plan = Plan("hand", A100.name, (GpuPlan(0, (FUSED,)), GpuPlan(1, (alone,))))
    broken = check_plan(plan, eight(), PROFILES, A100, OPTIONS)
    assert [f"{each.where}: {each.bound}" for each in broken] == ["t0: family"]
    with pytest.raises(PlanError, match="t0: shares launches with others in some partitions only"):
        deploy(plan, eight(), PROFILES)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 9), st.floats(1, 300), st.floats(15, 500),
    st.tuples(st.sampled_from([2, 4, 8]), st.floats(5, 200)), st.sampled_from([(), (8,), (1, 8)]),
)  # fmt: skip
def test_fusion_never_costs_a_device(
    count: int, rate: float, slo_ms: float, fused: tuple[int, float], sizes: tuple[int, ...]
) -> None:
    tenants = (Tenant(f"t{n}", "m", slo_ms, rate, batch_sizes=sizes) for n in range(count))
    load, (several, ms) = Workload(tuple(tenants)), fused
    apart = plan_or_refusal("spacetime", load, OPTIONS, Profiles(ALONE))
    if isinstance(apart, Plan):
        both = planned(load, Profiles((*ALONE, whole(8, ms, tenants=several))))
        assert len(both.gpus) <= len(apart.gpus)
