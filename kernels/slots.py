"""Which rows of the stacks the slots use, and the weights at those rows."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def locate(table: Tensor, index: Tensor) -> Tensor:
    """The rows [S] of the tenants in `index` [S]; `table` maps a tenant's number to its row.

    Raises RuntimeError where a tenant was removed.
    """
    rows = table.index_select(0, index)
    if rows.numel() > 0 and int(rows.min()) < 0:
        raise RuntimeError("index: names a tenant that was removed")
    return rows


@scripted
def run_of(rows: Tensor) -> Tensor:
    """The first row where `rows` are consecutive, so that a view serves them; else -1."""
    ids: list[int] = rows.tolist()
    for i in range(1, len(ids)):
        if ids[i] != ids[0] + i:
            return torch.tensor(-1)
    return torch.tensor(ids[0] if len(ids) > 0 else -1)


@scripted
def take(stack: Tensor, rows: Tensor, run: Tensor) -> Tensor:
    """The weights of each slot [S, ...]: a view where `rows` are a run, else a copy.

    `stack`: [T, ...].
    `rows`: int64 [S].
    `run`: the first row where `rows` are a run, else -1.
    """
    first = int(run)
    if first >= 0:
        return stack.narrow(0, first, rows.size(0))
    return stack.index_select(0, rows)


@scripted
def stretches(rows: Tensor) -> list[tuple[int, int, int]]:
    """Stretches of equal rows, as (row, first slot, one past the last slot)."""
    ids: list[int] = rows.tolist()
    equal: list[tuple[int, int, int]] = []
    begin = 0
    while begin < len(ids):
        end = begin + 1
        while end < len(ids) and ids[end] == ids[begin]:
            end += 1
        equal.append((ids[begin], begin, end))
        begin = end
    return equal


@scripted
def spread(rows: Tensor, outer: int, inner: int) -> Tensor:
    """The row of every sample in a slot dimension of outer x S x inner samples, as one vector.

    `rows`: int64 [S].
    `outer`: how often the whole of the slots is repeated.
    `inner`: how many samples of a slot lie side by side.
    """
    return rows.view(1, -1, 1).expand(outer, rows.size(0), inner).reshape(-1)


@scripted
def pick(stack: Tensor, rows: Tensor, slot: int) -> Tensor:
    """The weights of one slot: a view of `stack` [T, ...] at row rows[slot]."""
    return stack.select(0, int(rows[slot]))
