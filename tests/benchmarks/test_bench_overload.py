"""`bench overload`: its books balance, and its goals are judged by what was measured."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spacetime.benchmarks import bench_overload
from spacetime.benchmarks.overload import load as overload_load
from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.plots.overload import draw_overload
from spacetime.workload.workload import Arrival


def test_every_end_of_a_request_is_counted_once() -> None:
    turn = iter(range(400))

    def submit(tenant: int, x: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        match next(turn) % 4:
            case 0:
                future.set_result(x)
            case 1:
                raise QueueFull
            case 2:
                future.set_exception(DeadlineExceeded())
            case _:
                future.set_exception(ValueError())
        return future

    schedule = [Arrival(n * 1000, n % overload_load.TENANTS) for n in range(400)]
    seen = overload_load.drive(submit, schedule, 2.0)
    ends = {"answered": 100, "queue-full": 100, "deadline": 100, "failed": 100}
    assert seen.counts() == {"pending": 0, **ends}
    assert seen.goodput_rps(60_000) == 50
    assert seen.goodput_rps(0) == 0
    assert (seen.p99_ms("queue-full") or -1) >= 0
    assert seen.sent_late_p99_ms >= 0
    assert 0 < seen.sender_cores < 1


@pytest.mark.slow
def test_a_bounded_pool_refuses_and_every_server_answers() -> None:
    x = torch.randn(overload_load.SHAPE)
    with overload_load.asked("thread pool", None) as pool:
        sent, refused = [], 0
        for _ in range(2000):
            try:
                sent.append(pool.submit(0, x))
            except QueueFull:  # noqa: PERF203 - a refusal is the point
                refused += 1
        assert refused > 0
        assert len(sent) >= overload_load.QUEUE_LIMIT
        assert all(future.result(60).shape == (1, 10) for future in sent)
    with overload_load.asked("thread pool", 0.001) as pool:
        late = [pool.submit(0, x) for _ in range(overload_load.QUEUE_LIMIT)]
        assert any(isinstance(future.exception(60), DeadlineExceeded) for future in late)
    with overload_load.asked("space-time", 1000.0) as session:
        assert session.submit(3, x).result(60).shape == (1, 10)


def test_timeouts_come_while_the_lane_is_held() -> None:
    took = overload_load.timed_out_ms(0.5, 0.1)
    assert took
    assert all(100 <= ms < 400 for ms in took)


def row(way: str, load: float, goodput: float, **changes: object) -> dict[str, object]:
    return {
        "way": way, "load": load, "goodput_rps": goodput, "capacity_rps": 10.0, "offered": 9,
        "answered": 5, "queue-full": 2, "deadline": 2, "failed": 0, "unaccounted": 0,
        "p99_ms": 1.0, "refusal_p99_ms": 0.1, "grown_mib": 1.0,
        "sender_cores": 0.1, "sent_late_p99_ms": 0.5,
    } | changes  # fmt: skip


def test_goals_name_what_was_missed(tmp_path: Path) -> None:
    ways = bench_overload.WAYS
    rows = [row(way, load, 10.0) for way in ways for load in (1.0, 5.0)]
    rows[1] = row(ways[0], 5.0, 9.4, grown_mib=99.0, unaccounted=1, refusal_p99_ms=None)
    result = {
        "rows": rows, "slo_ms": 50.0, "cores": 2, "cpu": "a", "seconds": (1, 1),
        "timeouts": {"off_ms": 21.0, "hold_s": 9, "timeout_ms": 1000.0, "answered_ms": [1021.0],
                     "thread_pool_ms": 9000.0},
        "priority": {"requests": 9, "alone_p99_ms": 1.0, "beside_p99_ms": 5.0,
                     "launch_p99_ms": 4.0, "bound_ms": 5.2},
    }  # fmt: skip
    found = bench_overload.goals(result)
    missed = [goal for goal, met in found.items() if met is False]
    assert missed == [
        "goodput at 5 x >= 95 % of its peak",
        "memory grows by <= 64 MiB",
        "every request accounted for",
        "a timeout is answered within 20 ms of it",
    ]
    assert len([*bench_overload.shown(result | {"goals": found})]) == 4
    draw_overload(result, tmp_path / "overload.png")
    assert (tmp_path / "overload.png").stat().st_size > 1000
