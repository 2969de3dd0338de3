"""Device memory: the checker's sums by hand, and planners that keep to them or say why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_check import PROFILES, part, plan, workload
from test_planners import A100, DEMANDS, OPTIONS, PERCENT, plan_or_refusal, profile_sets, tenant

from spacetime.errors import InfeasibleError
from spacetime.plan import Assignment, Plan, PlanOptions, calm, check_plan, require
from spacetime.plan.plan import PartitionPlan
from spacetime.plan.timing import alone_ms
from spacetime.planners.registry import PLANNERS, planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Workload

FULL = PlanOptions(max_utilisation=1)
GIB = 1024


def heavy(mib: float, profiles: Profiles = PROFILES) -> Profiles:
    """The points, each process of which needs so much."""
    return Profiles(tuple(replace(point, memory_mib=mib) for point in profiles))


def lines(found: Plan, mib: float, **rates: float) -> list[str]:
    broken = check_plan(found, workload(**rates), heavy(mib), A100, FULL)
    return [str(each) for each in broken]


def test_a_mig_instance_has_its_own_memory() -> None:
    one = part("p", 1, Assignment("a", 1, 40, 20), start=0)
    assert lines(plan(one), 9856, a=40) == []
    assert lines(plan(one), 9857, a=40) == ["p: memory: a need 9,857 MiB, there are 9,856"]


def test_every_process_needs_its_own() -> None:
    three = plan(part("p", 7, Assignment("a", 8, 300, alone_ms(8, 300, 30)), start=0, procs=3))
    assert lines(three, 80384 / 3, a=300) == []
    assert lines(three, 80384 / 3 + 1, a=300) == ["p: memory: a need 80,387 MiB, there are 80,384"]


def test_partitions_of_a_share_add_up_to_the_device() -> None:
    two = [part(name, 40, Assignment(name, 8, 140, alone_ms(8, 140, 40)), kind="mps")
           for name in "ab"]  # fmt: skip
    rates = {"a": 140.0, "b": 140.0}
    assert lines(plan(*two), 40 * GIB, **rates) == []
    assert lines(plan(*two), 40 * GIB + 1, **rates) == [
        "gpu 0: memory: a, b need 81,922 MiB, there are 81,920"
    ]


def test_a_cycle_keeps_all_its_tenants_in_memory() -> None:
    turns = [Assignment(name, 8, 100, 80 + 16, duty_ms=80) for name in "ab"]
    cycle = plan(part("p", 100, *turns, kind="mps"))
    assert lines(cycle, 40 * GIB, a=100, b=100) == []
    assert "gpu 0: memory: a, b need" in lines(cycle, 41 * GIB, a=100, b=100)[0]


def test_tenants_that_share_launches_share_a_process() -> None:
    shared = Point("m", A100.name, "mig", 1, 8, 1, 40, 200, tenants=4, memory_mib=4000)
    single = Point("m", A100.name, "mig", 1, 1, 1, 10, 100, memory_mib=1000)
    for members, needed in ((4, 4000), (8, 8000)):
        load = workload(**dict.fromkeys("abcdefgh"[:members], 160 / members))
        fused = [Assignment(name, 4, 160 / members, 100) for name in "abcdefgh"[:members]]
        found = plan(PartitionPlan("p", "mig", 1, tuple(fused), 0, fused=True))
        less = replace(found.gpus[0].partitions[0], memory_mib=needed - 1)
        broken = check_plan(plan(less), load, Profiles((shared, single)), A100, FULL)
        assert [str(each) for each in broken if each.bound == "promise"] == [
            f"p: promise: states {needed - 1:,} MiB, it needs {needed:,}"
        ]


def test_a_tenant_larger_than_any_partition_is_refused() -> None:
    load = Workload((tenant("a", 10, 1000),))
    for name in sorted(set(PLANNERS) - set(PERCENT)):
        with pytest.raises(InfeasibleError, match="tenant a: memory: 1 process at batch 1 on mig"):
            planner(name).plan(load, heavy(90_000, ALL), A100, PlanOptions())


ALL = Profiles(
    tuple(
        Point("m", A100.name, kind, units, batch, procs, 2.0 * batch, 500.0 * procs)
        for kind, units in (("mig", 1), ("mig", 7), ("mps", 20), ("mps", 40), ("mps", 60),
                            ("mps", 80), ("mps", 50), ("mps", 100))
        for batch in (1, 8)
        for procs in (1, 3)
    )
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_planners_spread_what_one_device_cannot_hold(name: str) -> None:
    load = Workload(tuple(tenant(f"t{number}", 5, 400) for number in range(8)))
    free = planner(name).plan(load, ALL, A100, FULL)
    # Of 25 GiB three fit a device, and none fits the smallest instance of MIG.
    bound = heavy(25 * GIB, ALL)
    found = require(planner(name).plan(load, bound, A100, FULL), load, bound, A100, FULL)
    assert len(found.gpus) >= max(3, len(free.gpus))
    assert all(p.memory_mib for gpu in found.gpus for p in gpu.partitions)


def test_exact_packs_memory_that_units_alone_would_exceed() -> None:
    load = Workload(tuple(tenant(f"t{number}", 5, 400) for number in range(4)))
    points = Profiles(tuple(
        replace(point, memory_mib=30 * GIB) for point in ALL if (point.kind, point.units)
        in {("mps", 20), ("mps", 40)}
    ))  # fmt: skip
    plan = planner("exact").plan(load, points, A100, FULL)
    require(plan, load, points, A100, FULL)
    assert len(plan.gpus) == 2
    assert plan.lower_bound_gpus == 1  # what is proven does not count memory that is shared


MEMORY = st.floats(100, 60_000)


@pytest.mark.parametrize("name", sorted(PLANNERS))
@settings(max_examples=10, deadline=None)
@given(DEMANDS, OPTIONS, profile_sets(), st.tuples(MEMORY, st.floats(0, 500)))
def test_every_plan_keeps_to_the_memory_or_is_refused(
    name: str, load: Workload, options: PlanOptions, profiles: Profiles,
    memory: tuple[float, float],
) -> None:  # fmt: skip
    base, each = memory
    if name in PERCENT:
        profiles = Profiles(tuple(
            replace(point, kind="mps", units={1: 20, 2: 40, 3: 50, 4: 60, 7: 100}[point.units])
            for point in profiles
        ))  # fmt: skip
    profiles = Profiles(
        tuple(replace(point, memory_mib=base + each * point.batch) for point in profiles)
    )
    found = plan_or_refusal(name, load, options, profiles)
    if isinstance(found, Plan):
        assert check_plan(found, load, profiles, A100, options) == ()
        assert check_plan(calm(found, load, profiles, options), load, profiles, A100, options) == ()
