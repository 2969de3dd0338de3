"""Memory two processes share: anonymous (nothing under /dev/shm), growing, never shrinking."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ALIGNED = 64  # bytes: where each tensor begins
_FIRST = 1 << 16
_MOST_KNOWN = 1024


class Area:
    """One side's view of shared memory. One process writes an area; the other reads it.

    Used by one thread of a process at a time. Tensors made from it keep their memory alive, also
    after it has grown elsewhere.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, 0)
        self._views: dict[tuple[int, torch.dtype, tuple[int, ...]], Tensor] = {}
        self._known: dict[Any, Any] = {}

    @classmethod
    def new(cls, nbytes: int = _FIRST) -> Area:
        """Zeroed memory of its own. Raises OSError where the system has none left."""
        fd = os.memfd_create("spacetime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, nbytes)
            # A reader of memory that shrank would be killed: no side can take any away.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def reserve(self, nbytes: int) -> mmap.mmap:
        """The memory, grown to at least `nbytes`: for the process that writes it."""
        if nbytes > len(self._map):
            os.ftruncate(self.fd, 1 << (nbytes - 1).bit_length())
        return self.read(nbytes)

    def read(self, nbytes: int) -> mmap.mmap:
        """The memory, with what the other side has added of it where `nbytes` needs that."""
        if nbytes > len(self._map) and os.fstat(self.fd).st_size > len(self._map):
            self._map = mmap.mmap(self.fd, 0)
            self._views.clear()
            self._known.clear()
        return self._map

    def known(self, what: Any) -> Any | None:
        """What know() was given for `what`, unless the memory has grown since: then None."""
        return self._known.get(what)

    def know(self, what: Any, prepared: Any) -> None:
        """Keeps what was prepared from this memory: launches of a tenant repeat their layouts."""
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[what] = prepared

    def tensor(self, at: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """As tensor_at, of what read() or reserve() gave last; the same object every time.

        Layouts that are new have much in common, and making a view takes microseconds.
        """
        key = (at, dtype, shape)
        if (known := self._views.get(key)) is not None:
            return known
        if len(self._views) >= _MOST_KNOWN:
            self._views.clear()
        view = self._views[key] = tensor_at(self._map, at, dtype, shape)
        return view

    def close(self) -> None:
        """Gives the descriptor back; the memory goes with its last tensor."""
        os.close(self.fd)


def tensor_at(memory: mmap.mmap, at: int, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """The tensor that lies there, not copied. Raises ValueError where it would not fit."""
    count = 1
    for n in shape:
        count *= n
    if not count:
        return torch.empty(tuple(shape), dtype=dtype)
    flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=at)
    return flat.view(tuple(shape))


def aligned(at: int) -> int:
    """The first place from `at` where a tensor may begin."""
    return -(-at // ALIGNED) * ALIGNED
