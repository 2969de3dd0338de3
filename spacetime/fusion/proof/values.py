"""What a rule of the proof is given and returns: where the samples are in a value, and one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.layout import Layout, shape_at

_SLOTS = (2, 3, 5)  # batch sizes at which shapes are compared


class Mixed(Exception):
    """Raised where a value of one sample may depend on another sample, or on how many there are.
    Its message says why.
    """


@dataclass(frozen=True, slots=True)
class SampleNumbers:
    """Along `dim` lie the numbers of the samples: 0, step, 2 * step, … This is what arange makes of
    a batch.

    Such a value may serve as an index into the batch. Anything computed from it would depend on the
    other samples.
    """

    dim: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Not a tensor: the number of samples, or a number computed from it."""


# None stands for a value that is the same whatever the batch holds: a weight, a constant, or what
# was computed from these alone.
Value = Layout | SampleNumbers | BatchSize | None
# A rule returns a Value, or a tuple of them for an operation with several results.
ProofRule = Callable[["Call"], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call in a graph, with its arguments by their names in the operation's schema.

    `node`, `args`: the call and its arguments.
    `values`: where the samples are in the value of every node so far.
    `symbol`: the batch size, a symbol of sympy.
    """

    node: fx.Node
    args: Mapping[str, Any]
    values: Mapping[fx.Node, Any]
    symbol: Any

    def of(self, argument: Any) -> Layout | None:
        """Where the samples are in an argument; None where it is the same for all samples.

        Raises Mixed where the argument holds numbers of samples or the batch size.
        """
        value = self.values[argument] if isinstance(argument, fx.Node) else None
        if isinstance(value, SampleNumbers):
            raise Mixed("it computes with the number of a sample in its batch")
        if isinstance(value, BatchSize):
            raise Mixed("it computes with the size of the batch")
        assert value is None or isinstance(value, Layout), value
        return value

    def raw(self, argument: Any) -> Value:
        """What is known of an argument, numbers of samples and the batch size included."""
        value: Value = self.values[argument] if isinstance(argument, fx.Node) else None
        return value

    def shape(self, argument: fx.Node) -> tuple[int, ...]:
        """The shape of an argument in a batch of two."""
        return shape_at(argument.meta["val"], self.symbol, _SLOTS[0])

    def rank(self, argument: fx.Node) -> int:
        """How many dimensions an argument has."""
        return len(argument.meta["val"].shape)

    def result(self, position: int = 0) -> Tensor:
        """What the operation returns, or one of its results, as a tensor without data."""
        value = self.node.meta["val"]
        chosen: Tensor = value if isinstance(value, Tensor) else value[position]
        return chosen

    def __getitem__(self, name: str) -> Any:
        """The argument of this name."""
        return self.args[name]


def tensors(argument: Any) -> list[fx.Node]:
    """The nodes in an argument whose values are tensors."""
    nodes: list[fx.Node] = []
    fx.map_arg(argument, nodes.append)
    return [n for n in nodes if isinstance(n.meta.get("val"), Tensor)]


def batch_dims(value: Tensor, symbol: Any) -> list[tuple[int, int]]:
    """The dimensions that grow with the batch, and how many entries a sample has in each.

    Raises Mixed where a size is no multiple of the batch size.
    """
    if not any(isinstance(size, torch.SymInt) for size in value.shape):
        return []
    shapes = [shape_at(value, symbol, slots) for slots in _SLOTS]
    growing = []
    for dim, sizes in enumerate(zip(*shapes, strict=True)):
        if len(set(sizes)) > 1:
            per_sample = sizes[0] // _SLOTS[0]
            if any(size != per_sample * slots for size, slots in zip(sizes, _SLOTS, strict=True)):
                raise Mixed(f"its size {value.shape[dim]} is no multiple of the batch")
            growing.append((dim, per_sample))
    return growing


def normal(dim: int, rank: int) -> int:
    """A dimension counted from the front."""
    return dim + rank if dim < 0 else dim


def aligned(call: Call, operands: Sequence[Any], rank: int) -> Layout | None:
    """Where the samples are once these operands are broadcast to `rank` dimensions.

    Raises Mixed where two operands hold the samples in different places.
    """
    common: Layout | None = None
    for operand in tensors(operands):
        layout = call.of(operand)
        if layout is None:
            continue
        layout = replace(layout, dim=layout.dim + rank - call.rank(operand))
        if common is not None and layout != common:
            raise Mixed("it combines each sample with others")
        common = layout
    return common


def away(layout: Layout | None, dims: Sequence[int] | int | None, rank: int) -> list[int]:
    """These dimensions, counted from the front; None means all, as in PyTorch's reductions.

    Raises Mixed where the batch's dimension is among them.
    """
    given = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    counted = [normal(dim, rank) for dim in given]
    if layout is not None and layout.dim in counted:
        raise Mixed("it works over the batch")
    return counted


def without(layout: Layout | None, dims: Sequence[int]) -> Layout | None:
    """The layout after these dimensions, none of them the batch's, have been removed."""
    if layout is None:
        return None
    return replace(layout, dim=layout.dim - sum(dim < layout.dim for dim in dims))


def elementwise(call: Call) -> Layout | None:
    """Rule: element by element, of operands broadcast against each other."""
    return aligned(call, [*call.args.values()], len(call.result().shape))


def constant(call: Call, *names: str) -> None:
    """Raise Mixed where one of these arguments depends on samples."""
    if any(call.of(n) is not None for name in names for n in tensors(call.args.get(name))):
        raise Mixed("its weights are made of the samples")
