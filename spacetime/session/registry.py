"""The families of a session: which one a new tenant's model belongs to, and who has left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from spacetime.fusion import Exported, fingerprint
from spacetime.models.cpu.family import Family, family_of
from spacetime.models.cuda.family import Place, ResidentFamily
from spacetime.models.cuda.prepare import resident_family
from spacetime.models.exports import exported_of
from spacetime.models.signature import Signature
from spacetime.models.snapshot import snapshot
from spacetime.models.timing import on_cores
from spacetime.processes.family import Asked, Families, ProcessFamily
from spacetime.session.executor import Executor
from spacetime.session.tenant import AnyFamily


class Registry:
    """Finds or makes the family of a model, on cores, in processes, or on a device (`place`).

    fuses: whether tenants may share families at all. lanes: the units of each; programs are
    measured on the first one's. Used under the session's lock.
    """

    def __init__(
        self, executor: Executor, hosted: Families | None, *, fuses: bool, lanes: Sequence[Any]
    ) -> None:
        self.families: list[AnyFamily] = []
        self.place: Place | None = None
        self._executor = executor
        self._hosted = hosted
        self._fuses = fuses
        self._lanes = lanes
        self._known: dict[str, Family | ResidentFamily] = {}  # by fingerprint and owner's word

    def join(
        self, model: nn.Module, signature: Signature, example: Sequence[Tensor], asked: Asked
    ) -> tuple[AnyFamily, int]:
        """The family of `model` and its member number there, wherever its weights live."""
        if self.place is None and self._hosted is not None:  # a process gets a copy in any case
            return self._hosted.add(model, signature, example, asked, add_family=self._add)
        model = snapshot(signature.tenant, model)
        if self.place is not None:
            return self._resident(model, signature, example, asked, self.place)
        return self._on_cores(model, signature, example, asked)

    def leave(self, family: AnyFamily, member: int) -> None:
        """Takes a member out, and its family where nobody else is in it and it holds memory."""
        family.leave(member)
        gone = [f for f in self.families if isinstance(f, ResidentFamily) and not f.members]
        self._known = {k: f for k, f in self._known.items() if f not in gone}
        self.families[:] = [f for f in self.families if f not in gone]

    def _on_cores(
        self, model: nn.Module, signature: Signature, example: Sequence[Tensor], asked: Asked
    ) -> tuple[Family, int]:
        known = {k: f for k, f in self._known.items() if isinstance(f, Family)}
        family, key = family_of(
            model,
            signature,
            example,
            known if self._fuses else {},
            buckets=asked.buckets,
            slo_ns=asked.slo_ns,
            on_lane=partial(on_cores, self._lanes[0]),
            batchable=asked.batchable,
        )
        if family.native < 0:
            self._add(family)
            if key is not None and self._fuses:
                self._known[key] = family
        return family, family.join(model, alone=key is None or not self._fuses)

    def _add(self, family: Family | ProcessFamily) -> None:
        family.native = self._executor.native.add_family(list(family.buckets))
        self.families.append(family)

    def _resident(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        asked: Asked,
        place: Place,
    ) -> tuple[ResidentFamily, int]:
        exported = exported_of(model, signature, example)
        key = None
        if self._fuses and isinstance(exported, Exported):
            key = f"{fingerprint(exported)} {asked.batchable}"
        known = self._known.get(key) if key is not None else None
        if isinstance(known, ResidentFamily) and known.graph is not None and known.members:
            return known, known.join(signature.tenant, model, asked.limit)
        family = resident_family(
            model,
            signature,
            example,
            place,
            exported,
            buckets=[b for b in asked.buckets if b & (b - 1) == 0],
            share=self._fuses,
            limit=asked.limit,
            batchable=asked.batchable,
        )
        family.keep_within(asked.slo_ns)
        family.native = self._executor.native.add_family(list(family.buckets))
        for lane, runner in enumerate(family.runners):
            self._executor.native.set_native(family.native, runner.function, lane=lane)
        self.families.append(family)
        if key is not None:
            self._known[key] = family
        return family, 0
