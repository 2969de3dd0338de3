"""Models whose weights change while they are served; other processes import them. No tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

X = torch.ones(1, 4)


class Level(nn.Module):
    """Three layers that say which weights computed them: a mixture of two states shows.

    All weights and the buffer are `level`, so every output of level k for ones is a function of k
    alone, and no two levels have parts in common.
    """

    def __init__(self, level: float) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 3)
        self.register_buffer("shift", torch.empty(3))
        with torch.no_grad():
            for x in (*self.parameters(), *self.buffers()):
                x.fill_(level)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.first(x)
        return y, self.second(y) + self.shift


class BranchLevel(Level):
    """The same, run eagerly: which way it goes depends on values."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x) if float(x.sum()) >= 0 else super().forward(-x)


class Picks(nn.Module):
    """A table of integers, which a family shares, and a weight, which it does not."""

    def __init__(self, seed: int, picks: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("picks", torch.tensor(picks))
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x[:, self.picks])


class Tied(nn.Module):
    """Two keys, one tensor."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)
        self.outer.weight = self.inner.weight

    def forward(self, x: Tensor) -> Any:
        return self.outer(self.inner(x).tanh())


class Norm(nn.Module):
    """Running statistics beside weights, and a count."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv1d(1, 3, 3, padding=1), nn.BatchNorm1d(3)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
            self.norm.num_batches_tracked.fill_(seed)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x[:, None])).flatten(1)


class Scale(nn.Module):
    """Something that is no tensor in its state dict."""

    def __init__(self, seed: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.scale = nn.Linear(4, 3), scale

    def get_extra_state(self) -> float:
        return self.scale

    def set_extra_state(self, state: float) -> None:
        self.scale = state

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) * self.scale
