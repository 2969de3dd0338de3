"""How a batch and its answers lie in shared memory: whole numbers first, tensors behind them.

The first number says how many numbers there are, the second how many bytes there are in all. In a
batch follow the tenant and the number of samples of each request; behind the numbers lie the rows
of each leaf, one request after the other, in shapes that both sides know from the tenant's
signature. Answers carry their own shapes, for a model may return other ones than for its example.
Nothing is pickled.

Launches repeat, so each side works out once where everything lies (`Area.know`): the writing side
from what it writes, the reading side from the numbers as they lie there.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from spacetime.errors import text_of
from spacetime.models.request import Work
from spacetime.models.signature import Leaf
from spacetime.processes.area import Area, aligned

WORD = 8
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
_NUMBER = {dtype: number for number, dtype in enumerate(DTYPES)}
MOST_DIMENSIONS = 64
ANSWERED, RAISED = 0, 1
NONSENSE = (ValueError, IndexError, OverflowError, RuntimeError, MemoryError, struct.error)
_HEAD = struct.Struct("=2q")  # how many numbers, these two among them; how many bytes in all


class Batch(NamedTuple):
    """A launch in the process that runs it: one of its tenants, and its requests, each with the
    member number that its tenant has in that process."""

    tenant: int
    works: list[Work]


class _Layout(NamedTuple):
    """What launches of one kind write: numbers first, then tensors to their places."""

    numbers: bytes
    places: list[Tensor]


def write_batch(area: Area, batch: Sequence[Work]) -> None:
    """Copies a batch of one family into `area`."""
    kind = tuple([number for work in batch for number in (work.member, work.samples)])
    columns = [*zip(*[work.leaves for work in batch], strict=True)]
    layout = area.known(kind)
    if layout is None:
        area.know(kind, layout := _layout(area, kind, columns))
    _write(area, layout, [leaf for column in columns for leaf in column])


def read_batch(area: Area, known_as: Callable[[int], tuple[int, Sequence[Leaf]]]) -> Batch:
    """The batch as it lies in `area`, not copied.

    known_as: gives, for a tenant, its member number in this process and the tensors of one of its
    requests, neither of which ever changes.
    """
    numbers = _numbers(area)
    batch: Batch | None = area.known(numbers)
    if batch is None:
        area.know(numbers, batch := _batch(area, numbers, known_as))
    return batch


def write_answers(area: Area, answers: Sequence[Sequence[Tensor]]) -> None:
    """Copies the flat output tensors of each request into `area`."""
    tensors = [x for own in answers for x in own]
    kind = (*map(len, answers), *[(x.dtype, x.shape) for x in tensors])
    layout = area.known(kind)
    if layout is None:
        numbers = [ANSWERED, len(answers)]
        for own in answers:
            numbers.append(len(own))
            for x in own:
                numbers += (_NUMBER[x.dtype], x.dim(), *x.shape)
        area.know(kind, layout := _layout(area, numbers, [[x] for x in tensors]))
    _write(area, layout, tensors)


def write_error(area: Area, error: BaseException) -> None:
    """Leaves what was raised: the name of its class and its text."""
    name = type(error).__name__.encode()[:200]
    text = text_of(error).encode(errors="replace")[:4000]
    numbers = [RAISED, len(name), len(text)]
    at = _HEAD.size + WORD * len(numbers)
    said = _packed(numbers, at + len(name) + len(text)) + name + text
    area.reserve(len(said))[: len(said)] = said


def read_answers(area: Area) -> list[list[Tensor]] | tuple[str, str]:
    """The output tensors of each request, copied out, or the name and text of what was raised.

    Raises one of NONSENSE where that is what the other side left.
    """
    numbers = _numbers(area)
    answers: list[list[Tensor]] | None = area.known(numbers)
    if answers is None:
        kind, *words = _unpacked(numbers)
        if kind == RAISED:
            return _raised(area, len(numbers), words)
        area.know(numbers, answers := _answers(area, len(numbers), words))
    return [[x.clone() for x in own] for own in answers]


def _layout(area: Area, numbers: Sequence[int], columns: Iterable[Sequence[Tensor]]) -> _Layout:
    """Room behind the numbers for tensors like these, those of a column without a gap."""
    at, places = _HEAD.size + WORD * len(numbers), []
    for column in columns:
        at = aligned(at)
        for x in column:
            places.append((at, x.dtype, x.shape))
            at += x.nbytes
    area.reserve(at)
    return _Layout(_packed(numbers, at), [area.tensor(*place) for place in places])


def _write(area: Area, layout: _Layout, tensors: Sequence[Tensor]) -> None:
    area.reserve(0)[: len(layout.numbers)] = layout.numbers
    for place, x in zip(layout.places, tensors, strict=True):
        place.copy_(x)


def _packed(numbers: Sequence[int], nbytes: int) -> bytes:
    count = 2 + len(numbers)
    return struct.pack(f"={count}q", count, nbytes, *numbers)


def _numbers(area: Area) -> bytes:
    """What was packed there, once the memory is as large as it says."""
    count, nbytes = _HEAD.unpack_from(area.read(_HEAD.size))
    memory = area.read(nbytes)
    if not _HEAD.size <= WORD * count <= len(memory):
        raise ValueError("an impossible count of numbers")
    return memory[: WORD * count]


def _unpacked(numbers: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"={len(numbers) // WORD - 2}q", numbers, _HEAD.size)


def _batch(
    area: Area, numbers: bytes, known_as: Callable[[int], tuple[int, Sequence[Leaf]]]
) -> Batch:
    words = _unpacked(numbers)
    tenants, samples = words[::2], words[1::2]
    members, (leaves, *_) = zip(*map(known_as, tenants), strict=True)
    at, columns = len(numbers), []
    for leaf in leaves:
        row = leaf.tail.numel() * leaf.dtype.itemsize
        starts = [aligned(at) + row * rows for rows in accumulate(samples, initial=0)]
        columns.append(
            [
                area.tensor(start, leaf.dtype, (rows, *leaf.tail))
                for start, rows in zip(starts, samples, strict=False)
            ]
        )
        at = starts[-1]
    rows_of = zip(*columns, strict=True)
    works = [Work(m, leaves, n) for m, n, leaves in zip(members, samples, rows_of, strict=True)]
    return Batch(tenants[0], works)


def _answers(area: Area, at: int, words: Iterable[int]) -> list[list[Tensor]]:
    take = deque(words).popleft  # raises IndexError where none is left
    shapes = [[_shape(take) for _ in range(take())] for _ in range(take())]
    answers = []
    for own in shapes:
        tensors = []
        for dtype, shape in own:
            tensors.append(area.tensor(at := aligned(at), dtype, shape))
            at += tensors[-1].nbytes
        answers.append(tensors)
    return answers


def _shape(take: Callable[[], int]) -> tuple[torch.dtype, tuple[int, ...]]:
    number, dimensions = take(), take()
    if not (0 <= number < len(DTYPES) and 0 <= dimensions <= MOST_DIMENSIONS):
        raise ValueError("a tensor of no dtype or too many dimensions")
    shape = tuple([take() for _ in range(dimensions)])
    if any(n < 0 for n in shape):
        raise ValueError("a negative size")
    return DTYPES[number], shape


def _raised(area: Area, at: int, words: Sequence[int]) -> tuple[str, str]:
    name, text = words
    if not (0 <= name <= 200 and 0 <= text <= 4000):
        raise ValueError("an error's text of impossible length")
    said = area.read(at + name + text)[at : at + name + text]
    return said[:name].decode(errors="replace"), said[name:].decode(errors="replace")
