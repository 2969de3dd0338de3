"""Planning a CPU: partitions are cores, and whoever needs no MIG plans them as any other kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.devices.facts import cpu, device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import PlanOptions, check_plan, require
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

FOR_CORES = ("spacetime", "exact", "whole-gpu", "time-only", "mps-default")


def point(model: str, cores: int, batch: int, ms: float, *, of: int = 2, procs: int = 1) -> Point:
    return Point(
        model, f"cpu-{of}", "cores", cores, batch, procs, ms, batch * procs / ms * 1000
    )  # fmt: skip


def profiles(of: int = 2, procs: int = 1) -> Profiles:
    """Two models, one three times the other, whose launches gain little from a second core."""
    return Profiles(tuple(
        point(model, cores, batch, scale * (1 + batch / 2) / cores**0.5 * count, of=of, procs=count)
        for model, scale in (("small", 1.0), ("large", 3.0))
        for cores in range(1, of + 1)
        for batch in (1, 2, 4, 8)
        for count in range(1, procs + 1)
    ))  # fmt: skip


def tenants(*asked: tuple[str, float, float]) -> Workload:
    return Workload(tuple(
        Tenant(name=f"t{n}", model=model, slo_ms=slo_ms, rate_rps=rate)
        for n, (model, slo_ms, rate) in enumerate(asked)
    ))  # fmt: skip


def test_a_cpu_package_is_known_by_its_cores() -> None:
    assert device("cpu-2") == device("sim:cpu-2") == cpu(2)
    assert cpu(2).whole("cores") == 2
    for kind in ("sm", "mps", "mig"):
        with pytest.raises(UnsupportedError, match=f"cpu-2 has no partitions of kind {kind}"):
            cpu(2).whole(kind)


@pytest.mark.parametrize("name", ["cpu", "cpu-0", "cpu-9999", "cpu-two"])
def test_other_names_of_a_cpu_say_how_it_is_named(name: str) -> None:
    with pytest.raises(UnsupportedError, match="a CPU is cpu-<cores>, such as cpu-8"):
        device(name)


@pytest.mark.parametrize("name", FOR_CORES)
def test_a_planner_that_needs_no_mig_plans_cores(name: str) -> None:
    load = tenants(("small", 60, 150), ("large", 90, 30), ("small", 60, 10))
    points, options = profiles(procs=3), PlanOptions()
    plan = require(planner(name).plan(load, points, cpu(2), options), load, points, cpu(2), options)
    assert {part.kind for _, part, _ in plan} == {"cores"}


def test_a_hosts_memory_bounds_no_plan() -> None:
    load, options = tenants(("small", 60, 100)), PlanOptions()
    points = Profiles(tuple(replace(each, memory_mib=9000.0) for each in profiles()))
    require(planner("whole-gpu").plan(load, points, cpu(2), options), load, points, cpu(2), options)


def test_more_cores_than_there_are_break_the_plan() -> None:
    load, points, options = tenants(("small", 60, 100)), profiles(of=4), PlanOptions()
    plan = planner("whole-gpu").plan(load, points, cpu(4), options)
    broken = [str(each) for each in check_plan(plan, load, points, cpu(2), options)]
    assert "gpu 0: units: 4 of cores, the device has 2" in broken


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("small", "large")), st.floats(5, 200), st.floats(1, 400)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 4),
)
def test_any_demand_is_planned_soundly_or_refused(
    asked: list[tuple[str, float, float]], cores: int
) -> None:
    load, points, options = tenants(*asked), profiles(of=cores), PlanOptions()
    for name in ("whole-gpu", "time-only", "spacetime"):
        try:
            plan = planner(name, **({"nodes": 50} if name == "spacetime" else {})).plan(
                load, points, cpu(cores), options
            )
        except InfeasibleError:
            continue
        require(plan, load, points, cpu(cores), options)
