"""The checker: a sound plan of every way of sharing passes, and each defect is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, PlanError, UnsupportedError
from spacetime.plan import (
    Assignment,
    GpuPlan,
    PartitionPlan,
    Plan,
    PlanOptions,
    Reason,
    check_plan,
    require,
)
from spacetime.plan.plan_json import dumps, from_json, loads, to_json
from spacetime.plan.timing import alone_ms, cycle_ms
from spacetime.planners.registry import planner  # fmt: skip
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

A100 = device("a100-80gb")
FULL = PlanOptions(max_utilisation=1)


def point(kind: str, units: int, batch: int, ms: float, *, model: str = "m",
          procs: int = 1) -> Point:  # fmt: skip
    return Point(model, "a100-80gb", kind, units, batch, procs, ms, batch * procs / ms * 1000)


def workload(**rates: float) -> Workload:
    return Workload(
        tuple(Tenant(name=name, model="m", slo_ms=100, rate_rps=rate)
              for name, rate in rates.items())
    )  # fmt: skip


PROFILES = Profiles((
    *(point("mig", units, 8, 80 / units) for units in (1, 2, 3, 4, 7)),
    point("mig", 1, 1, 20), point("mig", 7, 1, 5),
    point("mig", 7, 8, 30, procs=3),
    *(point("mps", units, 8, 1600 / units) for units in (40, 60, 100)),
))  # fmt: skip


def part(name: str, units: int, *tenants: Assignment, start: int | None = None, kind: str = "mig",
         procs: int = 1, parent: str | None = None) -> PartitionPlan:  # fmt: skip
    return PartitionPlan(name, kind, units, tenants, start, procs, parent)


def plan(*partitions: PartitionPlan, **more: Any) -> Plan:
    return Plan("hand", "a100-80gb", (GpuPlan(0, partitions),), **more)


def alone(tenant: str = "a", rate: float = 100, batch: int = 8, ms: float = 20) -> Assignment:
    return Assignment(tenant, batch, rate, alone_ms(batch, rate, ms))


SOUND = plan(part("p", 4, alone(), start=0))


def words(found: Plan, load: Workload, options: PlanOptions = FULL) -> list[str]:
    return [
        f"{each.where}: {each.bound}" for each in check_plan(found, load, PROFILES, A100, options)
    ]


def test_one_tenant_alone_is_sound() -> None:
    assert require(SOUND, workload(a=100), PROFILES, A100) is SOUND


def test_a_cycle_of_two_is_sound() -> None:
    turns = [Assignment(name, 8, 100, 80 + 16, duty_ms=80) for name in "ab"]
    cycle = plan(part("p", 100, *turns, kind="mps"))
    assert words(cycle, workload(a=100, b=100)) == []
    both = PlanOptions(turns="all")  # the other's turn is waited for as well: 80 + 32
    assert words(cycle, workload(a=100, b=100), both) == [
        "a on p: fill", "a on p: promise", "b on p: fill", "b on p: promise",
    ]  # fmt: skip


def test_processes_side_by_side_are_sound() -> None:
    each = [Assignment(name, 8, 200, alone_ms(8, 200, 30)) for name in "abc"]
    together = plan(part("p", 7, *each, start=0, procs=3))
    assert words(together, workload(a=200, b=200, c=200)) == []


def test_slices_of_time_lengthen_every_launch() -> None:
    two = [Assignment(name, 1, 60, 2 * 5) for name in "ab"]
    sliced = plan(part("p", 7, *two, start=0))
    assert words(sliced, workload(a=60, b=60)) == []
    assert words(sliced, workload(a=60, b=60), PlanOptions(max_utilisation=0.5)) == [
        "p: utilisation"
    ]


FUSED = Profiles((
    point("mig", 1, 1, 10), replace(point("mig", 1, 8, 40), tenants=4),
    *(replace(point("mig", units, 16, 120 / units), tenants=8) for units in (1, 2)),
))  # fmt: skip


def fused(batch: int, rate: float, names: str, units: int = 1, **more: Any) -> Plan:
    shared = [Assignment(name, batch, rate, 100) for name in names]
    return plan(PartitionPlan("p", "mig", units, tuple(shared), 0, fused=True, **more))


def test_tenants_that_share_launches_fill_them_together() -> None:
    four = workload(a=40, b=40, c=40, d=40)
    # Alone at 40 req/s the eighth comes after 175 ms; together after 44, and 40 more answer it.
    assert check_plan(fused(8, 40, "abcd"), four, FUSED, A100, FULL) == ()
    assert FUSED.at_fused("m", "mig", 1, 8, tenants=4) == FUSED.points[1]
    broken = check_plan(fused(8, 51, "abcd"), workload(a=50, b=50, c=50, d=50), FUSED, A100, FULL)
    assert [str(each) for each in broken] == [
        "p: utilisation: busy 1.02 of the time, the ceiling is 1"
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (fused(8, 40, "abcdefgh"), ["a on p: latency"]),  # eight tenants: 16 inputs
        (fused(16, 40, "abcdefghi", 2), ["p: profile"]),  # of nine there is none
        (fused(16, 10, "ab", 2), ["a on p: fill"]),
        (fused(8, 40, "aa"), ["p: tenant"]),
        (plan(replace(fused(8, 40, "ab").gpus[0].partitions[0], tenants=(
            Assignment("a", 8, 40, 100), Assignment("b", 4, 40, 100),
        ))), ["p: batch"]),
        (plan(replace(fused(8, 40, "ab").gpus[0].partitions[0], tenants=(
            Assignment("a", 8, 40, 100, 90), Assignment("b", 8, 40, 100, 90),
        ))), ["p: duty"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_shared_launches_is_named(found: Plan, expected: list[str]) -> None:
    names = sorted({each.tenant for _, _, each in found})
    load = workload(**dict.fromkeys(names, 10.0))
    lines = [f"{each.where}: {each.bound}" for each in check_plan(found, load, FUSED, A100, FULL)]
    assert lines[: len(expected)] == expected


def test_only_one_model_is_fused() -> None:
    two = Workload((*workload(a=40).tenants, replace(workload(b=40).tenants[0], model="n")))
    both = Profiles((*FUSED.points, *(replace(point, model="n") for point in FUSED.points)))
    broken = check_plan(fused(8, 40, "ab"), two, both, A100, FULL)
    assert str(broken[0]) == "p: family: m and n do not share launches"


CYCLE = Assignment("a", 8, 100, 96, duty_ms=80)
DEFECTS = [
    (plan(part("p", 4, alone(), start=4)), ["p: placement"]),
    (plan(part("p", 4, alone())), ["p: placement"]),
    (plan(part("p", 4, alone(), start=0), part("q", 2, start=2)), ["gpu 0: placement"]),
    (plan(part("p", 4, alone(), start=0), part("q", 20, kind="mps")), ["gpu 0: kind"]),
    (plan(part("p", 4, alone(), start=0), part("p", 1, start=4)), ["p: id"]),
    (plan(part("p", 60, alone(), kind="mps")), ["a on p: promise"]),
    (plan(part("p", 100, alone(), kind="mps"), part("q", 1, kind="mps")), ["gpu 0: units"]),
    (plan(part("p", 8, kind="cores"), part("q", 1)), ["gpu 0: kind", "gpu 0: kind",
                                                       "q: placement", "a: rate"]),
    (plan(part("p", 4, alone(rate=99), start=0)), ["a: rate"]),
    (plan(part("p", 4, replace(alone(), rate_rps=-1), start=0)), ["a on p: rate", "a: rate"]),
    (plan(part("p", 4, alone(batch=9), start=0)), ["p: profile"]),
    (plan(part("p", 1, alone(ms=80), start=0)), ["a on p: fill"]),
    (plan(part("p", 4, replace(alone(), latency_ms=1), start=0)), ["a on p: promise"]),
    (plan(part("p", 4, alone("z"), start=0)), ["p: tenant", "a: rate"]),
    (plan(part("p", 7, alone(), alone(), start=0, procs=5)),
     ["p: procs", "p: profile", "p: profile"]),
    (plan(part("p", 100, replace(CYCLE, batch=7), kind="mps")), ["a on p: rate"]),
    (plan(part("p", 100, replace(CYCLE, duty_ms=8, latency_ms=24), kind="mps")), ["p: duty"]),
    (plan(part("p", 4, start=0), part("q", 50, alone(), kind="mps", parent="p")), ["q: profile"]),
    (plan(part("p", 4, alone(), start=0), part("q", 50, kind="mps", parent="p")), ["p: nesting"]),
    (plan(part("p", 4, alone(), start=0), part("q", 50, kind="mps", parent="z")), ["q: nesting"]),
    (plan(part("p", 4, start=0), part("q", 1, kind="mig", parent="p")), ["q: nesting", "a: rate"]),
    (plan(part("p", 4, alone(), start=0), part("q", 1, start=4),
          part("r", 15, kind="sm", parent="q")), ["q: units"]),
    (replace(SOUND, device="h100-80gb"), ["plan: device", "plan: device"]),
    (replace(SOUND, gpus=SOUND.gpus * 2), ["plan: gpus", "gpu 0: id", "p: id"]),
    (replace(SOUND, lower_bound_gpus=2), ["plan: gpus"]),
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), DEFECTS)
def test_each_defect_is_named(found: Plan, expected: list[str]) -> None:
    lines = words(found, workload(a=100), PlanOptions(gpus=1, max_utilisation=1))
    assert [line for line in lines if line != "p: utilisation"] == expected


def test_utilisation_has_a_ceiling() -> None:
    tight = plan(part("p", 4, alone(rate=380), start=0))
    assert words(tight, workload(a=380)) == []
    with pytest.raises(
        PlanError, match=r"hand: p: utilisation: busy 0\.95 of the time, the ceiling"
    ):
        require(tight, workload(a=380), PROFILES, A100)


def test_only_the_batches_a_tenant_allows() -> None:
    tenant = Tenant(name="a", model="m", slo_ms=100, rate_rps=100, batch_sizes=(1, 4))
    assert words(SOUND, Workload((tenant,))) == ["a on p: batch"]


def test_bounds_of_the_worked_example() -> None:
    # Nexus §4.1: A's batch of 8 at 64 req/s makes a cycle of 125 ms; B fits with 50, C not with 60.
    duty_ms = 8 / 64 * 1000
    assert cycle_ms(duty_ms, 75, 125) == 200
    assert 75 + 50 <= duty_ms < 75 + 60


def test_routes_follow_the_planned_rates() -> None:
    two = plan(part("p", 4, alone(rate=75), start=0), part("q", 2, alone(rate=25), start=4))
    assert two.routes("a") == {"p": 0.75, "q": 0.25}
    with pytest.raises(KeyError):
        two.routes("b")


def test_json_is_equal_after_a_round_trip() -> None:
    cycle = part("q", 2, replace(CYCLE), start=4, parent="p")
    full = plan(part("p", 4, alone(), start=0, procs=2), cycle, lower_bound_gpus=1, headroom=0.5,
                reasons=(Reason("a", "why"),))  # fmt: skip
    assert loads(dumps(full)) == full
    assert loads(dumps(SOUND)) == SOUND
    shared = fused(8, 40, "ab", memory_mib=1.5)
    assert loads(dumps(shared)) == shared
    assert SOUND.explain() in full.explain().replace(", 2 procs", ", 1 procs")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "spacetime.plan/9", "format: must be spacetime.plan/1"),
        (["gpus"], {}, "gpus: must be a list"),
        (["gpus", 0, "id"], -1, r"gpus\[0\].id: must be a whole number from 0"),
        (["gpus", 0, "partitions", 0, "units"], True, r"partitions\[0\].units: must be a whole"),
        (["gpus", 0, "partitions", 0, "kind"], "gpc", "kind: must be one of cores"),
        (["gpus", 0, "partitions", 0, "tenants", 0, "rate_rps"], float("nan"), "rate_rps: must be"),
        (["gpus", 0, "partitions", 0, "fused"], 1, "fused: must be true or false, got 1"),
        (["gpus", 0, "partitions", 0, "memory_mib"], -1, "memory_mib: must be a number from 0"),
        (["gpus", 0, "partitions", 0, "start"], None, "start: must be a whole number from 0, got"),
        (["gpus", 0, "partitions", 0, "procs"], 2**31, "procs: must be a whole number from 1, got"),
        (["gpus", 0, "partitions", 0, "id"], "", "id: must be a text that is not empty, got ''"),
        (["headroom"], float("inf"), "headroom: must be a number from 0, got inf"),
        (["policy"], "elsa\n", "policy: must be one of time-only"),
        (["gpus", 0, "partitions", 0, "wide"], 1, "wide: is not a field here; there are id, kind"),
    ],
)
def test_a_bad_plan_is_one_line(path: list[Any], value: object, message: str) -> None:
    data: Any = to_json(SOUND)
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(PlanError, match=message) as caught:
        loads(json.dumps(data), where="plan.json")
    assert str(caught.value).startswith("plan.json: ")


def test_a_missing_field_and_broken_json() -> None:
    data = to_json(SOUND)
    del data["planner"]
    with pytest.raises(PlanError, match="planner: is missing; add it"):
        from_json(data)
    with pytest.raises(PlanError, match="x: is not JSON"):
        loads("{", where="x")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["format", "gpus", "id", "partitions", "x"]), inner)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_no_json_brings_anything_but_a_plan_error(whole: object, gpus: object) -> None:
    for data in (whole, {**to_json(SOUND), "gpus": gpus}, {**to_json(SOUND), "gpus": [gpus]}):
        assert isinstance(read_or_refuse(data), Plan | PlanError)


def read_or_refuse(data: object) -> Plan | PlanError:
    try:
        return from_json(data)
    except PlanError as error:
        return error


def test_errors_name_tenant_and_bound() -> None:
    error = InfeasibleError("a", "latency", "the fastest point takes 9 ms, the objective is 5 ms")
    assert str(error) == "tenant a: latency: the fastest point takes 9 ms, the objective is 5 ms"
    with pytest.raises(UnsupportedError, match="planner: 'best' is none of"):
        planner("best")
    with pytest.raises(UnsupportedError, match="max_utilisation: must be above 0 and at most 1"):
        PlanOptions(max_utilisation=1.1)
