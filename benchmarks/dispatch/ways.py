"""Ways to dispatch a request that does nothing, so that only dispatching is measured.

All answer `submit(tenant)` from one Python thread with a future of None.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import spacetime._native as _native

TENANTS = 8
LARGEST_BATCH = 64
BUCKETS = [1, 2, 4, 8, 16, 32, LARGEST_BATCH]
QUEUE_LIMIT = 4096
WAVE = 2000  # requests that one thread leaves unanswered


class Dispatch:
    """A native executor with one lane and eight tenants of one family, policy space-time.

    ``native``: the lane runs a native no-op; else a Python thread takes and finishes launches.
    """

    def __init__(self, *, native: bool) -> None:
        self.executor = _native.Executor(_native.Policy.named("space-time"))
        self.lane = self.executor.add_lane(_native.available_cores()[-1:], native=native)
        self.family = self.executor.add_family(BUCKETS)
        self.tenants = [
            self.executor.add_tenant(self.family, queue_limit=QUEUE_LIMIT) for _ in range(TENANTS)
        ]
        if native:
            self.executor.set_native(self.family, _native.NativeFunction.noop())
        self._waiting: dict[int, Future[None]] = {}
        self._tokens = itertools.count()
        self._threads = [threading.Thread(target=self._notify)]
        if not native:
            self._threads.append(threading.Thread(target=self._serve))
        for thread in self._threads:
            thread.start()

    def submit(self, tenant: int) -> Future[None]:
        """Returns a future of a request of the tenant with this number."""
        token = next(self._tokens)
        future: Future[None] = Future()
        self._waiting[token] = future
        self.executor.submit(self.tenants[tenant], token)
        return future

    def close(self) -> None:
        """Answers what was submitted and ends all threads."""
        self.executor.close()
        for thread in self._threads:
            thread.join()

    def _notify(self) -> None:
        while (ended := self.executor.completions()) is not None:
            for end in ended:
                self._waiting.pop(end.token).set_result(None)

    def _serve(self) -> None:
        self.lane.enter()
        while (launch := self.lane.take()) is not None:
            self.lane.finish(launch)
        self.lane.leave()


class AsyncBatcher:
    """What a user of asyncio writes today: a queue, and one task that empties it in batches."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self._task = asyncio.create_task(self._serve())

    def submit(self, tenant: int) -> Awaitable[None]:
        """Returns an awaitable of one request; its tenant makes no difference here."""
        del tenant
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(future)
        return future

    def close(self) -> None:
        """Ends the task."""
        self._task.cancel()

    async def _serve(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < LARGEST_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            for future in batch:
                future.set_result(None)


@contextmanager
def spinning() -> Iterator[None]:
    """Runs another Python thread for the block that computes and holds the interpreter's lock."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def pipelined(submit: Callable[[int], Future[None]], requests: int) -> None:
    """Submits `requests` to the tenants in turn from this thread, a wave of WAVE at a time."""
    for first in range(0, requests, WAVE):
        wave = [submit(number % TENANTS) for number in range(first, min(first + WAVE, requests))]
        for future in wave:
            future.result()
