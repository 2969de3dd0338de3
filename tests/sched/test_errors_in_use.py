"""Errors in use are one clear line that names the field; the event path throws nothing."""

from __future__ import annotations

import pytest
from hand import scheduler

from spacetime import _native
from spacetime.policy import PRESETS, Policy

POLICY_ERRORS = [
    ({"route": "nearest"}, "route: 'nearest' is not one of pinned, weighted, least-wait, elsa"),
    ({"order": "lifo"}, "order: 'lifo' is not one of fifo, edf, priority, fair, duty"),
    ({"batch": "all"}, "batch: 'all' is not one of one, greedy, timeout, slack"),
    ({"timeout_ns": -1}, "timeout_ns: must not be negative"),
    ({"max_borrow_ns": 0}, "max_borrow_ns: must be positive"),
    ({"elsa_alpha": 0.0}, "elsa_alpha: must be positive"),
    ({"elsa_beta": float("nan")}, "elsa_beta: must be positive"),
    ({"straggler_multiple": -2.0}, "multiple: must be 0"),
    ({"straggler_multiple": 1.1}, "recovery: must be positive and below"),
    ({"straggler_multiple": 2.0, "straggler_patience": 0}, "patience: must be at least 1"),
]


@pytest.mark.parametrize(("fields", "message"), POLICY_ERRORS)
def test_a_policy_that_is_none(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        _native.Scheduler(_native.Policy(**fields))  # type: ignore[arg-type]


def test_presets_and_words_are_the_same_on_both_sides() -> None:
    assert tuple(PRESETS) == _native.PRESETS
    fields = list(Policy.__dataclass_fields__)
    for name, policy in PRESETS.items():
        native = _native.Policy.named(name)
        assert [getattr(policy, f) for f in fields] == [getattr(native, f) for f in fields]
    default = _native.Policy()
    assert [getattr(Policy(), f) for f in fields] == [getattr(default, f) for f in fields]


def test_an_unknown_preset_lists_the_names() -> None:
    for named in (Policy.named, _native.Policy.named):
        with pytest.raises(ValueError, match="'fast' is not one of time-only, space-only"):
            named("fast")


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        PRESETS["elsa"].route = "pinned"  # type: ignore[misc]


SETUP_ERRORS = [
    (lambda s: s.add_lane(units=0), "LaneSpec.units"),
    (lambda s: s.add_family([]), "FamilySpec.buckets: must name at least one"),
    (lambda s: s.add_family([0, 1]), "FamilySpec.buckets: batch sizes start at 1"),
    (lambda s: s.add_family([1, 4, 2]), "FamilySpec.buckets: must ascend"),
    (lambda s: s.add_family([1, 1]), "FamilySpec.buckets: must ascend"),
    (lambda s: s.add_tenant(7, lane=0), "TenantSpec.family: unknown id 7 of 1"),
    (lambda s: s.add_tenant(0, lane=3), "TenantSpec.lane: unknown id 3 of 1"),
    (lambda s: s.add_tenant(0), "TenantSpec.lane: route pinned needs"),
    (lambda s: s.add_tenant(0, lane=0, weight=0.0), "TenantSpec.weight: must be positive"),
    (lambda s: s.add_tenant(0, lane=0, weight=float("inf")), "TenantSpec.weight"),
    (lambda s: s.add_tenant(0, lane=0, queue_limit=0), "TenantSpec.queue_limit"),
    (lambda s: s.add_tenant(0, lane=0, lane_weights=[1.0, 1.0]), "TenantSpec.lane_weights"),
    (lambda s: s.add_tenant(0, lane=0, lane_weights=[-1.0]), "TenantSpec.lane_weights"),
    (lambda s: s.set_latency(9, 0, 1, 1000), "family: unknown id 9"),
    (lambda s: s.set_latency(0, 9, 1, 1000), "lane: unknown id 9"),
    (lambda s: s.set_latency(0, 0, 3, 1000), "set_latency.bucket"),
    (lambda s: s.set_latency(0, 0, 1, 0), "set_latency.latency_ns"),
    (lambda s: s.set_latency(0, 0, 1, 2**62), "set_latency.latency_ns"),
    (lambda s: s.set_duty(0, [(0, 1)]), "set_duty: the policy's order is not duty"),
    (lambda s: s.predicted_ns(5, 0, 1), "family: unknown id 5"),
]


@pytest.mark.parametrize(("call", "message"), SETUP_ERRORS)
def test_a_setup_that_is_none(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(scheduler(route="pinned", order="fifo", batch="one"))


def test_a_duty_cycle_that_is_none() -> None:
    made = scheduler(route="pinned", order="duty", batch="greedy")
    for call, message in [
        (lambda: made.set_duty(4, []), "set_duty.lane"),
        (lambda: made.set_duty(0, [(8, 1)]), "DutyTurn.tenant"),
        (lambda: made.set_duty(0, [(0, 0)]), "DutyTurn.batch"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_tenant_needs_a_lane_to_run_on() -> None:
    made = _native.Scheduler(_native.Policy())
    family = made.add_family([1])
    with pytest.raises(ValueError, match="add a lane before the first tenant"):
        made.add_tenant(family)


def test_weighted_needs_a_weight_or_a_lane() -> None:
    made = scheduler(route="weighted")
    with pytest.raises(ValueError, match="route weighted needs a positive weight"):
        made.add_tenant(0, lane_weights=[0.0])


def test_the_lane_for_stragglers_must_exist() -> None:
    with pytest.raises(ValueError, match=r"Policy\.straggler_lane: unknown id 4"):
        scheduler(straggler_multiple=2.0, straggler_lane=4)


def test_missing_latencies_are_filled_in() -> None:
    made = scheduler(families=[], tenants=[])
    family = made.add_family([1, 2, 4, 8])
    made.set_latency(family, 0, 2, 1000)
    # A smaller bucket costs no more than the next known one; above it, in proportion.
    assert [made.predicted_ns(family, 0, n) for n in (1, 2, 3, 4, 8, 16)] == [
        1000, 1000, 2000, 2000, 4000, 8000,
    ]  # fmt: skip


def test_predictions_are_corrected_by_what_is_observed() -> None:
    made = scheduler(route="pinned", order="fifo", batch="one")
    now = 0
    for launch in range(1, 101):
        made.arrive(launch, 0, now)
        now += 1500
        made.finish(launch, now)
    assert made.predicted_ns(0, 0, 1) == pytest.approx(1500, abs=1)
    assert made.predicted_ns(0, 0, 4) == pytest.approx(2400, abs=1)
    for launch in range(101, 201):
        made.arrive(launch, 0, now)
        now += 1_000_000
        made.finish(launch, now)
    assert made.predicted_ns(0, 0, 1) == pytest.approx(4000, abs=1)  # clamped
