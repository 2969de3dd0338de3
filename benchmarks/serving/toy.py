"""The model that servers are compared with: 2 ms a batch, whatever the batch."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.library import register_fake

BATCH_S = 0.002
LARGEST_BATCH = 16
WIDTH = 16


# An operator, so that exporting the model does not lose the wait. Registered for the CPU alone:
# custom_op's wrapper takes 0.1 ms a call.
_library = torch.library.Library("spacetime_bench", "DEF")  # type: ignore[no-untyped-call]
_library.define("pause(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]


@torch.library.impl(_library, "pause", "CPU")
def _pause(x: Tensor) -> Tensor:
    """Returns x + 1 after BATCH_S."""
    time.sleep(BATCH_S)
    return x + 1


@register_fake("spacetime_bench::pause", lib=_library)  # type: ignore[untyped-decorator]
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Pause(nn.Module):
    """Rows [n, WIDTH] in, the same plus 1 out."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.spacetime_bench.pause(x)
        return out


def toy() -> nn.Module:
    """Returns the model that a workload names."""
    return Pause()
