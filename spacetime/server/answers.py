"""Answers on their way from a session's threads to the event loop: one wake-up a launch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

Ended = Future[Any]


class Answers:
    """The futures that the event loop waits for.

    `tell` and `result` are called in the loop's thread; the futures may end in any thread. A launch
    ends many requests at once: the first one wakes the loop, which then takes them all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[tuple[Callable[[Ended], None], Ended]] = deque()
        self._woken = False

    def tell(self, future: Ended, then: Callable[[Ended], None]) -> None:
        """Calls then(future) in the loop's thread once the future has ended; it must not raise."""
        future.add_done_callback(partial(self._end, then))

    async def result(self, future: Ended) -> Any:
        """Returns the future's result or raises its error.

        Cancelling the task that waits here withdraws the request.
        """
        ended = asyncio.Event()
        self.tell(future, lambda _: ended.set())
        try:
            await ended.wait()
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future.result()

    def _end(self, then: Callable[[Ended], None], future: Ended) -> None:
        self._ended.append((then, future))
        # After the append: a `_take` that is scheduled and has not run yet finds this one.
        if not self._woken and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        # Before the deque is emptied: a future that ends meanwhile wakes the loop once more, at
        # worst for nothing; the other way round its answer would wait for the next launch's end.
        self._woken = False
        while self._ended:
            then, future = self._ended.popleft()
            then(future)
