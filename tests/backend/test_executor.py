"""The contract of the executor: deadlines, cancelling, refusing, control while it runs."""

from __future__ import annotations

import _datetime
import threading
from collections.abc import Callable

import pytest

from spacetime import _native

from .conftest import MS, SOON, Rig

Make = Callable[..., Rig]
NOOP = _native.NativeFunction.noop()


def hold(rig: Rig, latch: _native.Latch, token: int = 1_000) -> None:
    """Keeps the rig's one lane busy with a request of this token."""
    rig.executor.submit(rig.tenant, token)
    assert latch.wait_entered(timeout_ns=SOON)


def test_a_deadline_is_answered_while_another_launch_holds_the_lane(
    make: Make, latch: _native.Latch
) -> None:
    rig = make(1, function=latch.function)
    hold(rig, latch)
    late = []
    for token in range(20):
        rig.executor.submit(rig.tenant, token, deadline_ns=MS)
        (end,) = rig.ended(1)
        assert (end.token, end.outcome, end.start_ns, end.lane) == (token, "deadline", None, None)
        late.append(end.finish_ns - end.arrival_ns - MS)
    assert min(late) >= 0
    assert sorted(late)[10] < 100_000  # the median: a busy machine may be late now and then


def test_deadlines_end_in_their_order(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    hold(rig, latch)
    for token, deadline_ms in enumerate([8, 2, 6, 4]):
        rig.executor.submit(rig.tenant, token, deadline_ns=deadline_ms * MS)
    assert [end.token for end in rig.ended(4)] == [1, 3, 2, 0]


def test_a_waiting_request_can_be_cancelled_once(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    hold(rig, latch)
    request = rig.executor.submit(rig.tenant, 5)
    assert rig.executor.cancel(request)
    assert not rig.executor.cancel(request)
    assert [(end.token, end.outcome) for end in rig.ended(1)] == [(5, "cancelled")]


def test_a_started_request_cannot_be_cancelled(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    request = rig.executor.submit(rig.tenant, 5)
    assert latch.wait_entered(timeout_ns=SOON)
    assert not rig.executor.cancel(request)
    latch.open()
    assert rig.ended(1)[0].outcome == "ok"
    assert not rig.executor.cancel(request)


@pytest.mark.parametrize("queue_limit", [1, 2, 1024])
def test_the_queue_limit_is_exact(make: Make, latch: _native.Latch, queue_limit: int) -> None:
    rig = make(1, function=latch.function, queue_limit=queue_limit)
    hold(rig, latch)
    for token in range(queue_limit):
        rig.executor.submit(rig.tenant, token)
    with pytest.raises(_native.QueueFullError, match="tenant 0: queue_limit"):
        rig.executor.submit(rig.tenant, 0)
    ticket = rig.executor.submit_bulk([rig.tenant], count=3, block=False)
    assert ticket.counts["queue-full"] == 3
    latch.open()
    assert len(rig.ended(queue_limit + 1)) == queue_limit + 1


def test_capacity_counts_what_nobody_has_read_yet(make: Make) -> None:
    rig = make(1, function=NOOP, capacity=4)
    for token in range(4):
        rig.executor.submit(rig.tenant, token)
    with pytest.raises(_native.QueueFullError, match="capacity"):
        rig.executor.submit(rig.tenant, 4)
    rig.ended(4)
    rig.executor.submit(rig.tenant, 4)
    assert rig.ended(1)[0].token == 4


def test_a_bulk_waits_for_room(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function, queue_limit=2)
    tickets: list[_native.Ticket] = []
    bulk = threading.Thread(
        target=lambda: tickets.append(rig.executor.submit_bulk([rig.tenant], count=100))
    )
    bulk.start()
    assert latch.wait_entered(timeout_ns=SOON)
    assert rig.executor.stats().waiting <= 2
    latch.open()
    bulk.join()
    assert tickets[0].wait(SOON)
    assert tickets[0].counts["ok"] == 100


def test_native_code_sees_deadlines_priorities_and_samples(make: Make) -> None:
    rig = make(native=False, batch="one")
    rig.executor.submit(rig.tenant, 0)
    first = rig.lanes[0].take(SOON)
    for token, deadline_s in [(1, 30), (2, 20), (3, 10)]:
        rig.executor.submit(rig.tenant, token, deadline_ns=deadline_s * 10**9, samples=token)
    order = []
    while first is not None:
        rig.lanes[0].finish(first)
        first = rig.lanes[0].take(MS)
        order += [(first.tokens[0], first.samples)] if first else []
    assert order == [(3, 3), (2, 2), (1, 1)]


def test_a_removed_tenant_leaves_nothing_waiting(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    other = rig.executor.add_tenant(rig.family)
    hold(rig, latch)
    for token in range(3):
        rig.executor.submit(other, token)
    rig.executor.remove_tenant(other)
    assert {(end.tenant, end.outcome) for end in rig.ended(3)} == {(other, "removed")}
    with pytest.raises(_native.ClosedError, match=f"tenant {other} was removed"):
        rig.executor.submit(other, 9)
    with pytest.raises(IndexError, match=f"tenant: {other} does not exist"):
        rig.executor.remove_tenant(other)


def test_lanes_families_and_tenants_are_added_while_it_runs(make: Make) -> None:
    rig = make(1, function=NOOP)
    ticket = rig.executor.submit_bulk([rig.tenant], count=20_000, block=False)
    for _ in range(3):
        rig.executor.add_lane([0], native=True)
        family = rig.executor.add_family([1, 16])
        rig.executor.set_native(family, NOOP)
        tenant = rig.executor.add_tenant(family, weight=2.0)
        assert rig.executor.submit_bulk([tenant], count=10).wait(SOON)
    assert ticket.wait(SOON)
    assert len(rig.executor.stats().lanes) == 4


def test_unknown_names_are_refused(make: Make) -> None:
    rig = make(1, function=NOOP)
    with pytest.raises(IndexError, match="tenant: 7 does not exist"):
        rig.executor.submit(7, 0)
    with pytest.raises(IndexError, match="family: 7 does not exist"):
        rig.executor.set_native(7, NOOP)
    with pytest.raises(ValueError, match="samples: must be at least 1"):
        rig.executor.submit(rig.tenant, 0, samples=0)
    with pytest.raises(ValueError, match="tenants: must name at least one"):
        rig.executor.submit_bulk([])
    with pytest.raises(ValueError, match="capacity: must be at least 1"):
        _native.Executor(_native.Policy(), capacity=0)
    with pytest.raises(ValueError, match="st_native_function"):
        _native.NativeFunction.from_capsule(_datetime.datetime_CAPI)


def test_statistics_add_up(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    hold(rig, latch)
    rig.executor.submit(rig.tenant, 1, deadline_ns=MS)
    rig.ended(1)
    latch.open()
    rig.ended(1)
    stats = rig.executor.stats()
    (tenant,) = stats.tenants
    assert (tenant.offered, tenant.completed, tenant.met) == (2, 1, 1)
    assert tenant.dropped["deadline"] == 1
    assert tenant.latency.count == 1
    assert (stats.in_flight, stats.waiting, stats.running) == (0, 0, 0)
    assert stats.lanes[0].launches == 1
    assert stats.lanes[0].busy_ns >= MS


def test_the_timeline_keeps_what_fits_and_counts_the_rest(make: Make) -> None:
    rig = make(1, function=NOOP, timeline=4, batch="one")
    for token in range(6):
        rig.executor.submit(rig.tenant, token)
        rig.ended(1)
    happened = rig.executor.timeline()
    assert [(what.lane, what.requests, what.outcome) for what in happened] == [(0, 1, "ok")] * 4
    assert all(what.start_ns <= what.finish_ns for what in happened)
    assert rig.executor.stats().timeline_lost == 2
    assert rig.executor.timeline() == []


def test_a_timeline_shows_drops(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function, timeline=4)
    hold(rig, latch)
    rig.executor.submit(rig.tenant, 7, deadline_ns=MS)
    rig.ended(1)
    (drop,) = rig.executor.timeline()
    assert (drop.lane, drop.family, drop.tenant, drop.id) == (None, None, rig.tenant, 7)
    assert drop.outcome == "deadline"
