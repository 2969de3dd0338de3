"""Embedding over slots: ids [S, ...], weight stack [T, V, D]; output [S, ..., D]."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def embed_table(rows: Tensor, run: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """One look-up in all tenants' tables: only the rows used are read."""
    slots = rows.view([-1] + [1] * (ids.dim() - 1))
    if weight.is_contiguous():  # laid end to end, for which a CPU is twice as fast
        return torch.embedding(weight.flatten(0, 1), ids + slots * weight.size(1))
    return weight[slots.expand_as(ids), ids]
