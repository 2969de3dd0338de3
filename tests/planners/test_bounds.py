"""What binds a tenant and what a cheaper plan would break, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from test_planners import A100, DEMANDS, HAND, plan_or_refusal, point, profile_sets, tenant
from test_spacetime import CEILING, line, small

from spacetime.plan import Plan, PlanOptions
from spacetime.planners.packing.bounds import explained
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload

ONE = PlanOptions(max_utilisation=0.9, max_procs=1)


def said(plan: Plan, load: Workload, profiles: Profiles, options: PlanOptions = ONE) -> list[str]:
    """The reasons `explained` adds."""
    more = explained(plan, load, profiles, A100, options)
    assert more.reasons[: len(plan.reasons)] == plan.reasons
    assert replace(more, reasons=plan.reasons) == plan
    return [f"{why.tenant}: {why.text}" for why in more.reasons[len(plan.reasons) :]]


def test_a_tenant_in_parts_is_told_the_share_of_each() -> None:
    load = Workload((tenant("a", 170),))  # 50 req/s a slice at 0.9: four of them
    plan = planner("mig-only").plan(load, HAND, A100, ONE)
    lines = said(plan, load, HAND)
    assert len(lines) == 5
    assert lines[0].startswith("a: on g0p0 gets 25% of its requests; utilisation ceiling binds")
    assert lines[0].endswith("busy 0.85 of 0.9; it has no smaller partition in time")


@pytest.mark.parametrize(
    ("points", "rate", "slo_ms", "expected"),
    [
        (((2, 8, 40), (1, 8, 80)), 170, 90,
         "utilisation ceiling binds: busy 0.85 of 0.9; mig 1 would need 1.89 of its"),
        (((1, 1, 50),), 5, 51, "SLO binds: answered within 50 of 51 ms"),
        (((1, 16, 10),), 100, 162, "batch fill binds: a batch of 16 fills in 150 of 162 ms"),
    ],
)  # fmt: skip
def test_the_tightest_bound_is_the_one_that_binds(
    points: tuple[tuple[int, int, float], ...], rate: float, slo_ms: float, expected: str
) -> None:
    profiles = Profiles(tuple(point(*each) for each in points))
    load = Workload((tenant("a", rate, slo_ms),))
    plan = planner("mig-only").plan(load, profiles, A100, ONE)
    first, *rest = said(plan, load, profiles)
    assert expected in first
    assert rest == ["a: one device fewer: there would be none"]


def test_memory_binds_where_it_is_fullest() -> None:
    profiles = Profiles(tuple(replace(each, memory_mib=9800.0) for each in (point(1, 1, 5),)))
    load = Workload((tenant("a", 5),))
    plan = planner("mig-only").plan(load, profiles, A100, ONE)
    assert "memory binds: 9,800 of 9,856 MiB" in said(plan, load, profiles)[0]


def test_one_device_fewer_names_who_is_refused_and_by_how_much() -> None:
    load = small(8, rate_rps=600)  # a partition alone answers 889 of them a second, 800 at 0.9
    plan = planner("spacetime", most_exact=0).plan(load, line(), A100, CEILING)
    assert len(plan.gpus) == 2
    (last,) = (why.text for why in plan.reasons if "one device fewer" in why.text)
    # Two of 600 on one partition of at most 889 x 0.9 a second: 1200 / 800.
    assert last.startswith("one device fewer: 600 req/s would need 1.50 of g0p")
    assert last.endswith("its ceiling, utilisation bound")


@settings(max_examples=25, deadline=None)
@given(DEMANDS, profile_sets())
def test_every_tenant_is_told_what_binds_it(load: Workload, profiles: Profiles) -> None:
    plan = plan_or_refusal("spacetime", load, CEILING, profiles)
    if isinstance(plan, Plan):
        text = plan.explain()
        assert "one device fewer" in text
        for each in load.tenants:
            assert any(
                line.startswith(f"{each.name}: on ") and " binds: " in line
                for line in text.splitlines()
            )
