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
from spacetime.benchmarks.servers import PoolServer, SessionServer, scripted
from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload import Arrival

TENANTS, QUEUE_LIMIT = 4, 64
SHAPE = (1, 3, 56, 56)
ENDS = ("pending", "answered", "queue-full", "deadline", "failed")
MIB = 2**20


def net(seed: int) -> nn.Module:
    """Three convolutions, some milliseconds a sample: a batch does not make it much cheaper."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()  # fmt: skip


class BoundedPool(PoolServer):
    """A pool of threads with a queue that refuses beyond its bound, as a user would write it."""

    def __init__(self, models: Sequence[nn.Module], x: Tensor) -> None:
        super().__init__([scripted(model, x) for model in models])
        self._room = BoundedSemaphore(QUEUE_LIMIT * len(models))

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        if not self._room.acquire(blocking=False):
            raise QueueFull("the queue is full")
        future = super().submit(tenant, x)
        future.add_done_callback(lambda _: self._room.release())
        return future


@contextmanager
def asked(way: str, slo_ms: float | None) -> Iterator[SessionServer | BoundedPool]:
    """A server of `TENANTS` models; sessions know the objective, a pool of threads does not."""
    x = torch.randn(SHAPE)
    models = [net(seed) for seed in range(TENANTS)]
    if way == "thread pool":
        pool = BoundedPool(models, x)
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
class Seen:
    """What became of each request of an open loop, and of memory meanwhile."""

    ends: Any  # int8, by place in ENDS
    times: Any  # int64: ns from due to the end, or the time a refusal took
    seconds: float
    grown_mib: float

    def counts(self) -> dict[str, int]:
        """How many ended how."""
        return {word: int((self.ends == place).sum()) for place, word in enumerate(ENDS)}

    def goodput_rps(self, slo_ms: float) -> float:
        """Answers within the objective, a second."""
        good = (self.ends == 1) & (self.times <= slo_ms * 1e6)
        return float(good.sum()) / self.seconds

    def p99_ms(self, end: str) -> float | None:
        """The 99th percentile of the times of those that ended so."""
        times = self.times[self.ends == ENDS.index(end)]
        return ms_from_ns(float(np.percentile(times, 99))) if len(times) else None


def drive(
    submit: Callable[[int, Tensor], Future[Tensor]], schedule: Sequence[Arrival], seconds: float
) -> Seen:
    """Sends the schedule and waits for every answer; memory is read before and at its largest."""
    ends, times = np.ones(len(schedule), np.int8), np.ones(len(schedule), np.int64)
    ends[:] = 0  # touched, so that the pages are there
    x = torch.randn(SHAPE)
    last: list[Future[Tensor]] = []
    before = most = resident_mib()
    start = time.monotonic_ns() + 20_000_000
    for place, arrival in enumerate(schedule):
        due_ns = start + arrival.time_ns
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / SECOND)
        if place % 500 == 0:
            most = max(most, resident_mib())
        begun = time.monotonic_ns()
        try:
            future = submit(arrival.tenant, x)
        except QueueFull:
            ends[place], times[place] = 2, time.monotonic_ns() - begun
            continue
        future.add_done_callback(_noting(ends, times, place, due_ns))
        last.append(future)
        if len(last) > 4 * TENANTS * QUEUE_LIMIT:
            last = [one for one in last if not one.done()]
    wait(last)
    most = max(most, resident_mib())
    _settled(ends)
    return Seen(ends, times, seconds, most - before)


def _noting(ends: Any, times: Any, place: int, due_ns: int) -> Callable[[Future[Tensor]], None]:
    def note(future: Future[Tensor]) -> None:
        error = future.exception()
        times[place] = time.monotonic_ns() - due_ns
        ends[place] = 1 if error is None else 3 if isinstance(error, DeadlineExceeded) else 4

    return note


def _settled(ends: Any) -> None:
    """Waits for callbacks: futures wake who waits for them before they call."""
    for _ in range(200):
        if not (ends == 0).any():
            return
        time.sleep(0.01)


def resident_mib() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


class Holds(nn.Module):
    """Holds its lane for as many seconds as its input says."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(max(0.0, float(x.flatten()[0])))
        return x


def timed_out_ms(hold_s: float, timeout_s: float) -> list[float]:
    """When a lane is held, how long requests with a timeout waited for their answer, ms."""
    x = torch.zeros(1, 1)
    took: list[float] = []
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
                took.append(ms_from_ns(time.monotonic_ns() - begun))
        held.result()
    return took


def pool_answers_ms(hold_s: float) -> float:
    """The same asked of a pool of one thread, which knows no timeout: when it answers, ms."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, hold_s)
        begun = time.monotonic_ns()
        pool.submit(int).result()
        return ms_from_ns(time.monotonic_ns() - begun)
