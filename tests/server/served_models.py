"""Models for the server's tests, named by its workload; no test module."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """2 x + 1, so that a test knows every answer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + 1


class Two(nn.Module):
    """Two inputs, a dict of two outputs of other types."""

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right.to(left.dtype), "largest": left.argmax(dim=1)}


class Gate(nn.Module):
    """Holds its lane for inputs above 100 while the gate is shut. Refused by torch.export."""

    held = threading.Event()  # set once a launch has begun to wait
    open = threading.Event()
    example = torch.zeros(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 100:
            Gate.held.set()
            Gate.open.wait(60)
        return x + 1


class Table(nn.Module):
    """Rows of a table that begins at 40."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(10, 2)

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self.rows(ids - 40)
        return rows


class Same(nn.Module):
    """What comes is what goes, under a name that tells nothing of its type."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class FileGate(nn.Module):
    """The same between processes: says through one file that it holds, waits for another."""

    def forward(self, x: Tensor) -> Tensor:
        folder = Path(os.environ["SPACETIME_GATE"])
        if x.max() > 100:
            (folder / "held").write_text("held")
            with_pause = threading.Event()
            while not (folder / "open").exists():
                with_pause.wait(0.01)
        return x + 1


class Notes(nn.Module):
    """Notes the first value of each request, in the order they run. Refused by torch.export."""

    seen: ClassVar[list[float]] = []

    def forward(self, x: Tensor) -> Tensor:
        Notes.seen += x[:, 0].tolist()
        return x


class Breaks(nn.Module):
    """Raises for inputs above 100."""

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 100:
            raise ValueError("too much")
        return x


class Halves(nn.Module):
    """Types that travel in their own ways: half, bfloat16, bool."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return a * 2, b * 2, ~c


def affine() -> nn.Module:
    return Affine()


def two() -> nn.Module:
    return Two()


def table() -> nn.Module:
    return Table()


def same() -> nn.Module:
    return Same()


def notes() -> nn.Module:
    return Notes()


def gate() -> nn.Module:
    return Gate()


def file_gate() -> nn.Module:
    return FileGate()


def breaks() -> nn.Module:
    return Breaks()


def halves() -> nn.Module:
    return Halves()


def fails() -> nn.Module:
    raise RuntimeError("no such disk")


def level() -> nn.Module:
    """Its weights come from a file."""
    return nn.Linear(3, 2)
