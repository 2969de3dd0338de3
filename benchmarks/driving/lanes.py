"""Lanes without a scheduler: pinned threads that run a launch the moment it is handed over.

The launch-level benchmarks use them, so that what differs between two modes is the launches and
not how they were handed over. Used from one thread at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import torch

from spacetime.models.timing import lane_threads

Launch = Callable[[], object]


class Lane:
    """One thread pinned to `cores`, with as many intra-op threads. close() ends it."""

    def __init__(self, cores: Sequence[int]) -> None:
        self.cores = tuple(cores)
        self._launches: SimpleQueue[tuple[Launch, int] | None] = SimpleQueue()
        self._finished: SimpleQueue[int | BaseException] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"lane-{self.cores}", daemon=True)
        self._thread.start()

    def start(self, launch: Launch, rounds: int) -> None:
        """Runs `launch` that many times; returns at once."""
        self._launches.put((launch, rounds))

    def finish(self) -> int:
        """Waits for the last start; returns when it finished, in ns. Raises what it raised."""
        finished = self._finished.get()
        if isinstance(finished, BaseException):
            raise finished
        return finished

    def close(self) -> None:
        """Ends the thread after what was started."""
        self._launches.put(None)
        self._thread.join()

    def _serve(self) -> None:
        os.sched_setaffinity(0, self.cores)
        with lane_threads(len(self.cores)):
            while (work := self._launches.get()) is not None:
                launch, rounds = work
                try:
                    for _ in range(rounds):
                        launch()
                    self._finished.put(time.perf_counter_ns())
                except BaseException as error:
                    self._finished.put(error)


class PinnedLanes:
    """Two layouts of the cores this process may use: `whole`, one lane on all, and `single`.

    Meanwhile the calling thread computes with one thread. A second team of OpenMP threads would
    make more of them than cores, and libgomp's then sleep instead of spinning between two parallel
    regions: whoever used all cores ran at half speed, although the other team was idle.
    """

    def __init__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        self.cores = tuple(sorted(os.sched_getaffinity(0)))
        self.whole = Lane(self.cores)
        self.single = [Lane([core]) for core in self.cores]

    def __enter__(self) -> PinnedLanes:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in [self.whole, *self.single]:
            lane.close()
        torch.set_num_threads(self._before)


Round = Sequence[tuple[Lane, Launch]]  # what each lane runs once


def elapsed_ns(round_: Round, rounds: int) -> int:
    """Returns the ns from the release of all lanes to the last one's finish, after `rounds`."""
    start = time.perf_counter_ns()
    for lane, launch in round_:
        lane.start(launch, rounds)
    return max([lane.finish() for lane, _ in round_]) - start
