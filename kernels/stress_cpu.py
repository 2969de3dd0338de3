"""Stressors and probes for cores: launches of known size that load one part of a CPU.

`compute` keeps the arithmetic units busy from the first-level caches, `cache` streams through a
core's second-level cache, `memory` through memory. All run in TorchScript, so neither the
interpreter nor its lock is in the way, and split over the calling thread's intra-op threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .scripted import scripted

KINDS = ("compute", "cache", "memory")
SIDE = 128  # of compute's square products: three of them fit in 192 KiB
CHUNK = 32768  # floats a core and operand: PyTorch gives each thread no less than this
MEMORY_BYTES = 96 * 2**20  # of one operand, unless the last-level cache asks for more

RunRounds = Callable[[int], object]  # takes how many rounds to run


@scripted
def products(a: Tensor, b: Tensor, out: Tensor, rounds: int) -> None:
    """`rounds` batched products of [cores, SIDE, SIDE], one for each core at a time."""
    for _ in range(rounds):
        torch.bmm(a, b, out=out)


@scripted
def sums(a: Tensor, b: Tensor, out: Tensor, first: int, rounds: int) -> None:
    """out = a + b, `rounds` times in turn over the rows of [rows, floats], from row `first` on."""
    for i in range(first, first + rounds):
        at = i % a.size(0)
        torch.add(a[at], b[at], out=out[at])


def stressor(kind: str, cores: int, *, memory_bytes: int | None = None) -> tuple[RunRounds, int]:
    """A launch for so many cores, and the FLOP (compute) or bytes moved by one round of it.

    memory_bytes: size of each of memory's three operands; None is several last-level caches.
    Raises ValueError for another kind.
    """
    if kind == "compute":
        a, b = torch.randn(2, cores, SIDE, SIDE)
        product = torch.empty_like(a)
        return lambda rounds: products(a, b, product, rounds), 2 * cores * SIDE**3
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind}")
    floats = cores * CHUNK
    held = memory_bytes or max(MEMORY_BYTES, 2 * last_level_bytes())
    rows = 1 if kind == "cache" else max(1, held // (4 * floats))
    return _streaming(rows, floats), 3 * 4 * floats


def _streaming(rows: int, floats: int) -> RunRounds:
    x, y = torch.ones(2, rows, floats)
    total = torch.zeros_like(x)
    first = 0

    def launch(rounds: int) -> None:
        nonlocal first  # goes on where the last launch ended: what that left in the caches is old
        sums(x, y, total, first, rounds)
        first = (first + rounds) % rows

    return launch


def last_level_bytes() -> int:
    """The size of the largest cache as Linux reports it; 0 where it reports none."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    scale = {"K": 2**10, "M": 2**20}
    texts = [path.read_text(encoding="ascii").strip() for path in sizes]
    return max(
        (int(text[:-1]) * scale[text[-1]] for text in texts if text[-1:] in scale), default=0
    )
