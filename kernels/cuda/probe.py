"""Where blocks run on a device: asks each block for its SM, alone or in clusters."""

from __future__ import annotations

import numpy as np
import torch

from . import enqueue, load

SPIN_NS = 200_000  # long enough for every block to have started


def multiprocessors(stream: int, blocks: int, *, spin_ns: int = SPIN_NS) -> list[int]:
    """multiprocessors(stream, blocks): the SM of each block, in order. Synchronises the device."""
    ids = _unknown(blocks)
    kernel = load("probe", "smid")
    enqueue(kernel, stream, blocks, 32, ids.data_ptr(), np.int64(spin_ns))
    torch.cuda.synchronize()
    return [int(i) for i in ids.tolist()]


def clusters(stream: int, blocks: int, size: int, *, spin_ns: int = SPIN_NS) -> list[list[int]]:
    """clusters(stream, blocks, size): the SMs of each cluster of `size` blocks.

    Compute capability 9.0 and later. CuPy's error (CUDA_ERROR_INVALID_CLUSTER_SIZE) where the
    stream's partition cannot hold a cluster; ValueError when blocks are no multiple of size, or
    size is above 8, which not every device allows.
    """
    if not 1 <= size <= 8 or blocks % size:
        raise ValueError(f"size: {size} must be 1 to 8 and divide {blocks} blocks")
    ids, sizes = _unknown(blocks), _unknown(blocks)
    kernel = load("probe", "clustered", f"-DCLUSTER={size}")
    places = ids.data_ptr(), sizes.data_ptr()
    enqueue(kernel, stream, blocks, 32, *places, np.int64(spin_ns))
    torch.cuda.synchronize()
    assert set(sizes.tolist()) == {size}
    return [[int(i) for i in ids[at : at + size].tolist()] for at in range(0, blocks, size)]


def _unknown(blocks: int) -> torch.Tensor:
    unknown = torch.full((blocks,), -1, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()  # filled on another stream
    return unknown
