"""Embedding over slots: ids [S, ...], weight stack [T, V, D]; output [S, ..., D]."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def embed_table(rows: Tensor, run: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """One look-up in all tenants' tables laid end to end: only the rows used are read."""
    vocabulary = weight.size(1)
    first = rows.view([-1] + [1] * (ids.dim() - 1)) * vocabulary
    return torch.embedding(weight.flatten(0, 1), ids + first)
