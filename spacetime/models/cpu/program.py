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
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput, ModelError, SpacetimeError
from spacetime.fusion import Exported, Ranges, doubt, looks_at_values, ranges, rows_of
from spacetime.kernels import onednn
from spacetime.kernels.tracing import tracing
from spacetime.models.signature import Signature
from spacetime.models.trial import (
    FlatCall,
    alike,
    holds_to_the_ordinary,
    keeps_what_is_no_number,
    ordinary,
    taken_whole,
    tried,
)

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, Enum)


@dataclass(frozen=True, slots=True)
class Outputs:
    """How flat output tensors become what the model returns.

    `why_not` is empty where structure and constants were the same for all inputs tried, and no
    constant can be changed by who gets it. Else callers get what the model itself returned.
    """

    spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]  # position and value of leaves that are no tensors
    single: bool
    why_not: str = ""

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """The model's own return structure around `tensors`."""
        if self.single:
            return tensors[0]
        leaves: list[Any] = list(tensors)
        for position, value in self.constants:
            leaves.insert(position, value)
        if len(leaves) != self.spec.num_leaves:
            raise ValueError(
                f"the output's structure differs from the example's: {len(tensors)} tensors where "
                f"it had {self.spec.num_leaves - len(self.constants)}"
            )
        return pytree.tree_unflatten(leaves, self.spec)


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


class Flat(nn.Module):
    """A model between flat tensors, whatever structure its inputs and outputs have."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self._spec = signature.spec
        self.training = False  # as the model is; eval() would be refused by an exported one

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = pytree.tree_unflatten(list(leaves), self._spec)
        flat = pytree.tree_leaves(self.model(*args, **kwargs))
        return tuple(x for x in flat if isinstance(x, Tensor))


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
        known = within if isinstance(exported, Exported) else None
        outputs = outputs_of(model, signature, example, known)
        if isinstance(exported, str) or outputs.why_not:
            why = f"not exported: {exported}" if isinstance(exported, str) else outputs.why_not
            return _whole(model, signature, outputs, why)
        doubted, trial = apart(exported, batchable), None
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


def apart(exported: Exported, batchable: bool | None) -> str:
    """Why requests may not share a call, by the graph or the owner's word; empty if they may."""
    if batchable is False:
        return "its owner says batchable=False"
    found = None if batchable else doubt(exported)
    return f"not proven that samples are apart: {found}" if found is not None else ""


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


def spread(example: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Inputs of `rows` distinct samples in the value range of the example's."""
    generator = torch.Generator().manual_seed(rows)
    return [_spread_leaf(x, rows, generator) for x in example]


def _spread_leaf(x: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    repeated = x.repeat(-(-rows // len(x)), *[1] * (x.dim() - 1))[:rows].clone()
    if x.is_floating_point():
        return repeated * (1 + 0.1 * torch.randn(repeated.shape, generator=generator)).to(x.dtype)
    if x.dtype is torch.bool or x.dim() < 2:
        return repeated
    order = [torch.randperm(x.shape[-1], generator=generator) for _ in range(rows)]
    return torch.stack([row[..., perm] for row, perm in zip(repeated, order, strict=True)])


def outputs_of(
    model: nn.Module, signature: Signature, example: Sequence[Tensor], within: Ranges | None
) -> Outputs:
    """What the model returns for its example; InvalidInput where that is no batch of tensors.

    One with a graph is asked three times more, with other inputs, to see whether the rest stays the
    same; without (`within` is None) callers get what the model itself returns.
    """
    flat, spec, kind = _returned(model, signature, example)
    constants = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    if not tensors or any(not x.dim() or x.shape[0] != len(example[0]) for x in tensors):
        got = ", ".join(str(list(x.shape)) for x in tensors) or kind.__name__
        expected = "tensors with the leading batch dimension of the inputs"
        raise InvalidInput(signature.tenant, "outputs", expected, got)
    strange = next((type(x).__name__ for _, x in constants if not isinstance(x, PLAIN)), None)
    why_not = f"it returns a {strange}, which every caller gets as the model made it"
    if strange is None:
        why_not = ""
    if strange is None and within is not None:
        why_not = _changing(model, signature, example, within, (spec, constants))
    return Outputs(spec, constants, issubclass(kind, Tensor), why_not)


def _changing(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    within: Ranges,
    known: tuple[pytree.TreeSpec, tuple[tuple[int, Any], ...]],
) -> str:
    """What beside the tensors differs between calls; empty where nothing does."""
    for seed, rows in ((1, 1), (2, 2), (3, 1)):
        try:
            flat, spec, _ = _returned(model, signature, rows_of(example, within, rows, seed))
        except Exception:  # the values may not suit the model; others are tried
            flat, spec, _ = _returned(model, signature, example)
        if spec != known[0]:
            return "the structure of what it returns depends on its input"
        now = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
        if repr(now) != repr(known[1]):
            return "what it returns beside tensors differs from call to call"
    return ""


def _returned(
    model: nn.Module, signature: Signature, leaves: Sequence[Tensor]
) -> tuple[list[Any], pytree.TreeSpec, type]:
    """The leaves of what the model returns, their structure, and the type of the whole."""
    args, kwargs = pytree.tree_unflatten([x.clone() for x in leaves], signature.spec)
    with torch.no_grad():
        out = model(*args, **kwargs)
    flat, spec = pytree.tree_flatten(out)
    return flat, spec, type(out)


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
    for how, made in ways.items():
        program: Any = None
        with torch.no_grad(), contextlib.suppress(Exception), tracing():
            # TorchScript is deprecated upstream without a replacement that runs without the GIL on
            # a CPU and needs no C++ compilation for each model; what tracing warns of, or fails
            # with, is answered by trying it, or by running the model eagerly.
            program = made()
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
