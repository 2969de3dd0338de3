"""The open loop: sends at absolute times, in turn, and says what became of every request."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from threading import Event

import pytest

from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.openloop import Target, drive
from spacetime.workload import Arrival

MS = 1_000_000


def test_every_request_leaves_when_due_and_takes_turns() -> None:
    schedule = [Arrival(number * 2 * MS, number % 2) for number in range(20)]
    with ThreadPoolExecutor(1) as pool:
        targets = [
            Target(lambda x: pool.submit(lambda: x), ["a", "b"]),
            Target(lambda x: pool.submit(lambda: x), ["c"]),
        ]
        start_ns = time.monotonic_ns()
        sent = drive(targets, schedule)
    assert time.monotonic_ns() - start_ns >= schedule[-1].time_ns
    assert [(one.due_ns, one.tenant) for one in sent] == schedule
    assert [one.answer for one in sent[:6]] == ["a", "c", "b", "c", "a", "c"]
    assert all(one.late_ns >= 0 and one.dropped is None for one in sent)
    assert all(one.latency_ns is not None and one.latency_ns >= one.late_ns for one in sent)


def test_a_blocked_submit_shows_in_the_latency_of_those_behind_it() -> None:
    done: Future[int] = Future()
    done.set_result(7)

    def blocks(wait: bool) -> Future[int]:
        Event().wait(0.05 if wait else 0)
        return done

    sent = drive([Target(blocks, [True, False])], [Arrival(0, 0), Arrival(MS, 0)])
    assert sent[1].late_ns >= 45 * MS
    assert all(one.latency_ns is not None and one.latency_ns >= 45 * MS for one in sent)


def test_refused_and_dropped_requests_have_a_reason_and_no_latency() -> None:
    def submit(error: type[Exception]) -> Future[int]:
        if error is QueueFull:
            raise QueueFull("full")
        future: Future[int] = Future()
        future.set_exception(error("late"))
        return future

    sent = drive([Target(submit, [QueueFull, DeadlineExceeded])], [Arrival(0, 0), Arrival(0, 0)])
    assert [(one.dropped, one.latency_ns) for one in sent] == [
        ("queue_full", None),
        ("deadline", None),
    ]
    with pytest.raises(ZeroDivisionError):
        drive([Target(submit, [ZeroDivisionError])], [Arrival(0, 0)])


def test_sent_keeps_the_order_of_the_schedule() -> None:
    with ThreadPoolExecutor(4) as pool:
        schedule = [Arrival(number * MS // 10, 0) for number in range(200)]
        sent = drive([Target(lambda x: pool.submit(lambda: x), range(200))], schedule)
    assert [one.answer for one in sent] == list(range(200))
    assert all(earlier.due_ns <= later.due_ns for earlier, later in pairwise(sent))
