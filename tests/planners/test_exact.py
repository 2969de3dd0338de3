"""The exact planner: proven counts, layouts by hand, and nothing that beats it."""

from __future__ import annotations

import published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planners import (
    A100,
    DEMANDS,
    HAND,
    PAPER,
    SCENARIOS,
    plan_or_refusal,
    profile_sets,
    tenant,
)

from spacetime.devices import mig
from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan, PlanOptions, require
from spacetime.planners.packing.layouts import layouts
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_import import gpulet
from spacetime.workload.workload import Workload

EXCLUSIVE = ("parvagpu", "mig-only", "whole-gpu")  # planners of one tenant a partition


def solved(load: Workload, options: PlanOptions = PAPER, **choices: object) -> Plan:
    profiles = published.parvagpu()
    plan = planner("exact", **choices).plan(load, profiles, A100, options)
    return require(plan, load, profiles, A100, options)


def test_layouts_of_mig_are_the_maximal_multisets() -> None:
    found = layouts([("mig", size) for size in mig.SIZES], A100)
    as_sizes = {tuple(sorted((u for (_, u), n in each.items() for _ in range(n)), reverse=True))
                for each in found}  # fmt: skip
    assert as_sizes == set(mig.maximal_multisets())
    assert layouts([("mig", 2), ("mig", 3)], A100) == (
        {("mig", 2): 3}, {("mig", 3): 1, ("mig", 2): 2}, {("mig", 3): 2},
    )  # fmt: skip


def test_layouts_of_shares_may_be_of_two_parts() -> None:
    sizes = [("mps", share) for share in (20, 40, 50, 60, 80, 100)]
    two = layouts(sizes, device("rtx-2080ti"), most_parts=2)
    assert all(sum(each.values()) <= 2 for each in two)
    assert {("mps", 20): 1, ("mps", 80): 1} in two
    assert {("mps", 100): 1} in two
    assert {("mps", 20): 5} in layouts(sizes, device("rtx-2080ti"))
    with pytest.raises(UnsupportedError, match="use fewer sizes or most_parts"):
        layouts([("sm", size) for size in range(1, 60)], A100)


def test_under_the_papers_rule_its_heuristic_is_optimal() -> None:
    for cap in (3, 5):
        options = PlanOptions(max_utilisation=1, max_procs=cap)
        plans = [solved(published.scenario(name), options, slo_factor=0.45)
                 for name in SCENARIOS]  # fmt: skip
        assert [len(plan.gpus) for plan in plans] == [2, 3, 5, 7]
        assert [plan.lower_bound_gpus for plan in plans] == [2, 3, 5, 7]


def test_the_rule_itself_costs_a_device() -> None:
    plan = solved(published.scenario("S4"))
    assert (len(plan.gpus), plan.lower_bound_gpus) == (6, 6)
    assert "6 devices are the fewest with one tenant a partition" in plan.explain()


def test_equal_devices_strand_no_slice_and_leave_headroom() -> None:
    plan = solved(published.scenario("S2"))
    heuristic = planner("parvagpu").plan(
        published.scenario("S2"), published.parvagpu(), A100, PAPER
    )
    slices = [sum(p.units for gpu in each.gpus for p in gpu.partitions)
              for each in (plan, heuristic)]  # fmt: skip
    assert slices == [21, 20]
    assert (plan.headroom or 0) > (heuristic.headroom or 0)


def test_out_of_time_it_returns_a_plan_and_its_bound() -> None:
    plan = solved(published.scenario("S4"), nodes=1)
    assert plan.planner == "exact"
    assert plan.lower_bound_gpus is not None
    assert plan.lower_bound_gpus <= 6 <= len(plan.gpus) <= 7


def test_shares_of_a_turing_device() -> None:
    profiles = gpulet(published.data("gpulet_fig3_latency.csv"))
    load = Workload((tenant("a", 400, 66, "googlenet"), tenant("b", 200, 142, "vgg16")))
    facts = device("rtx-2080ti")
    plan = planner("exact", most_parts=2).plan(load, profiles, facts, PAPER)
    require(plan, load, profiles, facts, PAPER)
    assert (len(plan.gpus), plan.lower_bound_gpus) == (1, 1)


def test_a_split_that_never_fills_names_the_tenant() -> None:
    # Batches of 100 fill in time from 1500 req/s and a partition answers 1515: 1600 is between.
    profiles = Profiles((Point("m", "a100-80gb", "mig", 1, 100, 1, 66, 1515),))
    fits, never = tenant("b", 3020, 132), tenant("a", 1600, 132)
    plan = planner("exact").plan(Workload((fits,)), profiles, A100, PAPER)
    assert [each.rate_rps for _, _, each in plan] == pytest.approx([1510, 1510])
    with pytest.raises(InfeasibleError, match="tenant a: fill: no split of 1600 req/s both fills"):
        planner("exact").plan(Workload((fits, never)), profiles, A100, PAPER)
    with pytest.raises(InfeasibleError, match="tenant b: fill: no batch on mig 1 both fills"):
        planner("exact").plan(Workload((fits,)), profiles, A100, PlanOptions(max_utilisation=0.6))


def test_too_few_devices() -> None:
    load = Workload((tenant("a", 3000),))
    with pytest.raises(
        InfeasibleError, match="tenant a: gpus: any plan needs 4 devices at least, there are 3"
    ):
        planner("exact").plan(load, HAND, A100, PlanOptions(gpus=3, max_utilisation=1))
    with pytest.raises(UnsupportedError, match="nodes: must be at least 1"):
        planner("exact", nodes=0)


@settings(max_examples=40, deadline=None)
@given(DEMANDS, st.floats(0.5, 1), profile_sets())
def test_no_heuristic_beats_the_optimum(load: Workload, ceiling: float, profiles: Profiles) -> None:
    options = PlanOptions(max_utilisation=ceiling)
    best = plan_or_refusal("exact", load, options, profiles)
    for name in EXCLUSIVE:
        other = plan_or_refusal(name, load, options, profiles)
        if isinstance(other, Plan):
            assert isinstance(best, Plan)
            assert len(other.gpus) >= len(best.gpus) >= (best.lower_bound_gpus or 0)


@settings(max_examples=20, deadline=None)
@given(DEMANDS, profile_sets(), st.integers(1, 12))
def test_more_devices_never_turn_feasible_into_infeasible(
    load: Workload, profiles: Profiles, gpus: int
) -> None:
    found = []
    for number in (gpus, gpus + 1):
        options = PlanOptions(gpus=number)
        found.append(isinstance(plan_or_refusal("exact", load, options, profiles), Plan))
    assert found != [True, False]
