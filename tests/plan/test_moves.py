"""From one plan to the next: nothing is taken away before its replacement is there."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.devices import mig
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.moves import Move, MoveStep, move


def part(name: str, units: int, *tenants: str, start: int | None = None, kind: str = "mps",
         batch: int = 4, rate: float = 10.0) -> PartitionPlan:  # fmt: skip
    serves = tuple(Assignment(each, batch, rate, 50.0) for each in tenants)
    return PartitionPlan(name, kind, units, serves, start)


def plan(*gpus: tuple[PartitionPlan, ...]) -> Plan:
    return Plan("test", "a100-80gb", tuple(GpuPlan(n, each) for n, each in enumerate(gpus)))


def instance(name: str, units: int, start: int, *tenants: str) -> PartitionPlan:
    return part(name, units, *tenants, start=start, kind="mig")


def test_the_same_plan_needs_no_step() -> None:
    one = plan((part("a", 50, "x"), part("b", 50, "y")))
    found = move(one, one)
    assert (found.steps, found.stays, found.devices) == ((), {"a", "b"}, (0,))
    assert found.new == one


def test_another_rate_or_batch_changes_routes_only() -> None:
    found = move(plan((part("a", 50, "x"),)), plan((part("z", 50, "x", batch=8),)))
    assert found.steps == (MoveStep("route", "x"),)
    assert [each.id for each in found.new.gpus[0].partitions] == ["a"]


def test_shadows_open_first_then_routes_then_the_old_drains_and_closes() -> None:
    old, new = plan((part("a", 40, "x"), part("b", 60, "y"))), plan((part("a", 70, "x"),))
    assert move(old, new).steps == (
        MoveStep("open", "a+1"), MoveStep("route", "x"),
        MoveStep("drain", "a"), MoveStep("drain", "b"),
        MoveStep("close", "a"), MoveStep("close", "b"),
    )  # fmt: skip


def test_partitions_by_percent_overlap_on_their_device() -> None:
    found = move(plan((part("a", 100, "x"),)), plan((part("b", 60, "x"),)))
    assert found.devices == (0,)


def test_an_instance_beside_free_slices_opens_on_the_same_device() -> None:
    old = plan((instance("a", 3, 0, "x"),))
    new = plan((instance("a", 3, 0, "x"), instance("b", 2, 4, "y")))
    found = move(old, new)
    assert (found.opens, found.closes, found.devices) == (("b",), (), (0,))


def test_an_instance_over_an_old_one_opens_on_another_device() -> None:
    found = move(plan((instance("a", 3, 0, "x"),)), plan((instance("b", 4, 0, "x"),)))
    assert found.devices == (0, 1)
    assert [gpu.id for gpu in found.new.gpus] == [1]


def test_kinds_do_not_share_a_device() -> None:
    found = move(plan((instance("a", 3, 0, "x"),)), plan((part("b", 50, "x"),)))
    assert found.devices == (0, 1)


def test_devices_are_matched_by_what_they_keep_not_by_number() -> None:
    one, two = (instance("a", 7, 0, "x"),), (instance("b", 3, 0, "y"), instance("c", 3, 4, "z"))
    found = move(plan(one, two), plan(two))
    assert (found.opens, found.closes, found.devices) == ((), ("a",), (0, 1))
    assert [gpu.id for gpu in found.new.gpus] == [1]


def test_a_partition_for_other_tenants_is_another_partition() -> None:
    found = move(plan((part("a", 50, "x"),)), plan((part("a", 50, "y"),)))
    assert (found.opens, found.closes) == (("a+1",), ("a",))


def drawn(rng: random.Random) -> Plan:
    gpus = []
    for number in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            layout = rng.choice(mig.maximal_layouts())
            kept = [each for each in layout if rng.random() < 0.8] or list(layout)
            gpus.append(tuple(
                instance(f"{number}/{n}", each.units, each.start, rng.choice("xyz"))
                for n, each in enumerate(kept)
            ))  # fmt: skip
        else:
            sizes = rng.choice([(100,), (40, 60), (30, 30, 40)])
            gpus.append(tuple(
                part(f"{number}/{n}", size, rng.choice("xyz"), rate=rng.choice([5.0, 10.0]))
                for n, size in enumerate(sizes)
            ))  # fmt: skip
    return plan(*gpus)


def units_at_once(found: Move) -> None:
    """All of both plans lies on the devices together, instances without overlap."""
    after = {gpu.id: gpu.partitions for gpu in found.new.gpus}
    before = {gpu.id: gpu.partitions for gpu in found.old.gpus}
    for number in found.devices:
        new = [each for each in after.get(number, ()) if each.id in found.opens]
        both = [*before.get(number, ()), *new]
        assert not new or len({each.kind for each in both}) == 1
        if both[0].kind == "mig":
            assert mig.fits([mig.Placement(each.units, each.start or 0) for each in both])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_two_plans_are_open_at_once_and_every_partition_is_accounted_for(seed: int) -> None:
    rng = random.Random(seed)
    at = drawn(rng)
    for _ in range(4):  # names stay apart over several moves
        new = drawn(rng)
        found = move(at, new)
        units_at_once(found)
        old_ids = [each.id for gpu in at.gpus for each in gpu.partitions]
        new_ids = [each.id for gpu in found.new.gpus for each in gpu.partitions]
        assert len(set(new_ids)) == len(new_ids)
        assert sorted([*found.stays, *found.closes]) == sorted(old_ids)
        assert sorted([*found.stays, *found.opens]) == sorted(new_ids)
        assert not set(found.opens) & set(old_ids)
        assert len(found.new.gpus) == len(new.gpus)
        at = found.new


@pytest.mark.parametrize("times", [1, 2, 5])
def test_names_do_not_grow(times: int) -> None:
    at = plan((part("a", 50, "x"),))
    for turn in range(times):
        at = move(at, plan((part("a", 51 + turn, "x"),))).new
    assert at.gpus[0].partitions[0].id in {"a", "a+1"}
