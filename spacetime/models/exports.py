"""Models' graphs, exported once for equal architectures.

torch.export takes seconds for a model of some size, and tenants of one family differ in weights
only. A model is given the graph of an earlier one where nothing can tell them apart: equal in all
but the values of weights (`likeness`), and with the same operations on the same operands when both
are run (`performed`). A model that cannot be compared is exported. Graphs hold no weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.errors import CannotExport
from spacetime.fusion import Exported, export
from spacetime.fusion.graph.export import widen
from spacetime.models.likeness import CannotTell, Likeness
from spacetime.models.performed import performed
from spacetime.models.signature import Signature

MOST = 64  # graphs that are remembered; the one longest not asked for goes
MOST_BYTES = 64 * 2**20  # of constants in a graph that is remembered
SIZES = (2, 3)  # samples of the batches that models are compared with: 1 may be a dimension too


@dataclass(frozen=True, slots=True)
class _Known:
    exported: Exported
    did: bytes
    held: dict[int, Any]  # what the likeness names by address stays alive, so that it is no other


@dataclass(slots=True)
class Exports:
    """The graphs of models met so far, for any thread."""

    made: int = 0
    recognised: int = 0
    _known: OrderedDict[bytes, _Known] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(
        self, model: nn.Module, signature: Signature, example: Sequence[Tensor]
    ) -> Exported | str:
        """The model's graph, or why it has none."""
        args, kwargs = pytree.tree_unflatten(list(example), signature.spec)
        likeness = _likeness(model, args, kwargs)
        if likeness is not None and (known := self._same(model, signature, likeness)) is not None:
            return replace(known, example=tuple(x[:1].detach().clone() for x in example))
        try:
            exported = export(model, args, kwargs)
        except CannotExport as reason:
            return str(reason)
        with self._lock:
            self.made += 1
        if likeness is not None and exported.shared_bytes <= MOST_BYTES:
            self._remember(model, signature, likeness, exported)
        return exported

    def _same(self, model: nn.Module, signature: Signature, likeness: Likeness) -> Exported | None:
        with self._lock:
            known = self._known.get(likeness.digest)
        if known is None or _did(model, signature, known.exported) != known.did:
            return None
        with self._lock:
            self.recognised += 1
            if likeness.digest in self._known:
                self._known.move_to_end(likeness.digest)
        return known.exported

    def _remember(
        self, model: nn.Module, signature: Signature, likeness: Likeness, exported: Exported
    ) -> None:
        did = _did(model, signature, exported)
        if did is None:
            return
        with self._lock:
            self._known[likeness.digest] = _Known(exported, did, likeness.held)
            while len(self._known) > MOST:
                self._known.popitem(last=False)


_all = Exports()


def exported_of(
    model: nn.Module, signature: Signature, example: Sequence[Tensor]
) -> Exported | str:
    """The model's graph, or why it has none; an earlier one's of this process where that is equal.

    The model stays as it was.
    """
    return _all.of(model, signature, example)


def _likeness(model: nn.Module, args: Any, kwargs: Any) -> Likeness | None:
    # Attributes of any kind are read, and any of them may raise.
    with suppress(CannotExport, Exception):
        return Likeness(model, *widen((args, kwargs)))
    return None


def _did(model: nn.Module, signature: Signature, exported: Exported) -> bytes | None:
    calls = [pytree.tree_unflatten(exported.samples(size), signature.spec) for size in SIZES]
    with suppress(CannotTell, Exception):  # whatever a model raises on these samples
        return performed(model, calls)
    return None
