"""Inputs that would show a fault: samples that differ, all of a table's numbers, extreme
neighbours.

A proof (`proof/`) is about the graph; these inputs test what really runs. An example input says
little about the values that a model takes: it may be all zeros, all ones, or all alike. So values
are made up: floats of several magnitudes, numbers below the size of the table that they index,
masks of different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.export import Exported
from spacetime.fusion.graph.nodes import bind, operation_name

_SPREAD = (1.0, 0.1, 4.0, 1.0, 0.01, 16.0)  # magnitudes of neighbouring samples
_BYTES = (torch.uint8, torch.int8)  # as in pictures: any number of the type may occur
# Operations that a number passes through unchanged on its way to a table.
_PASSED = {
    "view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "expand", "slice", "select", "clone",
    "contiguous", "_to_copy", "to", "alias", "detach", "transpose", "permute", "split", "chunk",
    "split_with_sizes", "getitem", "flatten", "unflatten", "type_as", "unbind", "repeat",
    "repeat_interleave", "lift_fresh_copy",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ranges:
    """For each input the whole numbers that it may hold, as (low, one past high); None where
    unknown.
    """

    of: tuple[tuple[int, int] | None, ...]

    def narrowed(self) -> Ranges:
        """The ranges with nothing known, so that inputs hold the example's own values only."""
        return Ranges((None,) * len(self.of))


def ranges(example: Sequence[Tensor], exported: Exported | None) -> Ranges:
    """The whole numbers that each input may hold: below the smallest table that the graph indexes
    by it.

    Where the input indexes no table, the numbers of the example decide, or the whole type for
    bytes.
    """
    tables = _tables(exported) if exported is not None else [None] * len(example)
    limits: list[tuple[int, int] | None] = []
    for x, size in zip(example, tables, strict=True):
        if x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
            limits.append(None)
        elif size is not None:
            limits.append((0, size))
        elif x.dtype in _BYTES:
            whole = torch.iinfo(x.dtype)
            limits.append((whole.min, whole.max + 1))
        else:
            low, high = _limits(x)
            limits.append((min(low, 1), max(high, 1) + 1) if low >= 0 else (low, high + 1))
    return Ranges(tuple(limits))


def rows_of(example: Sequence[Tensor], within: Ranges, count: int, seed: int) -> list[Tensor]:
    """Make `count` samples that differ from each other in every input that can differ.

    `example`: the inputs of one call.
    `within`: what `ranges` said of them.
    `count`: how many samples to make.
    `seed`: the same seed makes the same samples.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(example, within.of, strict=True)
    return [_rows(x, bounds, count, generator) for x, bounds in pairs]


def with_extremes(inputs: Sequence[Tensor], keep: int) -> list[list[Tensor]]:
    """Three batches with the same sample `keep` and extreme other samples: the largest number,
    infinity, NaN.
    """
    batches = []
    for extreme in ("max", "inf", "nan"):
        batch = [x.clone() for x in inputs]
        for x in batch:
            if x.is_floating_point():
                value = torch.finfo(x.dtype).max if extreme == "max" else float(extreme)
                x[torch.arange(len(x), device=x.device) != keep] = value
        batches.append(batch)
    return batches


def _rows(
    x: Tensor, bounds: tuple[int, int] | None, count: int, generator: torch.Generator
) -> Tensor:
    """`count` samples of one input, made up within its bounds."""
    shape = (count, *x.shape[1:])
    if x.is_floating_point() or x.is_complex():
        return _floats(x, shape, generator)
    if x.dtype is torch.bool:
        return _lengths(shape, generator).to(x.dtype)
    if bounds is None:
        return x.repeat(-(-count // len(x)), *[1] * (x.dim() - 1))[:count].clone()
    low, high = bounds
    # Zeros and ones of two dimensions are taken for a mask, with ones in the first places of a row.
    if (low, high) in {(0, 2), (1, 2)} and x.dim() > 1 and _limits(x)[1] == 1:
        return _lengths(shape, generator).to(x.dtype)
    high = min(high, torch.iinfo(torch.int64).max)  # torch.randint goes no further
    ids = torch.randint(min(low, high - 1), high, shape, generator=generator)
    if ids.numel():  # both ends of the table occur, however few numbers are drawn
        ids.view(-1)[0], ids.view(-1)[-1] = high - 1, low
    return ids.to(x.dtype)


def _limits(x: Tensor) -> tuple[int, int]:
    """The smallest and the largest number of a tensor; PyTorch has neither for unsigned ones."""
    if x.dtype in {torch.uint16, torch.uint32, torch.uint64}:
        values: list[int] = x.flatten().tolist()
        return min(values), max(values)
    return int(x.min()), int(x.max())


def _floats(x: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Floats around the example's mean magnitude, of magnitudes that differ from sample to
    sample.
    """
    real = torch.float64 if x.dtype in {torch.float64, torch.complex128} else torch.float32
    finite = torch.nan_to_num(x.detach().abs().to(real), posinf=0.0)
    scale = float(finite.mean()) if finite.numel() else 0.0
    noise = torch.randn(shape, generator=generator, dtype=real)
    steps = torch.tensor(_SPREAD, dtype=real).repeat(-(-shape[0] // len(_SPREAD)))[: shape[0]]
    return (noise * (scale or 1.0) * steps.view(-1, *[1] * (len(shape) - 1))).to(x.dtype)


def _lengths(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Zeros and ones like a mask: along the last dimension each sample has ones up to a length
    of its own, at least one.
    """
    longest = shape[-1] if len(shape) > 1 else 1
    lengths = torch.randint(1, longest + 1, (*shape[:-1], 1), generator=generator)
    if len(shape) == 1:
        return torch.randint(0, 2, shape, generator=generator)
    return (torch.arange(longest) < lengths).long()


def _tables(exported: Exported) -> list[int | None]:
    """For each input the size of the smallest table that its numbers index; None where there is
    none.
    """
    sizes: list[int | None] = []
    nodes = {n.name: n for n in exported.module.graph.nodes if n.op == "placeholder"}
    for name in exported.inputs:
        indexed = _indexed(nodes[name]) if name in nodes else []
        sizes.append(min(indexed, default=None))
    return sizes


def _indexed(source: fx.Node) -> list[int]:
    """The sizes of all that a value indexes, before an operation changes its numbers."""
    sizes: list[int] = []
    pending, seen = [source], {source}
    while pending:
        node = pending.pop()
        for user in node.users:
            name = operation_name(user)
            if name in _PASSED and user not in seen:
                seen.add(user)
                pending.append(user)
            elif isinstance(user.target, torch._ops.OpOverload):
                sizes += _entries(user, name, node)
    return sizes


def _entries(user: fx.Node, name: str, index: fx.Node) -> list[int]:
    """How many entries `user` chooses from by `index`, in a list; an empty list where it does
    not.
    """
    args = bind(user)
    table: tuple[fx.Node, int] | None = None
    if name in {"embedding", "_embedding_bag", "_embedding_bag_forward_only", "embedding_bag"}:
        table = (args["weight"], 0) if args["indices"] is index else None
    elif name in {"index_select", "gather"}:
        table = (args["self"], args["dim"]) if args["index"] is index else None
    elif name in {"index", "_unsafe_index"} and index in args["indices"]:
        table = (args["self"], args["indices"].index(index))
    elif name == "one_hot" and isinstance(args["num_classes"], int):
        return [args["num_classes"]] if args["num_classes"] > 0 else []
    if table is None:
        return []
    size = table[0].meta["val"].shape[table[1]]
    return [size] if isinstance(size, int) else []
