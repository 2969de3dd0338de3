"""Stressors for cores: launches of known size that load one part of a CPU.

"compute" keeps the arithmetic units busy from the first-level caches, "cache" streams through a
core's second-level cache, "memory" through memory. All run in TorchScript, so neither the
interpreter nor its lock is in the way, and split over the calling thread's intra-op threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .scripted import scripted

KINDS = ("compute", "cache", "memory")
SIDE = 128  # rows and columns of "compute": its three matrices take 192 KiB
CHUNK = 32768  # floats of an operand for each core: PyTorch gives a thread no fewer
MEMORY_BYTES = 96 * 2**20  # of one operand, unless the last-level cache is too large for that

RunRounds = Callable[[int], object]  # takes how many rounds to run


@scripted
def products(a: Tensor, b: Tensor, out: Tensor, rounds: int) -> None:
    """`rounds` batched products of a and b, float32 [cores, SIDE, SIDE]: one for each core at a
    time.
    """
    for _ in range(rounds):
        torch.bmm(a, b, out=out)


@scripted
def sums(a: Tensor, b: Tensor, out: Tensor, first: int, rounds: int) -> None:
    """out = a + b, one row at a time: `rounds` rows from row `first` on, going round.

    `a`, `b` and `out` are float32 [rows, floats].
    """
    for i in range(first, first + rounds):
        at = i % a.size(0)
        torch.add(a[at], b[at], out=out[at])


def stressor(kind: str, cores: int, *, memory_bytes: int | None = None) -> tuple[RunRounds, int]:
    """A launch for `cores` cores, and the FLOP ("compute") or bytes moved ("cache", "memory") by
    one round of it.

    `kind`: one of KINDS.
    `cores`: how many cores a launch loads.
    `memory_bytes`: of each of the three operands of "memory"; None means twice the last-level
        cache, or MEMORY_BYTES where that is more.

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
    """A launch that adds two operands [rows, floats] into a third."""
    x, y = torch.ones(2, rows, floats)
    total = torch.zeros_like(x)
    first = 0

    def launch(rounds: int) -> None:
        # Go on where the last launch ended, for the caches hold the rows before that.
        nonlocal first
        sums(x, y, total, first, rounds)
        first = (first + rounds) % rows

    return launch


def last_level_bytes() -> int:
    """Bytes of the largest cache as Linux reports it; 0 where it reports none."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    scale = {"K": 2**10, "M": 2**20}
    texts = [path.read_text(encoding="ascii").strip() for path in sizes]
    return max(
        (int(text[:-1]) * scale[text[-1]] for text in texts if text[-1:] in scale), default=0
    )
