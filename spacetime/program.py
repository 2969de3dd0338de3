"""One model as a flat callable that computes without the GIL, chosen by measurement.

PyTorch offers several ways to run a module on a CPU. TorchScript runs a whole model in one call
with the GIL released, so lanes overlap; an eager module takes the GIL back for every operator. A
model is scripted only if `torch.export` accepts it: tracing alone would silently bake in whichever
side of a data-dependent branch the example took.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput, ModelError
from spacetime.kernels import onednn
from spacetime.signature import Signature
from spacetime.snapshot import alone

FlatCall = Callable[..., Sequence[Tensor]]  # leaves in, tensor leaves out, in the model's order


@dataclass(frozen=True, slots=True)
class Outputs:
    """How flat output tensors become what the model returns."""

    spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]  # position and value of leaves that are no tensors
    single: bool

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """The model's own return structure around `tensors`."""
        if self.single:
            return tensors[0]
        leaves: list[Any] = list(tensors)
        for position, value in self.constants:
            leaves.insert(position, value)
        return pytree.tree_unflatten(leaves, self.spec)


@dataclass(frozen=True, slots=True)
class Program:
    """A model ready to run: `call(*leaves)` returns its flat output tensors."""

    call: FlatCall
    outputs: Outputs
    how: str  # what runs it, for explain()
    why: str  # why not something faster; empty when it is the fastest way known
    batches: bool  # rows are independent, so requests may share a call


class Flat(nn.Module):
    """A model between flat tensors, whatever structure its inputs and outputs have."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self._spec = signature.spec

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = pytree.tree_unflatten(list(leaves), self._spec)
        flat = pytree.tree_leaves(self.model(*args, **kwargs))
        return tuple(x for x in flat if isinstance(x, Tensor))


def program_of(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    *,
    refused: str | None,
    rows: Sequence[int] = (1, 8),
) -> Program:
    """The fastest correct way to run `model` here, at batches of these many `rows`.

    `refused` is the reason `torch.export` gave for not taking the model, None if it took it.
    Raises ModelError when the model fails on its own example inputs.
    """
    flat = Flat(model, signature).eval()
    try:
        outputs = outputs_of(model, signature, [alone(x) for x in example])
        independent = rows_are_independent(flat, example)
    except InvalidInput:
        raise
    except Exception as cause:
        raise ModelError(signature.tenant, cause) from cause
    if refused is not None:
        why = f"not exported, so it holds the GIL and runs each request alone: {refused}"
        return Program(_on_copies(flat), outputs, "eager", why, batches=False)
    why = "" if independent else "rows depend on each other, so requests never share a call"
    ways = [(how, call) for how, call in _candidates(flat, example) if _agrees(flat, call, example)]
    how, call = (
        min(ways, key=lambda way: _seconds(way[1], example, rows)) if ways else ("eager", flat)
    )
    return Program(call, outputs, how, why, batches=independent)


def _on_copies(flat: Flat) -> FlatCall:
    """The model on copies of its inputs: one that torch.export does not take may write to them."""
    return lambda *leaves: flat(*[x.clone() for x in leaves])


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


def close(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-4) -> bool:
    """Equal within `tolerance` of each tensor's largest finite value; NaN equals NaN."""
    return len(got) == len(expected) and all(
        _close(a, b, tolerance) for a, b in zip(got, expected, strict=True)
    )


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    finite = b.detach()[b.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def outputs_of(model: nn.Module, signature: Signature, example: Sequence[Tensor]) -> Outputs:
    """What the model returns for its example; InvalidInput where that is no batch of tensors."""
    args, kwargs = pytree.tree_unflatten(list(example), signature.spec)
    with torch.no_grad():
        out = model(*args, **kwargs)
    flat, spec = pytree.tree_flatten(out)
    constants = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
    tensors = [x for x in flat if isinstance(x, Tensor)]
    if not tensors or any(not x.dim() or x.shape[0] != len(example[0]) for x in tensors):
        got = ", ".join(str(list(x.shape)) for x in tensors) or type(out).__name__
        expected = "tensors with the leading batch dimension of the inputs"
        raise InvalidInput(signature.tenant, "outputs", expected, got)
    return Outputs(spec, constants, single=isinstance(out, Tensor))


def rows_are_independent(flat: Flat, example: Sequence[Tensor]) -> bool:
    """Whether a sample's answer is the same in a batch as alone, tried with three."""
    inputs = spread(example, 3)
    with torch.no_grad():
        together = flat(*inputs)
        alone = [flat(*[x[i : i + 1] for x in inputs]) for i in range(3)]
    rows = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    return close(together, rows, tolerance=1e-3)


def _candidates(flat: Flat, example: Sequence[Tensor]) -> list[tuple[str, FlatCall]]:
    inputs = tuple(spread(example, 2))
    with torch.no_grad(), warnings.catch_warnings():
        # TorchScript is deprecated upstream without a replacement that runs without the GIL on a
        # CPU and needs no C++ compilation for each model; tracer warnings are answered by _agrees.
        warnings.simplefilter("ignore")
        jit: Any = torch.jit  # untyped in PyTorch
        frozen = jit.freeze(jit.trace(flat, inputs, check_trace=False))
        fast = jit.optimize_for_inference(jit.trace(flat, inputs, check_trace=False))
        # `forward` itself: a module's __call__ would run its hooks' machinery for nothing.
        ways = [
            ("TorchScript, oneDNN layouts", fast.forward),
            ("TorchScript, frozen", frozen.forward),
        ]
        if onednn.available and _mostly_linear(flat):
            with _OneDnnProducts():
                traced = jit.trace(flat, inputs, check_trace=False)
            ways.append(("TorchScript, oneDNN products", jit.freeze(traced).forward))
    return ways


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


def _agrees(flat: Flat, call: FlatCall, example: Sequence[Tensor]) -> bool:
    """Same answers as the module at the batch sizes tracing could have baked in, and others."""
    with torch.no_grad():
        for rows in (1, 2, 5):
            inputs = spread(example, rows)
            try:
                if not close(call(*inputs), flat(*inputs)):
                    return False
            except RuntimeError:
                return False
    return True


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
