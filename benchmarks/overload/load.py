"""Load for `bench overload`: an open loop that keeps books of fixed size, and who is asked.

What is sent and what became of it is counted in arrays made before the first request, so that
memory that grows meanwhile is the server's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import spacetime as st
from spacetime.benchmarks.driving.servers import Call, PoolServer, SessionServer, scripted
from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.units import SECOND, ms_from_ns, ns_from_ms
from spacetime.workload.workload import Arrival

TENANTS = 4
QUEUE_LIMIT = 8  # a tenant: together about what is answered within the objective
SMALL = (1, 3, 56, 56)  # about a millisecond
SHAPE = (1, 3, 112, 112)  # about four: who sends takes little of the cores from who answers
ENDS = ("pending", "answered", "queue-full", "deadline", "failed")
MIB = 2**20


def net(seed: int) -> nn.Module:
    """Three convolutions: a batch does not make a sample much cheaper."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()  # fmt: skip


class BoundedPool(PoolServer):
    """A pool of threads with a queue that refuses beyond its bound, as a user would write it.

    What has waited for longer than the objective when its turn comes is not computed.
    """

    def __init__(self, models: Sequence[nn.Module], x: Tensor, slo_ms: float | None) -> None:
        super().__init__([scripted(model, x) for model in models])
        self._room = BoundedSemaphore(QUEUE_LIMIT * len(models))
        self._limit_ns = None if slo_ms is None else ns_from_ms(slo_ms)

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        if not self._room.acquire(blocking=False):
            raise QueueFull("the queue is full")
        until_ns = None if self._limit_ns is None else time.monotonic_ns() + self._limit_ns
        future = self._pool.submit(_unless_late, self._calls[tenant], x, until_ns)
        future.add_done_callback(lambda _: self._room.release())
        return future


def _unless_late(call: Call, x: Tensor, until_ns: int | None) -> Tensor:
    if until_ns is not None and time.monotonic_ns() >= until_ns:
        raise DeadlineExceeded("not started by its deadline")
    return call(x)


@contextmanager
def asked(way: str, slo_ms: float | None) -> Iterator[SessionServer | BoundedPool]:
    """Yields a server of `TENANTS` models that knows the objective; `way` is one of WAYS."""
    x = torch.randn(SHAPE)
    models = [net(seed) for seed in range(TENANTS)]
    if way == "thread pool":
        pool = BoundedPool(models, x, slo_ms)
        try:
            yield pool
        finally:
            pool.close()
        return
    server = SessionServer(policy=way)
    try:
        for model in models:
            server.tenants.append(
                server.session.add(
                    model, example_inputs=(x,), slo_ms=slo_ms, queue_limit=QUEUE_LIMIT
                )
            )
        yield server
    finally:
        server.close()


@dataclass(slots=True)
class RequestEnds:
    """What became of each request of an open loop, and of memory meanwhile."""

    ends: Any  # int8, by place in ENDS
    times: Any  # int64: ns from due to the end, or the time a refusal took
    sent_late: Any  # int64: ns from due to sent
    seconds: float
    grown_mib: float
    sender_cores: float  # what sending took of a core

    def counts(self) -> dict[str, int]:
        """Returns how many requests ended in each way of ENDS."""
        return {word: int((self.ends == place).sum()) for place, word in enumerate(ENDS)}

    def goodput_rps(self, slo_ms: float) -> float:
        """Returns how many answers a second came within the objective."""
        good = (self.ends == 1) & (self.times <= slo_ms * 1e6)
        return float(good.sum()) / self.seconds

    def p99_ms(self, end: str) -> float | None:
        """Returns the 99th percentile of the times of requests that ended so; None of none."""
        times = self.times[self.ends == ENDS.index(end)]
        return _p99_ms(times) if len(times) else None

    @property
    def sent_late_p99_ms(self) -> float:
        """The 99th percentile of how much later than due a request was sent."""
        return _p99_ms(self.sent_late)


def _p99_ms(times_ns: Any) -> float:
    return ms_from_ns(float(np.percentile(times_ns, 99)))


def drive(
    submit: Callable[[int, Tensor], Future[Tensor]], schedule: Sequence[Arrival], seconds: float
) -> RequestEnds:
    """Sends the schedule and waits for every answer. Memory is read before, and at its largest."""
    # Filled, so that the pages are there.
    ends, times, sent_late = (
        np.full(len(schedule), 0, kind) for kind in (np.int8, np.int64, np.int64)
    )
    x = torch.randn(SHAPE)
    last: list[Future[Tensor]] = []
    before = most = resident_mib()
    start, cpu_ns = time.monotonic_ns() + 20_000_000, time.thread_time_ns()
    for place, arrival in enumerate(schedule):
        due_ns = start + arrival.time_ns
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / SECOND)
        if place % 500 == 0:
            most = max(most, resident_mib())
        begun = time.monotonic_ns()
        sent_late[place] = begun - due_ns
        try:
            future = submit(arrival.tenant, x)
        except QueueFull:
            ends[place], times[place] = 2, time.monotonic_ns() - begun
            continue
        future.add_done_callback(_noting(ends, times, place, due_ns))
        last.append(future)
        if len(last) > 4 * TENANTS * QUEUE_LIMIT:
            last = [future for future in last if not future.done()]
    cores = (time.thread_time_ns() - cpu_ns) / (seconds * SECOND)
    wait(last)
    most = max(most, resident_mib())
    _settled(ends)
    return RequestEnds(ends, times, sent_late, seconds, most - before, cores)


def _noting(ends: Any, times: Any, place: int, due_ns: int) -> Callable[[Future[Tensor]], None]:
    def note(future: Future[Tensor]) -> None:
        error = future.exception()
        times[place] = time.monotonic_ns() - due_ns
        ends[place] = 1 if error is None else 3 if isinstance(error, DeadlineExceeded) else 4

    return note


def _settled(ends: Any) -> None:
    """Waits for the callbacks: a future wakes whoever waits for it before it calls them."""
    for _ in range(200):
        if not (ends == 0).any():
            return
        time.sleep(0.01)


def resident_mib() -> float:
    """Returns the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


class Holds(nn.Module):
    """Holds its lane for as many seconds as its input says."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(max(0.0, float(x.flatten()[0])))
        return x


def timed_out_ms(hold_s: float, timeout_s: float) -> list[float]:
    """Returns how long requests with a timeout waited, in ms, while their only lane was held."""
    x = torch.zeros(1, 1)
    took_ms: list[float] = []
    with st.Session("cpu", lanes=1) as session:
        holding = session.add(Holds().eval(), example_inputs=(x,), name="holds")
        other = session.add(nn.Sequential(nn.Linear(1, 1)).eval(), example_inputs=(x,))
        held = holding.submit(torch.full((1, 1), hold_s))
        until = time.monotonic() + hold_s - 1.1 * timeout_s
        while time.monotonic() < until:
            begun = time.monotonic_ns()
            try:
                other.submit(x, deadline_ms=1000 * timeout_s).result()
            except DeadlineExceeded:
                took_ms.append(ms_from_ns(time.monotonic_ns() - begun))
        held.result()
    return took_ms


def pool_answers_ms(hold_s: float) -> float:
    """Returns when a pool of one thread, which has no timeouts, answers in the same case, in ms."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, hold_s)
        begun = time.monotonic_ns()
        pool.submit(int).result()
        return ms_from_ns(time.monotonic_ns() - begun)
