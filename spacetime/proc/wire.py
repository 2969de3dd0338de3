"""How a batch and its answers lie in shared memory: whole numbers first, tensors behind them.

A batch: how many requests, then the tenant and samples of each, and each leaf's rows one request
behind the other, in shapes both sides know from the tenant's signature. Answers carry their own
shapes, for a model may return what its example did not. Nothing is pickled.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from spacetime.proc.area import Area, aligned
from spacetime.runner import Work
from spacetime.signature import Leaf

WORD = 8
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip
_NUMBER = {dtype: number for number, dtype in enumerate(DTYPES)}
MOST_DIMENSIONS = 64
ANSWERED, RAISED = 0, 1
NONSENSE = (ValueError, IndexError, OverflowError, RuntimeError, MemoryError, struct.error)


def write_batch(area: Area, batch: Sequence[Work]) -> None:
    """Copies a batch of one family into `area`."""
    words = [len(batch)]
    for work in batch:
        words += (work.member, work.samples)
    at, places = WORD * len(words), []
    for position in range(len(batch[0].leaves)):
        at = aligned(at)
        for work in batch:
            leaf = work.leaves[position]
            places.append((at, leaf))
            at += leaf.numel() * leaf.element_size()
    memory = area.reserve(at)
    struct.pack_into(f"={len(words)}q", memory, 0, *words)
    for place, leaf in places:
        area.tensor(place, leaf.dtype, leaf.shape).copy_(leaf)


def read_batch(area: Area, leaves_of: Callable[[int], Sequence[Leaf]]) -> list[Work]:
    """The batch as it lies in `area`, not copied; `leaves_of` is a tenant's signature."""
    memory = area.current()
    (count,) = struct.unpack_from("=q", memory, 0)
    words = struct.unpack_from(f"={2 * count}q", memory, WORD)
    members, samples = words[::2], words[1::2]
    at, columns = WORD * (1 + 2 * count), []
    for leaf in leaves_of(members[0]):
        row = leaf.tail.numel() * leaf.dtype.itemsize
        starts = [aligned(at) + row * rows for rows in accumulate(samples, initial=0)]
        columns.append([
            area.tensor(start, leaf.dtype, (rows, *leaf.tail))
            for start, rows in zip(starts, samples, strict=False)
        ])  # fmt: skip
        at = starts[-1]
    rows_of = zip(*columns, strict=True)
    return [Work(m, leaves, n) for m, n, leaves in zip(members, samples, rows_of, strict=True)]


def write_answers(area: Area, answers: Sequence[Sequence[Tensor]]) -> None:
    """Copies the flat output tensors of each request into `area`."""
    words = [ANSWERED, len(answers)]
    for tensors in answers:
        words.append(len(tensors))
        for x in tensors:
            words += (_NUMBER[x.dtype], x.dim(), *x.shape)
    at, places = WORD * len(words), []
    for tensors in answers:
        for x in tensors:
            at = aligned(at)
            places.append((at, x))
            at += x.numel() * x.element_size()
    memory = area.reserve(at)
    struct.pack_into(f"={len(words)}q", memory, 0, *words)
    for place, x in places:
        area.tensor(place, x.dtype, x.shape).copy_(x)


def write_error(area: Area, error: BaseException) -> None:
    """Leaves what was raised: the name of its class and its text."""
    texts = [type(error).__name__.encode()[:200], str(error).encode(errors="replace")[:4000]]
    at = 3 * WORD
    memory = area.reserve(at + sum(map(len, texts)))
    struct.pack_into("=3q", memory, 0, RAISED, *map(len, texts))
    memory[at : at + len(texts[0]) + len(texts[1])] = b"".join(texts)


def read_answers(area: Area) -> list[list[Tensor]] | tuple[str, str]:
    """The output tensors of each request, copied out, or the name and text of what was raised.

    Raises one of NONSENSE where that is what the other side left.
    """
    memory = area.current()
    kind, first = struct.unpack_from("=2q", memory, 0)
    if kind == RAISED:
        (second,) = struct.unpack_from("=q", memory, 2 * WORD)
        if not (0 <= first <= 200 and 0 <= second <= 4000):
            raise ValueError("an error's text of impossible length")
        texts = bytes(memory[3 * WORD : 3 * WORD + first + second])
        return texts[:first].decode(errors="replace"), texts[first:].decode(errors="replace")
    return _copied(area, memory, first)


def _copied(area: Area, memory: mmap.mmap, requests: int) -> list[list[Tensor]]:
    at, shapes = 2 * WORD, []
    for _ in range(requests):
        (tensors,) = struct.unpack_from("=q", memory, at)
        at += WORD
        own = []
        for _ in range(tensors):
            number, dimensions = struct.unpack_from("=2q", memory, at)
            if not (0 <= number < len(DTYPES) and 0 <= dimensions <= MOST_DIMENSIONS):
                raise ValueError("a tensor of no dtype or too many dimensions")
            shape = struct.unpack_from(f"={dimensions}q", memory, at + 2 * WORD)
            if any(n < 0 for n in shape):
                raise ValueError("a negative size")
            own.append((DTYPES[number], shape))
            at += WORD * (2 + dimensions)
        shapes.append(own)
    answers = []
    for own in shapes:
        copies = []
        for dtype, shape in own:
            at = aligned(at)
            copies.append(area.tensor(at, dtype, shape).clone())
            at += copies[-1].numel() * dtype.itemsize
        answers.append(copies)
    return answers
