"""How far an answer lies from the module's own, and how sure the module itself is of it.

The rule is that of program.close: a tensor agrees within a tolerance of its largest finite value,
NaN equals NaN, infinities are equal by sign, and whatever is no float is equal or is not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Between one order of summation and another; other floats are coarser still.
TOLERANCES = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.complex128: 1e-6,
    torch.complex64: 1e-3,
    torch.float16: 2e-2,
}
COARSEST = 5e-2
# A module that differs from itself by a sixteenth of a difference, or more, does not decide it.
UNSURE = 16
_TRIES = 4
_LAST_BITS = 4  # of each weight and input that are disturbed, in units of the last place


def tolerance_of(tensors: Iterable[Tensor]) -> float:
    """What answers of a module may differ by: that of the coarsest float among these tensors."""
    floats = {x.dtype for x in tensors if x.is_floating_point() or x.is_complex()}
    return max((TOLERANCES.get(dtype, COARSEST) for dtype in floats), default=0.0)


def coarse_on_device() -> float:
    """By how much, relatively, floats of a real CUDA device may differ from the CPU's, at the
    precision that PyTorch is set to."""
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return COARSEST if tf32 else 0.0


def difference(got: Any, expected: Any) -> float:
    """The largest |got - expected| relative to |expected| and its tensor's largest finite value.

    0 is equal; infinite is another structure, shape, dtype, integer, or a NaN on one side only.
    """
    flat, spec = pytree.tree_flatten(got)
    other, wanted = pytree.tree_flatten(expected)
    if spec != wanted:
        return math.inf
    return max((_apart(a, b) for a, b in zip(flat, other, strict=True)), default=0.0)


def doubt(
    module: nn.Module,
    call: Callable[[nn.Module, Sequence[Tensor]], Any],
    leaves: Sequence[Tensor],
    expected: Any,
) -> float:
    """How far the module's own answer moves when the last bits of its weights and inputs do.

    Infinite where finite values pass the root of their type's largest: what overflows beyond is
    decided by the order of operations. The module is copied, never changed.
    """
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for _ in range(_TRIES):
        shaken = copy.deepcopy(module)
        with torch.no_grad():
            for tensor in (*shaken.parameters(), *shaken.buffers()):
                tensor.copy_(_disturbed(tensor, generator))
            sizes = _watched(shaken)
            inputs = [_disturbed(x, generator) for x in leaves]
            answer = call(shaken, inputs)
        sizes += [_root_of_range(x) for x in (*inputs, *_tensors(answer))]
        if max(sizes, default=0.0) > 1:
            return math.inf
        most = max(most, difference(answer, expected))
    return most


def _apart(got: Any, expected: Any) -> float:
    if isinstance(got, float | complex) and isinstance(expected, float | complex):
        got, expected = (torch.tensor(x, dtype=torch.complex128) for x in (got, expected))
    if not isinstance(got, Tensor) or not isinstance(expected, Tensor):
        return 0.0 if _equal(got, expected) else math.inf
    if got.shape != expected.shape or got.dtype is not expected.dtype:
        return math.inf
    if torch.equal(got, expected):
        return 0.0
    if not (got.is_floating_point() or got.is_complex()):
        return math.inf
    tiny = torch.finfo(got.dtype).tiny  # below it a processor may flush to zero
    return _relative(_plain(got), _plain(expected), tiny)


def _equal(got: Any, expected: Any) -> bool:
    try:
        return type(got) is type(expected) and bool(got == expected)
    except Exception:  # an object's own way to compare
        return False


def _relative(a: Tensor, b: Tensor, tiny: float) -> float:
    largest = float(b.abs().max()) if b.numel() else 0.0
    if 0 < largest < math.inf:  # as nearly always: few operations, for the audit's thread
        worst = float((((a - b).abs() - tiny).clamp(min=0) / (b.abs() + largest)).max())
        if math.isfinite(worst):
            return worst
    equal = (a == b) | (a.isnan() & b.isnan())
    a, b_there = a[~equal], b[~equal]
    if not a.numel():
        return 0.0
    if not bool(a.isfinite().all() and b_there.isfinite().all()):
        return math.inf
    finite = b[b.isfinite()].abs()
    scale = b_there.abs() + (finite.max() if finite.numel() else 0.0)
    gap = ((a - b_there).abs() - tiny).clamp(min=0)
    return float(torch.where(gap > 0, gap / scale, 0.0).max())


def _plain(x: Tensor) -> Tensor:
    """Its values as doubles, real and imaginary parts apart."""
    dense = x.detach() if x.layout is torch.strided else x.detach().to_dense()
    if dense.is_complex():
        return torch.view_as_real(dense.to(torch.complex128).resolve_conj())
    return dense.to(torch.float64)


def _disturbed(x: Tensor, generator: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x.clone()
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return (_plain(x) * (1 + noise * _LAST_BITS * torch.finfo(x.dtype).eps)).to(x.dtype)


def _watched(module: nn.Module) -> list[float]:
    """Sizes of the values that go into and come out of its parts, as it is called."""
    sizes: list[float] = []

    def see(part: nn.Module, given: Any, returned: Any) -> None:
        sizes.extend(_root_of_range(x) for x in _tensors((given, returned)))

    for part in module.modules():
        part.register_forward_hook(see)
    return sizes


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def _root_of_range(x: Tensor) -> float:
    """Its largest finite value over the root of what its type can hold."""
    if not x.is_floating_point():
        return 0.0
    finite = x.detach()[x.detach().isfinite()]
    most = float(finite.abs().max()) if finite.numel() else 0.0
    return most / math.sqrt(torch.finfo(x.dtype).max)
