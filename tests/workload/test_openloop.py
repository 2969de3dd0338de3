"""The open loop: sends at absolute times, in turn, and says what became of every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from threading import Event

import pytest

from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.workload.openloop import Sent, Target, drive
from spacetime.workload.workload import Arrival

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


@pytest.mark.parametrize("keep", [True, False])
def test_it_waits_until_what_came_of_each_is_noted(keep: bool) -> None:
    gate, watched = Event(), Event()

    class Watched(Future[int]):
        def add_done_callback(self, fn: Callable[[Future[int]], object]) -> None:
            super().add_done_callback(lambda _: gate.wait(20))
            super().add_done_callback(fn)
            watched.set()

    future = Watched()
    with ThreadPoolExecutor(2) as pool:
        target = Target(lambda _: future, [0])
        run = pool.submit(
            lambda: [one.latency_ns for one in drive([target], [Arrival(0, 0)], keep=keep)]
        )
        assert watched.wait(20)
        pool.submit(future.set_result, 7)
        wait([run], timeout=0.2)  # a wrong one returns; a right one waits for the gate
        gate.set()
        assert run.result()[0] is not None


def test_refused_and_dropped_requests_have_a_reason_and_no_latency() -> None:
    def submit(error: type[Exception]) -> Future[int]:
        if error is QueueFull:
            raise QueueFull("full")
        future: Future[int] = Future()
        future.set_exception(error("late"))
        return future

    sent = drive([Target(submit, [QueueFull, DeadlineExceeded])], [Arrival(0, 0), Arrival(0, 0)])
    assert [(one.dropped, one.latency_ns) for one in sent] == [
        ("queue-full", None),
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


def test_answers_that_are_not_kept_are_let_go_and_still_waited_for() -> None:
    answers: list[Future[object]] = []

    def submit(how: str) -> Future[object]:
        if how == "full":
            raise QueueFull("full")
        answers.append(future := Future())
        pool.submit(lambda: _settle(future, how))
        return future

    def _settle(future: Future[object], how: str) -> None:
        Event().wait(0.01)
        if how == "answer":
            future.set_result(object())
        else:
            future.set_exception(DeadlineExceeded("late") if how == "late" else ValueError("bad"))

    into: list[Sent] = []
    hows = ["answer", "late", "bad", "full"]
    with ThreadPoolExecutor(4) as pool:
        sent = drive(
            [Target(submit, hows)], [Arrival(n * MS, 0) for n in range(8)], into=into, keep=False
        )
    assert sent is into
    assert [one.dropped for one in sent] == [None, "deadline", "failed", "queue-full"] * 2
    assert [one.latency_ns is not None for one in sent] == [True, False, False, False] * 2
    assert all(one.answer is None for one in sent)


def test_what_an_interrupted_loop_has_sent_is_known() -> None:
    def arrivals() -> Iterator[Arrival]:
        yield Arrival(0, 0)
        yield Arrival(MS, 0)
        raise KeyboardInterrupt

    done: Future[int] = Future()
    done.set_result(1)
    into: list[Sent] = []
    with pytest.raises(KeyboardInterrupt):
        drive([Target(lambda _: done, [0])], arrivals(), into=into, keep=False)
    assert [one.due_ns for one in into] == [0, MS]
