"""Small models for tests. Not a test module; imported by those that run a session."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class LookUp(nn.Module):
    """Rows of its own table, in one of PyTorch's ways; an id beyond raises in all of them."""

    WAYS = ("embedding", "index", "index_select", "gather", "bag", "one hot")

    def __init__(self, seed: int, way: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.way = way
        self.table = nn.Parameter(torch.randn(10, 4))

    def forward(self, ids: Tensor) -> Tensor:
        table = self.table
        if self.way == "embedding":
            return functional.embedding(ids, table)
        if self.way == "index":
            return table[ids]
        if self.way == "index_select":
            return table.index_select(0, ids.flatten()).view(ids.shape[0], -1, 4)
        if self.way == "gather":
            return table.gather(0, ids[:, :1].expand(-1, 4)) + ids.sum(1, keepdim=True)
        if self.way == "bag":
            return functional.embedding_bag(ids, table, mode="sum")
        return functional.one_hot(ids, 10).float() @ table


class Branch(nn.Module):
    """Control flow that depends on data: right only if it is not traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1
