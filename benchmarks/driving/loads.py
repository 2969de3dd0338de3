"""Two ways to put load on a server: a closed loop that saturates it, and an open loop.

Answers are handled in the server's own callbacks, so no client thread competes for the cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from spacetime.benchmarks.driving.servers import TenantServer
from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload.workload import Arrival, Tenant, Workload

MOST_WAIT_NS = 60 * SECOND  # for the first answer


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What a load saw of a server."""

    seconds: float  # of its window
    latencies_ns: Sequence[int]  # of the answers in the window
    offered: int  # requests
    slo_ns: int | None = None  # the objective; None where there was none

    @property
    def throughput_rps(self) -> float:
        """Answers per second."""
        return len(self.latencies_ns) / self.seconds

    @property
    def goodput_rps(self) -> float:
        """Answers within the objective per second."""
        slo_ns = self.slo_ns
        good = sum(slo_ns is None or latency <= slo_ns for latency in self.latencies_ns)
        return good / self.seconds

    def percentile_ms(self, percent: float) -> float | None:
        """Returns a percentile of latency; None where nothing was answered."""
        if not self.latencies_ns:
            return None
        return ms_from_ns(float(np.percentile(self.latencies_ns, percent)))


class _Closed:
    """Keeps every tenant's requests outstanding until told to stop."""

    def __init__(self, server: TenantServer, pools: Sequence[Tensor]) -> None:
        self._server = server
        self._requests = [[pool[i : i + 1] for i in range(len(pool))] for pool in pools]
        self._sent = [0] * len(pools)
        self._outstanding = 0
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self.stopping = False
        self.done: list[tuple[int, int]] = []  # when, latency
        self.error: BaseException | None = None

    def send(self, tenant: int) -> None:
        with self._lock:
            number = self._sent[tenant]
            self._sent[tenant] += 1
            self._outstanding += 1
        pool = self._requests[tenant]
        began = time.perf_counter_ns()
        future = self._server.submit(tenant, pool[number % len(pool)])
        future.add_done_callback(partial(self._finished, tenant, began))

    def wait(self) -> None:
        self.stopping = True
        self._idle.wait()
        if self.error is not None:
            raise self.error

    def _finished(self, tenant: int, began: int, future: Future[Tensor]) -> None:
        now = time.perf_counter_ns()
        error = future.exception()
        if error is None:
            self.done.append((now, now - began))
        self.error = self.error or error
        if not self.stopping and self.error is None:
            self.send(tenant)
        with self._lock:
            self._outstanding -= 1
            if not self._outstanding:
                self._idle.set()


def closed_loop(
    server: TenantServer, pools: Sequence[Tensor], *, outstanding: int, seconds: float
) -> LoadOutcome:
    """Keeps `outstanding` requests of each tenant under way; a fifth of `seconds` is warm-up.

    The window grows until there is an answer in it, however slow the machine is just now.
    """
    loop = _Closed(server, pools)
    for _ in range(outstanding):
        for tenant in range(len(pools)):
            loop.send(tenant)
    time.sleep(seconds / 5)
    begin = time.perf_counter_ns()
    time.sleep(seconds)
    while not any(when >= begin for when, _ in loop.done) and loop.error is None:
        if time.perf_counter_ns() - begin > MOST_WAIT_NS:
            break
        time.sleep(seconds)  # a rate of nothing would be a statement about the window
    end = time.perf_counter_ns()
    loop.wait()
    latencies = [latency for when, latency in loop.done if begin <= when < end]
    return LoadOutcome((end - begin) / SECOND, latencies, len(latencies))


def open_loop(
    server: TenantServer,
    pools: Sequence[Tensor],
    *,
    rate_rps: float,
    slo_ns: int,
    seconds: float,
    seed: int,
) -> LoadOutcome:
    """Sends Poisson arrivals at `rate_rps` over all tenants, whatever the server does.

    Latency counts from the instant a request was due, so a late driver hides nothing. What has
    not started when the last request's objective is over is cancelled.
    """
    latencies: list[int] = []
    futures: list[Future[Tensor]] = []
    start = time.perf_counter_ns()

    def finished(due_ns: int, future: Future[Tensor]) -> None:
        if not future.cancelled() and future.exception() is None:
            latencies.append(time.perf_counter_ns() - due_ns)

    for arrival in schedule(len(pools), rate_rps, slo_ns, seconds, seed):
        due_ns = start + arrival.time_ns
        wait_ns = due_ns - time.perf_counter_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / SECOND)
        pool, number = pools[arrival.tenant], len(futures)
        x = pool[number % len(pool)][None]
        try:
            future = server.submit(arrival.tenant, x)
        except QueueFull as refusal:
            future = Future()
            future.set_exception(refusal)
        future.add_done_callback(partial(finished, due_ns))
        futures.append(future)
    wait(futures, timeout=slo_ns / SECOND)
    for future in futures:
        future.cancel()  # what still waits is late: the next server's turn
    for future in wait(futures).done:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, DeadlineExceeded | QueueFull):
            raise error
    return LoadOutcome(seconds, latencies, len(futures), slo_ns)


def schedule(
    tenants: int, rate_rps: float, slo_ns: int, seconds: float, seed: int
) -> Sequence[Arrival]:
    """Returns Poisson arrivals of so many tenants, `rate_rps` all together, for `seconds`."""
    declared = tuple(
        Tenant(f"tenant-{i}", "zoo", slo_ms=ms_from_ns(slo_ns), rate_rps=rate_rps / tenants)
        for i in range(tenants)
    )
    workload = Workload(tenants=declared, seed=seed)
    return list(workload.schedule(duration_ns=round(seconds * SECOND)))
