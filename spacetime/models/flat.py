"""A model between flat lists of tensors: what goes in, what comes out, and how it is put together.

Sessions, processes and devices pass on tensors only. `Flat` makes a module that takes and returns
them; `Outputs` puts the model's own structure around what came out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput
from spacetime.fusion import Ranges, rows_of
from spacetime.models.signature import Signature

FlatCall = Callable[..., Sequence[Tensor]]  # (*inputs: [n, ...]) -> outputs: [n, ...] each
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, Enum)


@dataclass(frozen=True, slots=True)
class Outputs:
    """How flat output tensors become what the model returns.

    spec: the structure. constants: position and value of the leaves that are no tensors. single:
    whether the model returns one tensor and nothing else. why_not: why an answer cannot be built
    so, because structure or constants differed between the inputs tried, or because a caller could
    change a constant; callers then get what the model itself returned. Empty where it can.
    """

    spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]
    single: bool
    why_not: str = ""

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """The model's own return structure around `tensors`, each `[n, ...]`. Raises ValueError
        where there are more or fewer of them than the example had."""
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


def check_structure(outputs: Outputs, answer: Any) -> None:
    """Raises ValueError where an answer is not built as the example's: only its tensors travel."""
    flat, spec = pytree.tree_flatten(answer)
    constants = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
    if spec != outputs.spec or constants != outputs.constants:
        raise ValueError(
            "the structure of this output, or a value in it that is no tensor, differs from the "
            "example's, which a lane in another process cannot pass on; use isolation='thread'"
        )


def flat_tensors(answer: Any) -> list[Tensor]:
    """The tensors of what a model returned, flat."""
    if isinstance(answer, Tensor):
        return [answer]
    return [x for x in pytree.tree_leaves(answer) if isinstance(x, Tensor)]


class Flat(nn.Module):
    """A model that takes and returns tensors, whatever structure its own inputs and outputs
    have."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self._spec = signature.spec
        self.training = False  # as the model is; eval() would be refused by an exported one

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = pytree.tree_unflatten(list(leaves), self._spec)
        flat = pytree.tree_leaves(self.model(*args, **kwargs))
        return tuple(x for x in flat if isinstance(x, Tensor))


def outputs_of(
    model: nn.Module, signature: Signature, example: Sequence[Tensor], within: Ranges | None
) -> Outputs:
    """What the model returns for its example. Raises InvalidInput where that is no batch of
    tensors.

    example: the leaves of one call, each `[n, ...]`. within: the values that inputs may hold; None
    where the model has no graph, and then callers get what the model itself returns. A model with a
    graph is asked three times more, with other inputs, to see whether all but tensors stays the
    same.
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
    first: tuple[pytree.TreeSpec, tuple[tuple[int, Any], ...]],
) -> str:
    """What beside the tensors differs between calls; empty where nothing does.

    first: the structure and the constants that the first call returned.
    """
    for seed, rows in ((1, 1), (2, 2), (3, 1)):
        try:
            flat, spec, _ = _returned(model, signature, rows_of(example, within, rows, seed))
        except Exception:  # the values may not suit the model; others are tried
            flat, spec, _ = _returned(model, signature, example)
        if spec != first[0]:
            return "the structure of what it returns depends on its input"
        now = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
        if repr(now) != repr(first[1]):
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


def spread(example: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Inputs of `rows` samples that differ, in the value range of the example's: each `[rows,
    ...]`."""
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


def own(out: Tensor) -> Tensor:
    """`out` in memory that holds it alone and that nothing else holds; copied where it is not so.

    What else could hold it: inputs, weights, a program's constants, buffers of launches, another
    output, the model itself. All of them count as users of a storage.
    """
    if out.layout is not torch.strided or out.requires_grad:
        return out.detach().clone()
    storage = out.untyped_storage()
    alone = torch._C._storage_Use_Count(storage._cdata) == _ONE_USER  # untyped in PyTorch
    # Memory that PyTorch did not allocate, such as an array of NumPy, has owners it cannot count.
    fresh = alone and storage.resizable() and storage.nbytes() == out.nbytes
    return out if fresh else out.clone()


def _users_of_new() -> int:
    new = torch.empty(1)
    return int(torch._C._storage_Use_Count(new.untyped_storage()._cdata))


_ONE_USER = _users_of_new()  # the tensor, and the object through which Python asks
