"""Stressors for SMs: launches of known size that load one part of a device, as `stress_cpu` does.

"compute" keeps the float32 units busy, "tensor" the tensor cores, "cache" copies within L2 and
"memory" through HBM. The twins say what the kernels compute and how much that is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from . import enqueue, load

KINDS = ("compute", "tensor", "cache", "memory")
THREADS = 256
BLOCKS_PER_SM = 8  # 2048 threads, all that an SM of compute capability 8.0, 9.0 or 10.0 holds
CHAINS, UNROLL, TILES = 8, 16, 4  # as in arithmetic.cu
CACHE_BYTES = 8 * 2**20  # of one buffer: two of them stay in L2 of any data-centre device
MEMORY_BYTES = 2**30  # many times L2

RunRounds = Callable[[int], object]  # takes how many rounds to enqueue


def fma_flop(threads: int, rounds: int) -> int:
    """FLOP of `fma_loop` by `threads` threads in all."""
    return 2 * CHAINS * UNROLL * threads * rounds


def mma_flop(threads: int, rounds: int) -> int:
    """FLOP of `mma_loop` by `threads` threads in all, 32 to a warp."""
    return TILES * 2 * 16 * 8 * 16 * (threads // 32) * rounds


def copy_bytes(elements: int, rounds: int) -> int:
    """Bytes read and written by `copy`, of elements of 16 bytes."""
    return 32 * elements * rounds


def fma_loop(blocks: int, threads: int, rounds: int) -> NDArray[np.float32]:
    """The plain twin of the kernel `fma_loop`: its output, float32 [blocks * threads]."""
    value = np.arange(threads, dtype=np.float32)[:, None] + np.arange(CHAINS, dtype=np.float32)
    for _ in range(rounds * UNROLL):
        value = value * np.float32(0.5) + np.float32(1)
    total = np.zeros(threads, np.float32)
    for chain in value.T:  # in the kernel's own order
        total += chain
    return np.tile(total, blocks)


def mma_loop(blocks: int, threads: int, rounds: int) -> NDArray[np.float32]:
    """The plain twin of the kernel `mma_loop`: its output, float32 [blocks * threads], exact
    below 2**24.
    """
    return np.full(blocks * threads, TILES * 4 * 16 * rounds, np.float32)


def stressor(
    kind: str, sms: int, stream: int, *, bytes_held: int | None = None
) -> tuple[RunRounds, int]:
    """A launch that fills `sms` SMs, and the FLOP or bytes moved by one round of it.

    `kind`: one of KINDS. The amount is FLOP for "compute" and "tensor", else bytes.
    `sms`: of the partition.
    `stream`: its handle.
    `bytes_held`: of each of a copy's two buffers; None means CACHE_BYTES or MEMORY_BYTES.

    Raises ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind}")
    blocks = sms * BLOCKS_PER_SM
    if kind in {"compute", "tensor"}:
        name, flop = ("fma_loop", fma_flop) if kind == "compute" else ("mma_loop", mma_flop)
        kernel = load("arithmetic", name)
        out = torch.empty(blocks * THREADS, device="cuda")
        return (
            lambda rounds: enqueue(
                kernel, stream, blocks, THREADS, out.data_ptr(), np.int32(rounds)
            ),
            flop(blocks * THREADS, 1),
        )
    held = bytes_held or (CACHE_BYTES if kind == "cache" else MEMORY_BYTES)
    return _copying(held // 16, blocks, stream), copy_bytes(held // 16, 1)


def _copying(elements: int, blocks: int, stream: int) -> RunRounds:
    """A launch that copies `elements` elements of 16 bytes from one buffer to another."""
    kernel = load("copy", "copy")
    blocks //= 2  # each thread holds four elements in flight: half the threads fill an SM
    source, target = torch.rand(2, 4 * elements, device="cuda")
    torch.cuda.synchronize()  # filled on another stream
    places = source.data_ptr(), target.data_ptr(), np.int64(elements)
    kept = source, target

    def launch(rounds: int) -> None:
        assert kept  # holds the buffers alive as long as the launch, which has only their addresses
        enqueue(kernel, stream, blocks, THREADS, *places, np.int32(rounds))

    return launch
