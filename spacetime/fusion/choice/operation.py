"""An operation over slots: several implementations that compute the same, one chosen for a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

Implementation = Callable[..., Tensor]


class SlotOperation(nn.Module):
    """One node of a fused graph, called with rows, run and its operands.

    `implementations` is in order of preference: the first runs until one is chosen for a number
    of slots. `key` says what is computed, so that equal operations share a measurement.
    """

    def __init__(self, key: str, implementations: Mapping[str, Implementation]) -> None:
        super().__init__()
        self.key = key
        self.implementations = dict(implementations)
        self.chosen: dict[int, str] = {}

    def choice(self, slots: int) -> str:
        """choice(slots): name of the implementation that runs for that many slots."""
        return self.chosen.get(slots) or next(iter(self.implementations))

    def forward(self, rows: Tensor, run: Tensor, *operands: Tensor) -> Tensor:
        return self.implementations[self.choice(int(rows.shape[0]))](rows, run, *operands)
