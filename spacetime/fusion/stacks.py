"""The stacked weights of all tenants: one immutable snapshot at a time.

*Thread safety*: a `Stacks` never changes, so a call that holds one is undisturbed by tenants that
join or leave; the owner replaces the snapshot by one assignment. A joining tenant is written into
spare rows that no older snapshot looks at; when a tenant leaves, the rows kept are copied together
and the old storage goes with its last user. Tenants' numbers are stable: `table` maps a number to
its row, -1 once removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spacetime.fusion.numbers import is_number
from spacetime.fusion.stacked_weights import StackedWeight

SPARE_PART = 20  # one spare row for this many tenants: appends rarely copy, memory stays flat


@dataclass(frozen=True, slots=True)
class Stacks:
    """Rows of every weight: `values` are [T, *weight.shape] views of `storage`.

    `storage` may have spare rows, and has each weight's own order in memory.
    """

    weights: tuple[StackedWeight, ...]
    storage: tuple[Tensor, ...]
    values: list[Tensor]  # a list, because TorchScript takes List[Tensor]; never written to
    table: Tensor  # int64 [numbers ever given]
    used_rows: int
    _views: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the tenants present."""
        return [n for n, row in enumerate(self.table.tolist()) if row >= 0]

    @property
    def nbytes(self) -> int:
        return sum(s.numel() * s.element_size() for s in self.storage)

    def row(self, number: int) -> int:
        """row(number): the row of a tenant; IndexError when there is none."""
        rows = self.table.tolist()
        if not is_number(number) or not 0 <= number < len(rows) or rows[number] < 0:
            raise IndexError(f"tenant {number!r}: not in this family")
        return int(rows[number])

    def views(self, number: int) -> list[Tensor]:
        """views(number): one tenant's weights, without a copy. IndexError when it is not here."""
        views = self._views.get(number)
        if views is None:
            row = self.row(number)
            views = self._views[number] = [stack[row] for stack in self.values]
        return views

    def with_tenants(self, states: Sequence[Mapping[str, Tensor]]) -> Stacks:
        """with_tenants(states): a snapshot with more tenants; their numbers follow the last."""
        count = self.used_rows + len(states)
        room = self.storage[0].shape[0] if self.storage else count
        storage = self.storage
        if count > room:
            room = count + count // SPARE_PART if self.used_rows else count
            storage = tuple(_grown(s, self.used_rows, room) for s in storage)
        for offset, state in enumerate(states):
            for weight, stack in zip(self.weights, storage, strict=True):
                _in_order(weight, stack)[self.used_rows + offset].copy_(weight.compute(state))
        table = torch.cat([self.table, torch.arange(self.used_rows, count)])
        return _snapshot(self.weights, storage, table, count)

    def with_state(self, number: int, state: Mapping[str, Tensor]) -> Stacks:
        """with_state(number, state): a snapshot in which that tenant has these weights.

        All rows are copied: calls that began with this snapshot go on reading it.
        """
        row = self.row(number)
        storage = tuple(s.clone() for s in self.storage)
        for weight, stack in zip(self.weights, storage, strict=True):
            _in_order(weight, stack)[row].copy_(weight.compute(state))
        return _snapshot(self.weights, storage, self.table, self.used_rows)

    def without(self, number: int) -> Stacks:
        """without(number): a snapshot in which that tenant's memory is given back."""
        gone = self.row(number)
        keep = [r for r in range(self.used_rows) if r != gone]
        storage = tuple(s[keep] for s in self.storage)
        table = self.table.clone()
        table[table > gone] -= 1
        table[number] = -1
        return _snapshot(self.weights, storage, table, len(keep))


def empty(weights: tuple[StackedWeight, ...]) -> Stacks:
    """empty(weights): a snapshot without tenants."""
    storage = tuple(torch.empty((0, *_stored(weight)), dtype=weight.dtype) for weight in weights)
    return _snapshot(weights, storage, torch.empty(0, dtype=torch.int64), 0)


def _stored(weight: StackedWeight) -> tuple[int, ...]:
    """The shape of one row as it lies in memory."""
    if not weight.channels_last:
        return weight.shape
    outputs, inputs, *space = weight.shape
    return (outputs, *space, inputs)


def _in_order(weight: StackedWeight, stack: Tensor) -> Tensor:
    """A stack with its dimensions in the weight's order."""
    return stack.movedim(-1, 2) if weight.channels_last else stack


def _grown(stack: Tensor, used: int, room: int) -> Tensor:
    grown = stack.new_empty((room, *stack.shape[1:]))
    grown[:used] = stack[:used]
    return grown


def _snapshot(
    weights: tuple[StackedWeight, ...], storage: tuple[Tensor, ...], table: Tensor, used: int
) -> Stacks:
    pairs = zip(weights, storage, strict=True)
    values = [_in_order(weight, stack)[:used] for weight, stack in pairs]
    return Stacks(weights, storage, values, table, used)
