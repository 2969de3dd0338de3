"""A tenant's module as it was given, alone: what its answers are compared with.

A copy in the CPU's memory, in eval mode, called eagerly on exactly one request's inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.models.difference import UNSURE, difference, doubt, tolerance_of
from spacetime.models.flat import spread
from spacetime.models.signature import Signature


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of one audit: `worst` relative difference, whether it counts, and why in words."""

    worst: float
    differs: bool = False
    unsure: bool = False  # the module does not decide it: it is as far from itself
    why: str = ""


@dataclass(frozen=True, eq=False)
class Reference:
    """The module alone. `eq=False`: each copy is another version, and only identity says which."""

    module: nn.Module
    spec: pytree.TreeSpec
    tolerance: float

    def answer(self, leaves: Sequence[Tensor]) -> Any:
        """What the module returns for a copy of these inputs; raises what it raises."""
        return _called(self.module, self.spec, leaves)

    def judge(self, leaves: Sequence[Tensor], got: Any) -> Judgement:
        """Whether `got`, an answer or the error in its place, is the module's own."""
        try:
            expected = self.answer(leaves)
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(got, BaseException):
                return Judgement(0.0)
            what = f"{type(error).__name__}: {_first_line(error)}"
            return Judgement(math.inf, differs=True, why=f"the module alone raises {what}")
        if isinstance(got, BaseException):
            why = f"the module alone answers; the request failed with {_first_line(got)}"
            return Judgement(math.inf, differs=True, why=why)
        worst = difference(got, expected)
        if worst <= self.tolerance:
            return Judgement(worst)
        if UNSURE * self._doubt(leaves, expected) >= worst:
            return Judgement(worst, unsure=True)
        by = "in kind (its structure, a shape, an integer, a NaN)"
        if math.isfinite(worst):
            by = f"by {worst:.3g}, relatively; {self.tolerance:g} is allowed"
        return Judgement(worst, differs=True, why=f"it differs from the module alone {by}")

    def updated(self, state_dict: Mapping[str, Any]) -> Reference:
        """Another version, with these weights; names that are missing keep theirs."""
        module = copy.deepcopy(self.module)
        module.load_state_dict(state_dict, strict=False)
        return Reference(module, self.spec, self.tolerance)

    @property
    def bytes(self) -> int:
        """The memory its weights take."""
        return sum(x.nbytes for x in _weights(self.module))

    def _doubt(self, leaves: Sequence[Tensor], expected: Any) -> float:
        def call(module: nn.Module, inputs: Sequence[Tensor]) -> Any:
            return _called(module, self.spec, inputs)

        try:
            return doubt(self.module, call, leaves, expected)
        except Exception:  # such as a weight that cannot be written: then the rule alone decides
            return 0.0


def reference_of(
    model: nn.Module, signature: Signature, example: Sequence[Tensor], least: float = 0.0
) -> tuple[Reference, str]:
    """A reference of `model`, and why its answers cannot be audited; empty where they can.

    least: a tolerance that is allowed in any case. A model that cannot be copied is its own
    reference.
    """
    allowed = max(least, tolerance_of(_weights(model)))
    try:
        module = copy.deepcopy(model)
    except Exception as error:
        own = Reference(model, signature.spec, allowed)
        return own, f"the module cannot be copied: {_first_line(error)}"
    reference = Reference(module, signature.spec, allowed)
    inputs = [x.detach().cpu() for x in example]
    # The last call has another before it: a model with a state may answer by what came before.
    calls = (inputs, inputs, _another(inputs), inputs)
    try:
        answers = [reference.answer(leaves) for leaves in calls]
    except Exception as error:
        return reference, f"the module fails on its example: {_first_line(error)}"
    tensors = [x for x in pytree.tree_leaves(answers) if isinstance(x, Tensor)]
    reference = replace(reference, tolerance=max(reference.tolerance, tolerance_of(tensors)))
    repeats = (answers[1], answers[3])  # of the first call, on the same inputs
    if any(difference(answer, answers[0]) > reference.tolerance for answer in repeats):
        return reference, (
            "two calls of the module on one input differ: it draws random numbers, keeps a state "
            "between calls, or returns what cannot be compared"
        )
    return reference, ""


def owned(value: Any) -> Any:
    """A copy of a tree's tensors in the CPU's memory; what is no tensor stays as it is."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return pytree.tree_map_only(Tensor, lambda x: x.detach().to("cpu", copy=True), value)


def _another(example: Sequence[Tensor]) -> list[Tensor]:
    """One more request; where values are no numbers of things, other ones, also than zeros."""
    return [x + 1 if x.is_floating_point() else x for x in spread(example, 1)]


def _called(module: nn.Module, spec: pytree.TreeSpec, leaves: Sequence[Tensor]) -> Any:
    args, kwargs = pytree.tree_unflatten([x.clone() for x in leaves], spec)
    with torch.no_grad():
        return module(*args, **kwargs)


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
