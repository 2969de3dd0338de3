"""Where blocks run on a device: each block says on which SM it runs, alone or in clusters."""

from __future__ import annotations

import numpy as np
import torch

from . import enqueue, load

SPIN_NS = 200_000  # long enough for every block to have started


def multiprocessors(stream: int, blocks: int, *, spin_ns: int = SPIN_NS) -> list[int]:
    """The SM of each block, in order. Waits for the device.

    `stream`: its handle.
    `blocks`: how many to launch.
    `spin_ns`: how long each block stays, so that all run at once.
    """
    ids = _unknown(blocks)
    kernel = load("probe", "smid")
    enqueue(kernel, stream, blocks, 32, ids.data_ptr(), np.int64(spin_ns))
    torch.cuda.synchronize()
    return [int(i) for i in ids.tolist()]


def clusters(stream: int, blocks: int, size: int, *, spin_ns: int = SPIN_NS) -> list[list[int]]:
    """The SMs of each cluster. Waits for the device; needs compute capability 9.0 or later.

    `stream`: its handle.
    `blocks`: how many to launch.
    `size`: how many blocks a cluster has, 1 to 8; above 8 not every device allows.
    `spin_ns`: how long each block stays, so that all run at once.

    Raises ValueError where `size` is outside 1 to 8 or `blocks` is no multiple of it. Raises CuPy's
    error (CUDA_ERROR_INVALID_CLUSTER_SIZE) where the stream's partition cannot hold a cluster.
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
    """int32 [blocks] of -1 on the device, where the kernel writes."""
    unknown = torch.full((blocks,), -1, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()  # filled on another stream
    return unknown
