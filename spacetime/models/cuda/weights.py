"""Weights of a family's tenants on a device: one arena row each, seen as ordinary tensors.

Every weight is a stack `[rows, *shape]` whose rows lie one arena row apart. Addresses are fixed
when the arena is reserved, so graphs that were captured before a tenant joined serve it too; memory
stands behind the rows of present tenants only (csrc/cuda/memory.h).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

import spacetime._native as _native
from spacetime.errors import DriverError, OutOfMemory, UnsupportedError
from spacetime.models.cuda.capture import Capturer, view

MOST_TENANTS = 4096  # rows whose addresses are asked for; they cost no memory
LEAST_TENANTS = 16  # fewer are no family: where the driver has no addresses for them, it says so
LENT_ON_A_FAKE = 256 * 2**20  # bytes of the host's memory, where nothing is timed
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_ALIGN = 256


@dataclass(frozen=True, slots=True)
class Slab:
    """Where one weight lies in a row. `channels_last`: [O, C, H, W] stored as [O, H, W, C]."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool = False


def slabs(specs: Sequence[tuple[tuple[int, ...], torch.dtype, bool]]) -> tuple[list[Slab], int]:
    """Slabs of these (shape, dtype, channels_last) one after the other, and the bytes of a row."""
    layout, at = [], 0
    for shape, dtype, channels_last in specs:
        layout.append(Slab(at, shape, dtype, channels_last))
        size = dtype.itemsize * torch.Size(shape).numel()
        at += -(-size // _ALIGN) * _ALIGN
    return layout, max(at, _ALIGN)


class Weights:
    """The rows of one family. Thread safety: add and remove under the session's lock."""

    def __init__(
        self, native: _native.CudaDevice, capturer: Capturer, layout: Sequence[Slab], row_bytes: int
    ) -> None:
        self._native = native
        self._capturer = capturer
        self.arena = _native.Arena(
            native, row_bytes=row_bytes, rows=MOST_TENANTS, least=LEAST_TENANTS
        )
        self.stacks = [self._stack(slab) for slab in layout]
        self.rows: set[int] = set()

    @property
    def row_bytes(self) -> int:
        """Device memory of one tenant, as the driver gives it out."""
        return self.arena.row_bytes

    @property
    def most(self) -> int:
        """How many tenants there are addresses for."""
        return self.arena.rows

    def free_row(self) -> int:
        """The row the next tenant gets: the lowest one free. UnsupportedError: none is left."""
        for row in range(self.most):
            if row not in self.rows:
                return row
        raise UnsupportedError(
            f"a family holds at most {self.most} tenants of this size; open another session for "
            "more"
        )

    def add(self, tenant: str, row: int, values: Sequence[Tensor], limit: int | None) -> None:
        """Puts memory behind a row and the values into it; OutOfMemory leaves all as it was."""
        if limit is not None and self.row_bytes > limit:
            raise OutOfMemory(tenant, self.row_bytes, limit, "its memory limit")
        if not self._mapped(row):
            self._capturer.release()  # what PyTorch holds for later, which waits for all lanes
            if not self._mapped(row):
                free, _ = self._native.memory()
                raise OutOfMemory(tenant, self.row_bytes, free, "the device")
        self.rows.add(row)
        for stack, value in zip(self.stacks, values, strict=True):
            stack[row].copy_(value)
        self._capturer.settle()

    def _mapped(self, row: int) -> bool:
        try:
            self.arena.map(row)
        except DriverError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            return False
        return True

    @contextmanager
    def distinct(self, count: int) -> Iterator[list[int]]:
        """Rows of up to `count` tenants to measure with, each with memory of its own: where there
        are too few members, copies of the first, which go afterwards. They take half of the free
        memory at most, so that there may be fewer. Under the session's lock."""
        rows, lent = sorted(self.rows)[:count], []
        spare_bytes = self._native.memory()[0] // 2
        if isinstance(self._native, _native.FakeCudaDevice):
            spare_bytes = min(spare_bytes, LENT_ON_A_FAKE)
        spare = spare_bytes // self.row_bytes
        free = (row for row in range(self.most) if row not in self.rows)
        try:
            for row in itertools.islice(free, max(0, min(spare, count - len(rows)))):
                if not self._mapped(row):
                    break
                lent.append(row)
                for stack in self.stacks:
                    stack[row].copy_(stack[rows[0]])
            self._capturer.settle()
            yield rows + lent
        except BaseException:
            with suppress(DriverError):  # a lost device takes nothing back
                self._give_back(lent)
            raise
        self._give_back(lent)

    def _give_back(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.arena.unmap(row)

    def remove(self, row: int) -> None:
        """Takes a row's memory back; no launch may be reading it."""
        self.arena.unmap(row)
        self.rows.discard(row)

    def of(self, row: int) -> list[Tensor]:
        """One tenant's weights, without a copy."""
        return [stack[row] for stack in self.stacks]

    def _stack(self, slab: Slab) -> Tensor:
        step = self.arena.row_bytes // slab.dtype.itemsize
        shape = slab.shape
        if slab.channels_last:
            outputs, inputs, *space = shape
            shape = (outputs, *space, inputs)
        inner = [1]
        for size in reversed(shape[1:]):
            inner.insert(0, inner[0] * size)
        strides = [step, *inner] if shape else [step]
        host = isinstance(self._native, _native.FakeCudaDevice)
        sizes = (self.most, *shape)
        stack = view(self.arena, slab.offset, sizes, slab.dtype, strides=strides, host=host)
        return stack.movedim(-1, 2) if slab.channels_last else stack
