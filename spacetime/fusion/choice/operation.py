"""An operation over slots: several implementations that compute the same; one is chosen for each
number of slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

Implementation = Callable[..., Tensor]


class SlotOperation(nn.Module):
    """One node of a fused graph; it is called with rows, run and its operands.

    `implementations` stand in order of preference: the first runs until one is chosen for a number
    of slots. `key` says what is computed, so that equal operations share a measurement.
    """

    def __init__(self, key: str, implementations: Mapping[str, Implementation]) -> None:
        super().__init__()
        self.key = key
        self.implementations = dict(implementations)
        self.chosen: dict[int, str] = {}

    def choice(self, slots: int) -> str:
        """The name of the implementation that runs for `slots` slots."""
        return self.chosen.get(slots) or next(iter(self.implementations))

    def forward(self, rows: Tensor, run: Tensor, *operands: Tensor) -> Tensor:
        """Run the implementation that is chosen for as many slots as `rows` has."""
        return self.implementations[self.choice(int(rows.shape[0]))](rows, run, *operands)
