"""Models that end, hold or disturb the process they run in. Not a test module."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor, nn

RAISES, EXITS, CRASHES, HOLDS = -1.0, -2.0, -3.0, -4.0


class Odd(RuntimeError):
    """An exception no other process knows."""


class Troubled(nn.Module):
    """x + 1, or what its first value says; HOLDS waits for a writer of `gate`, a FIFO."""

    def __init__(self, gate: Path | None = None) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        what = float(x.flatten()[0])
        if what == RAISES:
            raise Odd("on purpose")
        if what == EXITS:
            os._exit(7)
        if what == CRASHES:
            ctypes.string_at(0)
        if what == HOLDS and self.gate is not None:
            self.gate.read_bytes()
        return x + 1


class DiesAtOnce(nn.Module):
    """Ends its process on any input."""

    def forward(self, x: Tensor) -> Tensor:
        ctypes.string_at(0)
        return x


class Structured(nn.Module):
    """Keyword inputs, a nested output with a constant in it; `kept` is a view of its input."""

    def forward(self, x: Tensor, *, mask: Tensor) -> dict[str, object]:
        return {"sum": (x + mask, x * 2), "kept": x[:, 1:], "version": 3}


class Tied(nn.Module):
    """Two names for one parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.there = nn.Linear(6, 6)
        self.back = nn.Linear(6, 6)
        self.back.weight = self.there.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.there(x))
