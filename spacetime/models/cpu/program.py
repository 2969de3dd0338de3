"""One model as a flat callable that computes without the GIL, chosen by measurement.

PyTorch offers several ways to run a module on a CPU. TorchScript runs a whole model in one call
with the GIL released, so lanes overlap; an eager module takes the GIL back for every operator. A
model is scripted only if `torch.export` accepts it: tracing alone would silently bake in whichever
side of a data-dependent branch the example took.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput, ModelError, SpacetimeError
from spacetime.fusion import Exported, looks_at_values, ranges
from spacetime.kernels import onednn
from spacetime.kernels.tracing import tracing
from spacetime.models.flat import Flat, FlatCall, Outputs, outputs_of, spread
from spacetime.models.signature import Signature
from spacetime.models.trial import (
    alike,
    holds_to_the_ordinary,
    keeps_what_is_no_number,
    ordinary,
    taken_whole,
    tried,
    why_alone,
)


@dataclass(frozen=True, slots=True)
class Program:
    """A model ready to run: `call(*leaves)` returns its flat output tensors.

    Where `whole` is set it returns the model's own answer instead, whatever that is.
    """

    call: FlatCall
    outputs: Outputs
    how: str  # what runs it, for explain()
    why: str  # why not something faster; empty when it is the fastest way known
    batches: bool  # rows are independent, so requests may share a call
    whole: bool = False


def program_of(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    exported: Exported | str,
    *,
    batchable: bool | None = None,
    buckets: Sequence[int] = (1, 8),
) -> Program:
    """The fastest way to run `model` here that answers as the model does, at those batch sizes.

    `exported` is the model's graph, or the reason why it has none. `batchable` is what the owner
    says of it; None leaves it to the proof. Raises ModelError when the model fails on its own
    example inputs, InvalidInput when `batchable=True` is refuted.
    """
    flat = Flat(model, signature)
    within = ranges(example, exported if isinstance(exported, Exported) else None)
    try:
        values = within if isinstance(exported, Exported) else None
        outputs = outputs_of(model, signature, example, values)
        if isinstance(exported, str) or outputs.why_not:
            why = f"not exported: {exported}" if isinstance(exported, str) else outputs.why_not
            return _whole(model, signature, outputs, why)
        doubted, trial = why_alone(exported, batchable), None
        if not doubted:
            trial = tried(flat, example, within, max(*buckets, 3))
            doubted = trial.fault(flat, buckets)
    except SpacetimeError:
        raise
    except Exception as cause:
        raise ModelError(signature.tenant, cause) from cause
    if doubted and batchable:
        raise InvalidInput(signature.tenant, "batchable", "False or None", f"True, but {doubted}")
    if doubted or trial is None:
        batches = taken_whole(flat, example, within)
        fits: Callable[[FlatCall], bool] = lambda call: alike(flat, call, batches)  # noqa: E731
        call, how = _fastest(flat, exported, fits, batches[0], [])
        return Program(call, outputs, how, f"requests run alone: {doubted}", batches=False)
    inputs, _ = trial.rows(range(4 if len(trial.inputs[0]) > 3 else 3))
    tried_so = trial
    call, how = _fastest(flat, exported, lambda c: not tried_so.fault(c, buckets), inputs, buckets)
    return Program(call, outputs, how, "", batches=True)


def _whole(model: nn.Module, signature: Signature, outputs: Outputs, why: str) -> Program:
    """The module itself, each request alone, whose answer is passed on as it is."""

    def call(*leaves: Tensor) -> Any:
        # On copies: one that torch.export does not take may write to its inputs.
        args, kwargs = pytree.tree_unflatten([x.clone() for x in leaves], signature.spec)
        return model(*args, **kwargs)

    why = f"it holds the GIL and runs each request alone: {why}"
    return Program(call, outputs, "eager", why, batches=False, whole=True)


def _fastest(
    flat: Flat,
    exported: Exported,
    fits: Callable[[FlatCall], bool],
    inputs: Sequence[Tensor],
    buckets: Sequence[int],
) -> tuple[FlatCall, str]:
    """The fastest program that answers as the module, and its name. `inputs` is a batch that the
    module takes; with buckets it takes any, else perhaps no other."""
    if looks_at_values(exported.module):  # tracing would bake in what the example's values were
        return flat, "eager"
    ways = []
    for how, program in _candidates(flat, inputs):
        if not fits(program):
            continue
        call: FlatCall = program
        if not keeps_what_is_no_number(flat, program, inputs):
            if not holds_to_the_ordinary(flat, program, inputs):
                continue
            call = _with_exact(program, flat)
        ways.append((how, call))
    rows = sorted({1, *buckets[-1:]}) if buckets else [len(inputs[0])]
    how, call = min(ways, key=lambda w: _seconds(w[1], inputs, rows)) if ways else ("eager", flat)
    return call, how


def _with_exact(fast: FlatCall, exact: FlatCall) -> FlatCall:
    """`fast`, but for inputs with NaN, infinities or numbers so large that they may overflow: some
    of oneDNN's fused layers return numbers where the model returns none."""

    def call(*leaves: Tensor) -> Sequence[Tensor]:
        return fast(*leaves) if ordinary(leaves) else exact(*leaves)

    return call


def _candidates(flat: Flat, batch: Sequence[Tensor]) -> Iterator[tuple[str, FlatCall]]:
    """TorchScript programs of the model; those that cannot be made are left out."""
    inputs = tuple(batch)
    jit: Any = torch.jit  # untyped in PyTorch

    def traced() -> Any:
        return jit.trace(flat, inputs, check_trace=False)

    def with_products() -> Any:
        with _OneDnnProducts():
            return jit.freeze(traced())

    ways: dict[str, Callable[[], Any]] = {
        "TorchScript, oneDNN layouts": lambda: jit.optimize_for_inference(traced()),
        "TorchScript, frozen": lambda: jit.freeze(traced()),
    }
    if onednn.available and _mostly_linear(flat):
        ways["TorchScript, oneDNN products"] = with_products
    for how, trace in ways.items():
        program: Any = None
        with torch.no_grad(), contextlib.suppress(Exception), tracing():
            # TorchScript is deprecated upstream without a replacement that runs without the GIL on
            # a CPU and needs no C++ compilation for each model; what tracing warns of, or fails
            # with, is answered by trying it, or by running the model eagerly.
            program = trace()
        if program is not None:
            # `forward` itself: a module's __call__ would run its hooks' machinery for nothing.
            yield how, program.forward


def _mostly_linear(flat: Flat) -> bool:
    """Whether linear layers are what the model computes: a third program is worth its tracing."""
    kinds = [type(part).__name__ for part in flat.modules()]
    return sum("Linear" in kind for kind in kinds) > sum("Conv" in kind for kind in kinds)


class _OneDnnProducts(TorchFunctionMode):
    """Linear layers met while tracing become oneDNN's, which for many rows is faster than MKL's."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and args[0].dtype is torch.float32:
            return onednn.linear_of_one(*args)
        return func(*args, **(kwargs or {}))


def _seconds(call: FlatCall, example: Sequence[Tensor], rows: Sequence[int]) -> float:
    """Time of a sample, averaged over the batch sizes."""
    total = 0.0
    with torch.no_grad():
        for count in rows:
            inputs = spread(example, count)
            for _ in range(3):  # TorchScript optimises during its first calls
                call(*inputs)
            total += min(_once(call, inputs) for _ in range(5)) / count
    return total


def _once(call: FlatCall, inputs: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    call(*inputs)
    return time.perf_counter() - start
