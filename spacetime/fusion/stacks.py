"""The stacked weights of all tenants: one immutable snapshot at a time.

*Thread safety*: a `Stacks` never changes, so a call that holds one is not disturbed by tenants that
join or leave. The owner replaces its snapshot by one assignment. A tenant that joins is written
into spare rows, which no older snapshot reads. When a tenant leaves, the rows that stay are copied
to a new storage, and the old one is freed with its last user. A tenant keeps its number: `table`
maps it to the tenant's present row.
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
    """A snapshot: one stack for each stacked weight.

    `weights`: what is stacked.
    `storage`: for each weight a tensor with used rows and spare ones, as they lie in memory.
    `values`: for each weight a view [T, *weight.shape] of the used rows of `storage`.
    `table`: int64 [numbers ever given], the row of each tenant; -1 once it has been removed.
    `used_rows`: T, how many tenants there are.
    """

    weights: tuple[StackedWeight, ...]
    storage: tuple[Tensor, ...]
    values: list[Tensor]  # a list, because TorchScript takes List[Tensor]; never written to
    table: Tensor  # int64 [numbers ever given]
    used_rows: int
    _views: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the tenants that are present."""
        return [n for n, row in enumerate(self.table.tolist()) if row >= 0]

    @property
    def nbytes(self) -> int:
        """Bytes of the storage, spare rows among them."""
        return sum(stack.nbytes for stack in self.storage)

    def row(self, number: int) -> int:
        """The row of a tenant. Raises IndexError where there is no such tenant."""
        rows = self.table.tolist()
        if not is_number(number) or not 0 <= number < len(rows) or rows[number] < 0:
            raise IndexError(f"tenant {number!r}: not in this family")
        return int(rows[number])

    def views(self, number: int) -> list[Tensor]:
        """One tenant's weights, without a copy. Raises IndexError where there is no such tenant."""
        views = self._views.get(number)
        if views is None:
            row = self.row(number)
            views = self._views[number] = [stack[row] for stack in self.values]
        return views

    def with_tenants(self, states: Sequence[Mapping[str, Tensor]]) -> Stacks:
        """A snapshot with these tenants added; their numbers follow the last one given."""
        count = self.used_rows + len(states)
        room = self.storage[0].shape[0] if self.storage else count
        storage = self.storage
        if count > room:
            # Spare rows from the second time on: a family that never grows pays for none.
            room = count + count // SPARE_PART if self.used_rows else count
            storage = tuple(_grown(s, self.used_rows, room) for s in storage)
        for offset, state in enumerate(states):
            for weight, stack in zip(self.weights, storage, strict=True):
                _in_order(weight, stack)[self.used_rows + offset].copy_(weight.compute(state))
        table = torch.cat([self.table, torch.arange(self.used_rows, count)])
        return _snapshot(self.weights, storage, table, count)

    def with_state(self, number: int, state: Mapping[str, Tensor]) -> Stacks:
        """A snapshot in which a tenant has other weights. Raises IndexError where there is no such
        tenant.

        All rows are copied, because calls that began with this snapshot still read the old ones.
        """
        row = self.row(number)
        storage = tuple(s.clone() for s in self.storage)
        for weight, stack in zip(self.weights, storage, strict=True):
            _in_order(weight, stack)[row].copy_(weight.compute(state))
        return _snapshot(self.weights, storage, self.table, self.used_rows)

    def without(self, number: int) -> Stacks:
        """A snapshot in which a tenant and its memory are gone. Raises IndexError where there is
        none.
        """
        gone = self.row(number)
        keep = [r for r in range(self.used_rows) if r != gone]
        storage = tuple(s[keep] for s in self.storage)
        table = self.table.clone()
        table[table > gone] -= 1
        table[number] = -1
        return _snapshot(self.weights, storage, table, len(keep))


def empty(weights: tuple[StackedWeight, ...]) -> Stacks:
    """A snapshot of these weights without tenants."""
    storage = tuple(torch.empty((0, *_stored(weight)), dtype=weight.dtype) for weight in weights)
    return _snapshot(weights, storage, torch.empty(0, dtype=torch.int64), 0)


def _stored(weight: StackedWeight) -> tuple[int, ...]:
    """The shape of one row as it lies in memory."""
    if not weight.channels_last:
        return weight.shape
    outputs, inputs, *space = weight.shape
    return (outputs, *space, inputs)


def _in_order(weight: StackedWeight, stack: Tensor) -> Tensor:
    """A stack as it lies in memory, seen with the weight's own order of dimensions."""
    return stack.movedim(-1, 2) if weight.channels_last else stack


def _grown(stack: Tensor, used: int, room: int) -> Tensor:
    """A stack with `room` rows, the first `used` of them copied."""
    grown = stack.new_empty((room, *stack.shape[1:]))
    grown[:used] = stack[:used]
    return grown


def _snapshot(
    weights: tuple[StackedWeight, ...], storage: tuple[Tensor, ...], table: Tensor, used: int
) -> Stacks:
    """A snapshot of these rows: `values` are views of the first `used`."""
    pairs = zip(weights, storage, strict=True)
    values = [_in_order(weight, stack)[:used] for weight, stack in pairs]
    return Stacks(weights, storage, values, table, used)
