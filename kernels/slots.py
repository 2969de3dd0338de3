"""Which rows of the stacks the slots use, and the weights at those rows."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def locate(table: Tensor, index: Tensor) -> Tensor:
    """locate(table, index): rows [S] of the tenants in index [S]; table maps numbers to rows."""
    rows = table.index_select(0, index)
    if rows.numel() > 0 and int(rows.min()) < 0:
        raise RuntimeError("index: names a tenant that was removed")
    return rows


@scripted
def run_of(rows: Tensor) -> Tensor:
    """run_of(rows): the first row when rows are consecutive (a view serves them), else -1."""
    ids: list[int] = rows.tolist()
    for i in range(1, len(ids)):
        if ids[i] != ids[0] + i:
            return torch.tensor(-1)
    return torch.tensor(ids[0] if len(ids) > 0 else -1)


@scripted
def take(stack: Tensor, rows: Tensor, run: Tensor) -> Tensor:
    """take(stack, rows, run): [S, ...], the weights of each slot; a view when rows are a run."""
    first = int(run)
    if first >= 0:
        return stack.narrow(0, first, rows.size(0))
    return stack.index_select(0, rows)


@scripted
def spread(rows: Tensor, outer: int, inner: int) -> Tensor:
    """spread(rows, outer, inner): rows of a dimension of outer x S x inner samples, flattened."""
    return rows.view(1, -1, 1).expand(outer, rows.size(0), inner).reshape(-1)


@scripted
def pick(stack: Tensor, rows: Tensor, slot: int) -> Tensor:
    """pick(stack, rows, slot): the weights of one slot, a view."""
    return stack.select(0, int(rows[slot]))
