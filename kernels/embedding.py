"""Embedding over slots: ids [S, ...], weight stack [T, V, D]; the output is [S, ..., D]."""

from __future__ import annotations

import torch
from torch import Tensor

from .bounds import check
from .scripted import scripted


@scripted
def embed_table(rows: Tensor, run: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """One look-up in all tenants' tables; only the rows that are used are read.

    Raises IndexError for an id beyond a tenant's own table, as the module does. On a CUDA device
    looking at the ids would stop the stream, so nothing is raised there: the tables are not laid
    end to end, and an id cannot reach the next tenant's table.
    """
    slots = rows.view([-1] + [1] * (ids.dim() - 1))
    if weight.is_cuda:
        return weight[slots.expand_as(ids), ids]
    check(ids, 0, weight.size(1), None)
    if weight.is_contiguous():  # laid end to end, for which a CPU is twice as fast
        return torch.embedding(weight.flatten(0, 1), ids + slots * weight.size(1))
    return weight[slots.expand_as(ids), ids]
