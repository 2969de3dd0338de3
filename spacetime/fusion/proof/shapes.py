"""Rules of operations that move, repeat, join and cut, or make tensors of a given size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.proof.values import (
    BatchSize,
    Call,
    Mixed,
    ProofRule,
    SampleNumbers,
    Value,
    aligned,
    away,
    batch_dims,
    elementwise,
    normal,
    tensors,
    without,
)

_END = 2**62  # no dimension is as long: a slice to here or beyond goes to the end


def same(call: Call) -> Value:
    """A copy, a cast, or another function of the first operand, element by element."""
    return call.raw(call.node.args[0])


def reshaped(call: Call) -> Value:
    """The same elements in the same order; where the samples come to lie follows from the sizes."""
    source = call.node.args[0]
    assert isinstance(source, fx.Node)
    old, grows = call.raw(source), batch_dims(call.result(), call.symbol)
    if old is None:
        return None
    assert isinstance(old, (Layout, SampleNumbers))
    layout = Layout(old.dim) if isinstance(old, SampleNumbers) else old
    if len(grows) != 1:
        raise Mixed("it takes the batch apart")
    dim, copies = grows[0]
    new = layout.reshaped(call.shape(source), call.shape(call.node), dim, copies)
    if new is None:
        raise Mixed("it changes the order of the samples")
    return SampleNumbers(dim, old.step) if isinstance(old, SampleNumbers) else new


def _permuted(order: Callable[[Call, int], Sequence[int]]) -> ProofRule:
    """The rule for an operation that reorders dimensions; `order` says which comes where."""

    def rule(call: Call) -> Value:
        source = call["self"]
        value, rank = call.raw(source), call.rank(source)
        if value is None:
            return None
        assert isinstance(value, (Layout, SampleNumbers))
        return replace(value, dim=[normal(d, rank) for d in order(call, rank)].index(value.dim))

    return rule


def _swapped(rank: int, first: int, second: int) -> list[int]:
    """The dimensions in order, with two of them swapped."""
    order = list(range(rank))
    a, b = normal(first, rank), normal(second, rank)
    order[a], order[b] = order[b], order[a]
    return order


def expand(call: Call) -> Value:
    """Dimensions of size one, repeated. A constant that is repeated for each sample is one of
    each.
    """
    source, rank = call["self"], len(call.result().shape)
    value = call.raw(source)
    if value is None:
        return _uniform(call)
    assert isinstance(value, (Layout, SampleNumbers))
    return replace(value, dim=value.dim + rank - call.rank(source))


def repeat(call: Call) -> Value:
    """Whole copies, one after another along each dimension."""
    source, repeats = call["self"], call["repeats"]
    layout = call.of(source)
    if layout is None:
        grows = _growing_dim(call)
        missing = len(repeats) - call.rank(source)
        own = 1 if grows[0] < missing else call.shape(source)[grows[0] - missing]
        return Layout(grows[0], grows[1] // own, own) if grows[1] == own else _refuse()
    dim = layout.dim + len(repeats) - call.rank(source)
    times = repeats[dim]
    if not isinstance(times, int):
        raise Mixed("it repeats the batch by its own size")
    return replace(layout, dim=dim, outer=layout.outer * times)


def _refuse() -> Value:
    """Raise Mixed: no rule covers this order."""
    raise Mixed("it repeats in an order without a rule")


def repeat_interleave(call: Call) -> Value:
    """Every entry repeated in its place."""
    layout, times, dim = call.of(call["self"]), call["repeats"], call["dim"]
    if not isinstance(times, int) or not isinstance(dim, int):
        raise Mixed("how often it repeats depends on values")
    if layout is None or normal(dim, call.rank(call["self"])) != layout.dim:
        return layout
    return replace(layout, inner=layout.inner * times)


def cat(call: Call) -> Value:
    """Tensors joined along a dimension other than the batch's."""
    listed = tensors(call["tensors"])
    ranks = {call.rank(n) for n in listed}
    if len(ranks) != 1:
        raise Mixed("it joins tensors of different rank")
    rank = ranks.pop()
    layout = aligned(call, listed, rank)
    away(layout, call["dim"], rank)
    return layout


def stack(call: Call) -> Value:
    """Tensors joined along a new dimension."""
    rank = call.rank(tensors(call["tensors"])[0])
    layout = aligned(call, call["tensors"], rank)
    at = normal(call["dim"], rank + 1)
    return layout and replace(layout, dim=layout.dim + (at <= layout.dim))


def cut(call: Call) -> Value:
    """Pieces along a dimension other than the batch's."""
    layout = call.of(call["self"])
    away(layout, call.args.get("dim", 0), call.rank(call["self"]))
    return layout


def taken(call: Call) -> Value:
    """One entry of a dimension, which is removed."""
    layout, rank = call.of(call["self"]), call.rank(call["self"])
    return without(layout, away(layout, call.args.get("dim", 0), rank))


def cut_evenly(call: Call) -> Value:
    """A slice; along the batch only the whole of it."""
    value, rank = call.raw(call["self"]), call.rank(call["self"])
    if value is None:
        if any(isinstance(call.raw(call[name]), BatchSize) for name in ("start", "end")):
            raise Mixed("what it cuts out depends on the size of the batch")
        return None
    assert isinstance(value, (Layout, SampleNumbers))
    start, end, step = call["start"], call["end"], call["step"]
    if normal(call["dim"], rank) != value.dim:
        if any(isinstance(n, fx.Node) for n in (start, end, step)):
            raise Mixed("what it cuts out depends on the size of the batch")
        return value
    whole = start in {0, None} and step == 1 and (end is None or _at_the_end(call, end, value))
    if not whole:
        raise Mixed("it takes some of the samples by their place in the batch")
    return value


def _at_the_end(call: Call, end: Any, value: Layout | SampleNumbers) -> bool:
    """Whether a slice of the batch ends where the batch does."""
    if isinstance(end, int):
        return end >= _END
    size = call["self"].meta["val"].shape[value.dim]
    return bool(str(end.meta.get("val")) == str(size))


def padded(call: Call) -> Value:
    """Padding of the last dimensions."""
    layout, rank = call.of(call["self"]), call.rank(call["self"])
    amounts = call.args.get("pad", call.args.get("padding"))
    assert isinstance(amounts, (list, tuple))
    if any(isinstance(n, fx.Node) for n in amounts):
        raise Mixed("how much it pads depends on the size of the batch")
    touched = [rank - 1 - i // 2 for i, n in enumerate(amounts) if n]
    away(layout, touched, rank)
    return layout


def filled(call: Call) -> Value:
    """A tensor of a given size with the same value everywhere."""
    if isinstance(call.raw(call.args.get("fill_value")), BatchSize):
        raise Mixed("it computes with the size of the batch")
    if call.of(call.args.get("fill_value")) is not None:
        raise Mixed("it spreads a value of one sample over all")
    return _uniform(call)


def filled_alike(call: Call) -> Value:
    """A tensor of an operand's size with the same value everywhere."""
    fill = call.args.get("fill_value")
    if call.raw(fill) is not None:
        raise Mixed("it computes with the size or a value of the batch")
    source = call.raw(call["self"])
    return Layout(source.dim) if isinstance(source, SampleNumbers) else source


def arange(call: Call) -> Value:
    """The numbers of the samples, where arange counts as many numbers as there are samples."""
    start, step = call.args.get("start", 0), call.args.get("step", 1)
    dim, copies = _growing_dim(call)
    if start != 0 or not isinstance(step, int) or copies != 1:
        raise Mixed("it counts what is not the samples")
    return SampleNumbers(dim, step)


def scattered(call: Call) -> Value:
    """A value laid over a slice or an entry of the first operand."""
    source, rank = call["self"], call.rank(call["self"])
    layout, over = call.of(source), call.of(call["src"])
    if any(isinstance(call.args.get(name), fx.Node) for name in ("start", "end", "step", "index")):
        raise Mixed("where it writes depends on the size of the batch")
    if layout is not None and normal(call["dim"], rank) == layout.dim and _everywhere(call):
        return aligned(call, [source, call["src"]], rank)
    away(layout, call["dim"], rank)
    inside = (
        layout if call.rank(call["src"]) == rank else without(layout, [normal(call["dim"], rank)])
    )
    if over != inside:
        raise Mixed("it writes a value of one sample over others")
    return layout


def _everywhere(call: Call) -> bool:
    """Whether a slice that is written to is the whole dimension."""
    start, end, step = (call.args.get(name) for name in ("start", "end", "step"))
    return start in {0, None} and step == 1 and (end is None or end >= _END)


def triangle(call: Call) -> Value:
    """What lies on one side of the diagonal of the last two dimensions."""
    layout = call.of(call["self"])
    away(layout, [-1, -2], call.rank(call["self"]))
    return layout


def _uniform(call: Call) -> Value:
    """A constant repeated for every sample; None where the batch has no part in its shape."""
    grows = batch_dims(call.result(), call.symbol)
    if not grows:
        return None
    dim, copies = _growing_dim(call)
    return Layout(dim, 1, copies)


def _growing_dim(call: Call) -> tuple[int, int]:
    """The one dimension that grows with the batch, and how many entries a sample has in it.

    Raises Mixed where none or several dimensions grow.
    """
    grows = batch_dims(call.result(), call.symbol)
    if len(grows) != 1:
        raise Mixed("its shape holds the batch twice" if grows else "it takes the batch's size")
    return grows[0]


RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze",
            "view_as", "reshape_as", "_reshape_alias")  # fmt: skip
MAKERS = ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
ALIKE = ("zeros_like", "ones_like", "full_like", "empty_like")
SAME = ("clone", "contiguous", "detach", "alias", "_to_copy", "to", "type_as", "dropout",
        "lift_fresh_copy", "view_as_real", "feature_dropout", "alpha_dropout")  # fmt: skip
CUTS = ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk",
        "unsafe_split_with_sizes", "narrow")  # fmt: skip
PADS = ("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
        "replication_pad1d", "replication_pad2d", "replication_pad3d")  # fmt: skip

TAKE_SIZES = {
    *RESHAPES, *MAKERS, "expand", "repeat", "arange", "slice", "native_group_norm",
    "affine_grid_generator", "full_like",
}  # fmt: skip
RULES: dict[str, ProofRule] = {
    **dict.fromkeys(RESHAPES, reshaped),
    **dict.fromkeys(MAKERS, filled),
    **dict.fromkeys(ALIKE, filled_alike),
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(CUTS, cut),
    **dict.fromkeys(PADS, padded),
    "permute": _permuted(lambda call, rank: call["dims"]),
    "transpose": _permuted(lambda call, rank: _swapped(rank, call["dim0"], call["dim1"])),
    "swapaxes": _permuted(lambda call, rank: _swapped(rank, call["axis0"], call["axis1"])),
    "t": _permuted(lambda call, rank: _swapped(rank, 0, rank - 1)),
    "expand": expand,
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    "cat": cat,
    "stack": stack,
    "select": taken,
    "unbind": taken,
    "slice": cut_evenly,
    "arange": arange,
    "copy": elementwise,  # of another value, broadcast to the first operand's shape
    "fill": elementwise,
    "select_scatter": scattered,
    "slice_scatter": scattered,
    "tril": triangle,
    "triu": triangle,
}
