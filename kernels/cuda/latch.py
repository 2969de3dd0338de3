"""A latch holds a stream until it is opened: overlap and order are tested without sleeping."""

from __future__ import annotations

import numpy as np
import torch

from . import enqueue, load

LOOKS = 10_000_000  # of about a microsecond: a forgotten latch gives the device back


class Latch:
    """A kernel that waits in a stream. `open` lets it go, for good; so does leaving `with`.

        with Latch() as latch:
            latch.hold(stream)
            ...               # what is enqueued on `stream` now has not begun
            latch.open()

    `looks` bounds the wait: the kernel looks that often, about a microsecond each time.
    """

    def __init__(self, looks: int = LOOKS) -> None:
        self._kernel = load("latch", "latch")
        self._flag = torch.zeros(2, dtype=torch.int32).pin_memory()
        self._seen = self._flag.numpy()
        self._looks = np.int64(looks)

    def hold(self, stream: int) -> None:
        """Let a stream, given by its handle, go no further until `open` is called."""
        enqueue(self._kernel, stream, 1, 1, self._flag.data_ptr(), self._looks)

    def open(self) -> None:
        """Let the stream go."""
        self._seen[0] = 1

    @property
    def gave_up(self) -> bool:
        """Whether the latch let the stream go without having been opened; known once the stream
        has passed it.
        """
        return int(self._seen[1]) == 2

    def __enter__(self) -> Latch:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        torch.cuda.synchronize()  # the flag must outlive the kernel that looks at it
