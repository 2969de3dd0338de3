"""Which SMs a launch ran on: a kernel that notes them, compiled by CuPy where a device is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

BLOCKS_AN_SM = 4  # so many blocks for each SM of the device: none is left out
_SOURCE = r"""
extern "C" __global__ void where(int* ids, long long ns) {
  unsigned id;
  asm volatile("mov.u32 %0, %smid;" : "=r"(id));
  long long begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begin < ns);
  if (threadIdx.x == 0) ids[blockIdx.x] = (int)id;
}
"""


class Where:
    """A kernel of many blocks that each spin for a while and note the SM they ran on."""

    def __init__(self, blocks: int) -> None:
        cupy = import_module("cupy")
        self._cupy = cupy
        self._kernel = cupy.RawKernel(_SOURCE, "where")
        self.ids: Tensor = torch.full((blocks,), -1, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()  # launches come on other streams

    def launch(self, stream: int, *, ns: int = 200_000, blocks: int | None = None) -> None:
        """Enqueues it on a stream, by its handle; also inside a capture of that stream."""
        number = len(self.ids) if blocks is None else blocks
        arguments: tuple[Any, ...] = (self.ids.data_ptr(), self._cupy.int64(ns))
        with self._cupy.cuda.ExternalStream(stream):
            self._kernel((number,), (32,), arguments)

    def seen(self) -> list[int]:
        """The SMs noted since the last call, sorted. Synchronises the device."""
        torch.cuda.synchronize()
        found = self.taken(torch.cuda.current_stream())
        torch.cuda.synchronize()
        return found

    def taken(self, stream: torch.cuda.Stream) -> list[int]:
        """As seen, but waits for this stream only: others may be at work."""
        with torch.cuda.stream(stream):
            found = sorted(set(self.ids.tolist()) - {-1})
            self.ids.fill_(-1)
            stream.synchronize()
        return found
