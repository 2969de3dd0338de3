"""Small models for tests. Not a test module; imported by those that run a session."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

X = torch.zeros(1, 6)


def mlp(seed: int) -> nn.Module:
    """A family member: one architecture, weights by seed."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def convnet(seed: int) -> nn.Module:
    """Another family: input [n, 1, 8, 8], batch-norm with statistics of its own."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)
    )
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 1, 8, 8))
    return model.eval()


class Latch(nn.Module):
    """Holds its lane while the latch is shut, for inputs above zero. Refused by torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Event()  # set once a launch has begun to wait
        self.open = threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.held.set()
            self.open.wait(60)
        return x + 1


class Picky(nn.Module):
    """Looks tokens up; an id beyond its table raises in the middle of a fused batch."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)


class Branch(nn.Module):
    """Control flow that depends on data: right only if it is not traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1
