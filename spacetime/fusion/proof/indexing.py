"""Rules of operations that look up, gather and scatter by values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.proof.values import (
    Call,
    Mixed,
    ProofRule,
    SampleNumbers,
    Value,
    aligned,
    away,
    batch_dims,
    normal,
    tensors,
)


def embedding(call: Call) -> Value:
    """Rows of a table that is the same for all samples."""
    if call.of(call["weight"]) is not None:
        raise Mixed("its table is made of the samples")
    return call.of(call["indices"])


def embedding_bag(call: Call) -> Any:
    """Bags with as many rows for every sample: what a two-dimensional index becomes."""
    indices, offsets, own = call.of(call["indices"]), call.raw(call["offsets"]), None
    if call.of(call["weight"]) is not None or call["include_last_offset"]:
        raise Mixed("its bags are not the samples")
    if call["per_sample_weights"] is not None:
        own = call.of(call["per_sample_weights"])
    apart = (
        isinstance(indices, Layout)
        and isinstance(offsets, SampleNumbers)
        and indices == Layout(0, 1, offsets.step)
        and own in {None, indices}
    )
    if not apart:
        raise Mixed("its bags are not the samples")
    grows = [batch_dims(tensor, call.symbol) for tensor in call.node.meta["val"]]
    return tuple(Layout(0, 1, dims[0][1]) if dims else None for dims in grows)


def index(call: Call) -> Value:
    """`x[i, :, j]`: by numbers of samples at the batch's place, or by any index away from it."""
    return _indexed(call, call["self"], call["indices"])


def _indexed(call: Call, source: fx.Node, indices: list[fx.Node | None]) -> Layout | None:
    """Where the samples are in `source[indices]`."""
    places = [at for at, value in enumerate(indices) if value is not None]
    given = [value for value in indices if value is not None]
    if any(n.meta["val"].dtype in {torch.bool, torch.uint8} for n in given):
        raise Mixed("how much it takes depends on values")
    rank = max(call.rank(n) for n in given)  # of all indices once they are broadcast
    numbers, data = _by_kind(call, given, rank)
    layout = call.of(source)
    front = 0 if places != [*range(places[0], places[-1] + 1)] else places[0]
    if layout is None:
        if numbers is not None:
            raise Mixed("it looks up the number of a sample in its batch")
        return data and replace(data, dim=data.dim + front)
    if layout.dim in places:
        held = call.raw(indices[layout.dim])
        if not isinstance(held, SampleNumbers) or held.step != 1 or layout != Layout(layout.dim):
            raise Mixed("it looks samples up by values")
        if data is not None and data != Layout(numbers or 0):
            raise Mixed("it looks one sample up by values of another")
        return Layout(front + (numbers or 0))
    if numbers is not None or data is not None:
        raise Mixed("it looks one sample up by values of another")
    kept = [d for d in range(call.rank(source)) if d not in places]
    before = sum(d < front for d in kept)
    at = kept.index(layout.dim)
    return replace(layout, dim=at + (rank if at >= before else 0))


def _by_kind(call: Call, given: list[fx.Node], rank: int) -> tuple[int | None, Layout | None]:
    """The dimension of the broadcast indices that holds numbers of samples, and the layout of
    those that hold values of samples.
    """
    numbers: set[int] = set()
    data: set[Layout] = set()
    for node in given:
        value, shift = call.raw(node), rank - call.rank(node)
        if isinstance(value, SampleNumbers):
            numbers.add(value.dim + shift)
        elif isinstance(value, Layout):
            data.add(replace(value, dim=value.dim + shift))
    if len(numbers) > 1 or len(data) > 1:
        raise Mixed("it looks one sample up by values of another")
    return next(iter(numbers), None), next(iter(data), None)


def index_put(call: Call) -> Value:
    """`x[i, :, j] = values`: what may be read apart may be written apart."""
    source, layout = call["self"], call.of(call["self"])
    if layout is None:
        raise Mixed("it writes samples into what is the same for all")
    inside = _indexed(call, source, call["indices"])
    values = call["values"]
    given = [n for n in call["indices"] if n is not None]
    places = [at for at, n in enumerate(call["indices"]) if n is not None]
    rank = call.rank(source) - len(places) + max(call.rank(n) for n in given)
    written = aligned(call, [values], rank)
    if inside is None or written not in {None, inside}:
        raise Mixed("it writes a value of one sample over others")
    return layout


def gather(call: Call) -> Value:
    """gather along a dimension other than the batch's, each sample by its own index."""
    layout, picked = call.of(call["self"]), call.of(call["index"])
    if layout is None:  # a table that all share: to be read by value, not by a sample's place
        if picked is not None and normal(call["dim"], call.rank(call["self"])) != picked.dim:
            raise Mixed("it looks up the number of a sample in its batch")
        return picked
    if layout != picked:
        raise Mixed("it gathers from samples by an index that is not each sample's own")
    away(layout, call["dim"], call.rank(call["self"]))
    return layout


def take(call: Call) -> Value:
    """Entries of what is the same for all samples, by each sample's own index."""
    if call.of(call["self"]) is not None:
        raise Mixed("it looks samples up by values")
    return call.of(call["index"])


def scatter(call: Call) -> Value:
    """scatter along a dimension other than the batch's, each sample by its own index."""
    gather(call)
    layout = call.of(call["self"])
    if layout is None:
        raise Mixed("it writes samples into what is the same for all")
    if any(call.of(n) != layout for n in tensors(call.args.get("src"))):
        raise Mixed("it writes a value of one sample over others")
    if any(call.of(n) is not None for n in tensors(call.args.get("value"))):
        raise Mixed("it writes a value of one sample over others")
    return layout


def index_select(call: Call) -> Value:
    """Entries of a dimension by an index that is the same for all, or rows of a table that all
    share.
    """
    source, picked = call.of(call["self"]), call.of(call["index"])
    if source is not None and picked is not None:
        raise Mixed("it looks one sample up by values of another")
    dim = normal(call["dim"], call.rank(call["self"]))
    if picked is not None:
        return replace(picked, dim=dim)
    away(source, dim, call.rank(call["self"]))
    return source


def one_hot(call: Call) -> Value:
    """A new last dimension; its size must not come from the largest value of the batch."""
    if not isinstance(call["num_classes"], int) or call["num_classes"] < 0:
        raise Mixed("how many classes it makes depends on the largest value of the batch")
    return call.of(call["self"])


def sorted_into(call: Call) -> Value:
    """Where each value falls among boundaries that are the same for all."""
    edges = call.args.get("boundaries", call.args.get("sorted_sequence"))
    if call.of(edges) is not None:
        raise Mixed("its boundaries are made of the samples")
    return call.of(call["self"])


def isin(call: Call) -> Value:
    """Whether each value is one of a set that is the same for all."""
    if call.of(call["test_elements"]) is not None:
        raise Mixed("it looks for values of all samples")
    return call.of(call["elements"])


RULES: dict[str, ProofRule] = {
    "embedding": embedding,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    "embedding_bag": embedding_bag,
    "index": index,
    "_unsafe_index": index,
    "index_put": index_put,
    "_unsafe_index_put": index_put,
    "gather": gather,
    "take": take,
    "scatter": scatter,
    "scatter_add": scatter,
    "scatter_reduce": scatter,
    "index_select": index_select,
    "one_hot": one_hot,
    "bucketize": sorted_into,
    "searchsorted": sorted_into,
    "isin": isin,
}
