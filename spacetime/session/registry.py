"""The families of a session: those that its backend has made, as the executor knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from spacetime.models.backend import Backend, Family, FamilyOptions
from spacetime.models.signature import Signature
from spacetime.session.executor import Executor


class Registry:
    """Lets models join families, and leave them. Used under the session's lock."""

    def __init__(self, executor: Executor, backend: Backend[Any]) -> None:
        self.families: list[Family] = []
        self._executor = executor
        self._backend = backend

    def join(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[Family, int]:
        """The family that `model` becomes a member of, and its number there."""
        joined: tuple[Family, int] = self._backend.join(model, signature, example, options)
        family, _ = joined
        if family.number < 0:
            family.number = self._executor.native.add_family(list(family.buckets))
            self.bind(family)
            self.families.append(family)
        return joined

    def bind(self, family: Family) -> None:
        """Tells the executor what runs the family's launches without Python, lane by lane."""
        for lane, function in enumerate(family.functions):
            self._executor.native.set_native(family.number, function, lane=lane)

    def leave(self, family: Family, member: int) -> None:
        """Takes a member out, and with the last one the family, unless others may join it."""
        if self._backend.leave(family, member):
            self.families[:] = [other for other in self.families if other is not family]
