"""The contract of lanes, the same for any number of them and any length of queue."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from spacetime import _native

from .conftest import SOON, Ground, Rig

Make = Callable[..., Rig]
NOOP = _native.NativeFunction.noop()

lanes = pytest.mark.parametrize("lanes", [0, 1, 2, 8, 64])
queues = pytest.mark.parametrize("queue_limit", [1, 2, 1024])


@lanes
@queues
def test_every_request_of_a_bulk_ends_ok(make: Make, lanes: int, queue_limit: int) -> None:
    rig = make(lanes, function=NOOP, queue_limit=queue_limit)
    ticket = rig.executor.submit_bulk([rig.tenant], count=300)
    assert ticket.wait(SOON)
    assert ticket.pending == 0
    assert ticket.counts["ok"] == sum(ticket.counts.values()) == 300


@lanes
@queues
def test_what_is_accepted_ends_once_and_what_is_refused_never(
    make: Make, lanes: int, queue_limit: int
) -> None:
    rig = make(lanes, function=NOOP, queue_limit=queue_limit)
    accepted: list[list[int]] = [[] for _ in range(4)]

    def submit(thread: int) -> None:
        for token in range(thread * 100, thread * 100 + 100):
            with suppress(_native.QueueFullError):
                rig.executor.submit(rig.tenant, token)
                accepted[thread].append(token)

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = sorted(token for own in accepted for token in own)
    ended = rig.ended(len(tokens))
    assert sorted(end.token for end in ended) == tokens
    assert {end.outcome for end in ended} == {"ok"}
    assert rig.executor.stats().refused == [400 - len(tokens)]


@lanes
def test_a_code_reaches_every_request_of_the_launch(make: Make, lanes: int) -> None:
    rig = make(lanes, function=_native.NativeFunction.fail(7))
    for token in range(5):
        rig.executor.submit(rig.tenant, token)
    assert {(end.outcome, end.code) for end in rig.ended(5)} == {("failed", 7)}
    assert rig.executor.stats().failed == [5]


@lanes
def test_closing_with_drain_answers_everything(make: Make, lanes: int) -> None:
    rig = make(lanes, function=NOOP)
    ticket = rig.executor.submit_bulk([rig.tenant], count=200)
    assert rig.executor.close(timeout_ns=SOON)
    assert (ticket.pending, ticket.counts["ok"]) == (0, 200)
    assert all(lane.closed for lane in rig.lanes)


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_a_completion_says_where_and_when(make: Make, lanes: int) -> None:
    rig = make(lanes, function=NOOP)
    rig.executor.submit(rig.tenant, 2**64 - 1)
    (end,) = rig.ended(1)
    assert (end.token, end.tenant, end.outcome, end.code) == (2**64 - 1, rig.tenant, "ok", 0)
    assert end.start_ns is not None
    assert end.arrival_ns <= end.start_ns <= end.finish_ns
    assert end.lane in range(lanes)
    assert (end.samples, end.tenants) == (1, 1)


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_python_serves_lanes(make: Make, lanes: int) -> None:
    rig = make(lanes, native=False)
    for lane in rig.lanes:
        rig.serve(lane, lambda launch: [token % 3 for token in launch.tokens])
    for token in range(90):
        rig.executor.submit(rig.tenant, token)
    codes = Counter(end.code for end in rig.ended(90))
    assert codes == {0: 30, 1: 30, 2: 30}


def test_a_launch_tells_its_server_everything(make: Make) -> None:
    rig = make(native=False)
    (lane,) = rig.lanes
    other = rig.executor.add_tenant(rig.family)
    rig.executor.submit(rig.tenant, 10)
    first = lane.take(SOON)  # the next three wait behind it, and share a launch
    for tenant, token, samples in [(rig.tenant, 11, 1), (other, 12, 2), (other, 13, 2)]:
        rig.executor.submit(tenant, token, samples=samples)
    assert first is not None
    assert lane.finish(first)
    launch = lane.take(SOON)
    assert launch is not None
    assert (launch.lane, launch.family, launch.samples, launch.bucket) == (0, rig.family, 5, 8)
    members = list(zip(launch.tokens, launch.tenants, launch.request_samples, strict=True))
    assert sorted(members) == [(11, rig.tenant, 1), (12, other, 2), (13, other, 2)]
    assert lane.finish(launch, [0, 0, 0])
    assert [end.tenants for end in rig.ended(4)] == [1, 2, 2, 2]


def test_a_python_lane_runs_native_launches_itself(make: Make) -> None:
    rig = make(native=False, function=NOOP)
    rig.serve(rig.lanes[0], lambda launch: pytest.fail("a native launch came out"))
    ticket = rig.executor.submit_bulk([rig.tenant], count=50)
    assert ticket.wait(SOON)
    assert ticket.counts["ok"] == 50


def test_a_native_lane_cannot_run_a_foreign_launch(make: Make) -> None:
    rig = make(1)
    rig.executor.submit(rig.tenant, 0)
    assert [(end.outcome, end.code) for end in rig.ended(1)] == [("failed", _native.NO_FUNCTION)]


def test_take_gives_up_when_time_is_up(make: Make) -> None:
    rig = make(native=False)
    assert rig.lanes[0].take(0) is None
    assert not rig.lanes[0].closed


def test_finishing_twice_is_refused(make: Make) -> None:
    rig = make(native=False)
    rig.executor.submit(rig.tenant, 0)
    launch = rig.lanes[0].take(SOON)
    assert launch is not None
    with pytest.raises(ValueError, match="statuses: expected 1, got 2"):
        rig.lanes[0].finish(launch, [0, 0])
    assert rig.lanes[0].finish(launch)
    with pytest.raises(ValueError, match=r"launch: \d+ is not held by lane 0"):
        rig.lanes[0].finish(launch)
    assert len(rig.ended(1)) == 1


def test_a_lane_that_lost_its_server_fails_everything(make: Make) -> None:
    rig = make(native=False)
    rig.executor.submit(rig.tenant, 0)
    assert rig.lanes[0].take(SOON) is not None
    rig.executor.submit(rig.tenant, 1)
    rig.lanes[0].fail()
    rig.executor.submit(rig.tenant, 2)
    ended = rig.ended(3)
    assert {(end.outcome, end.code) for end in ended} == {("failed", _native.LANE_FAILED)}


def test_a_native_lane_is_granted_its_units(make: Make, ground: Ground) -> None:
    rig = make(2, function=NOOP)
    expected = [[ground.units[i % len(ground.units)]] for i in (0, 1)]
    assert [lane.granted for lane in rig.lanes] == expected


@pytest.mark.parametrize("ground", ["cpu"], indirect=True)
def test_a_python_server_is_bound_while_it_serves(make: Make) -> None:
    rig = make(native=False)
    (lane,) = rig.lanes
    before = os.sched_getaffinity(0)
    assert lane.granted == []
    lane.enter()
    bound = os.sched_getaffinity(0)
    lane.leave()
    assert bound == set(lane.granted) == {_native.available_cores()[0]}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([100_000], "100000 is not available; this (process may use|device has) "),
        ([0, 0], "0 is named twice"),
        ([], "a lane needs at least one"),
    ],
)
def test_a_partition_the_device_cannot_give_is_refused(
    make: Make, ground: Ground, units: list[int], message: str
) -> None:
    rig = make(1, function=NOOP)
    with pytest.raises(ValueError, match=f"{ground.word}: {message}"):
        rig.executor.add_lane(units)


def test_without_lanes_none_can_follow(make: Make) -> None:
    rig = make(0, function=NOOP)
    with pytest.raises(RuntimeError, match="add lanes before the first tenant"):
        rig.executor.add_lane([0])
