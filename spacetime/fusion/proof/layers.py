"""Rules of what a model's layers are: normalisation, convolutions, attention, recurrent layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.proof.values import (
    Call,
    Mixed,
    ProofRule,
    Value,
    aligned,
    away,
    constant,
    tensors,
)


def rectified(call: Call) -> Value:
    """prelu: a slope for each channel, the same for all samples."""
    constant(call, "weight")
    return call.of(call["self"])


def normalised(call: Call) -> Any:
    """Layer normalisation, over the last dimensions."""
    source = call["input"]
    layout = call.of(source)
    constant(call, "weight", "bias")
    away(layout, [*range(-len(call["normalized_shape"]), 0)], call.rank(source))
    return layout


def group_normalised(call: Call) -> Any:
    """Group normalisation: groups of channels, each entry of the first dimension apart."""
    source = call["input"]
    layout = call.of(source)
    constant(call, "weight", "bias")
    if layout is not None and layout.dim != 0:
        raise Mixed("it normalises over the batch")
    return layout


def batch_normalised(call: Call) -> Any:
    """Batch normalisation, by the statistics that the model keeps.

    Where the samples are channels, as in the way instance normalisation is computed, the statistics
    of each channel may be the batch's own.
    """
    source = call["input"]
    layout = call.of(source)
    channels = layout is not None and layout.dim == 1  # so is instance normalisation computed
    per_channel = [call.args.get(n) for n in ("weight", "bias", "running_mean", "running_var")]
    for vector in tensors(per_channel):
        held = call.of(vector)
        if held is not None and (not channels or held != replace(layout or held, dim=0)):
            raise Mixed("its statistics are made of the samples")
    if _by_statistics(call) or channels or layout is None:
        return _first_of(call, layout)
    raise Mixed("it normalises over the batch")


def _by_statistics(call: Call) -> bool:
    """Whether batch normalisation uses the statistics that the model keeps, not those of the
    batch.
    """
    if "no_training" in str(call.node.target):
        return True
    kept = call.args.get("running_mean") is not None
    training = call.args.get("training", call.args.get("train", call.args.get("use_input_stats")))
    return kept and training is False


def _first_of(call: Call, layout: Layout | None) -> Any:
    """The layout of the first result. The other results are empty, or one number for each
    channel.
    """
    results = call.node.meta["val"]
    if not isinstance(results, (list, tuple)):
        return layout
    side = replace(layout, dim=0) if layout is not None and layout.dim == 1 else None
    return (layout, *[side] * (len(results) - 1))


def instance_normalised(call: Call) -> Any:
    """Instance normalisation: each channel of each sample apart."""
    layout = call.of(call["input"])
    constant(call, "weight", "bias", "running_mean", "running_var")
    if layout is not None and layout.dim not in {0, 1}:
        raise Mixed("it normalises over the batch")
    return layout


def convolved(call: Call) -> Value:
    """A convolution over the dimensions behind the channels, by weights that are the same for
    all.
    """
    source = call["input"]
    layout = call.of(source)
    constant(call, "weight", "bias")
    if layout is not None and (layout.dim != 0 or call.rank(source) != call.rank(call["weight"])):
        raise Mixed("it convolves over the batch")
    return layout


def linear(call: Call) -> Value:
    """A linear layer, over the last dimension, by weights that are the same for all."""
    source = call["input"]
    layout = call.of(source)
    constant(call, "weight", "bias")
    away(layout, -1, call.rank(source))
    return layout


def attention(call: Call) -> Value:
    """Attention: queries, keys, values and mask of each sample apart."""
    query, rank = call["query"], call.rank(call["query"])
    layout = aligned(call, [query, call["key"], call["value"], call["attn_mask"]], rank)
    if layout is not None and layout.dim >= rank - 2:
        raise Mixed("it attends over the batch")
    return layout


def recurrent(call: Call) -> Any:
    """Recurrent layers along time, from states that are zero or each sample's own."""
    source = call["input"]
    at = 0 if call["batch_first"] else 1
    states, begin = call.args.get("hx"), call.of(source)
    if call.rank(source) != 3 or begin is None or begin != Layout(at):
        raise Mixed("it runs along the batch")
    if any(call.of(n) not in {None, Layout(1)} for n in tensors(states)):
        raise Mixed("it runs along the batch")
    constant(call, "params")
    return (begin, *[Layout(1)] * (len(call.node.meta["val"]) - 1))


def cell(call: Call) -> Any:
    """One step of a recurrent layer, from each sample's own state."""
    states = tensors(call["hx"])
    layout = aligned(call, [call["input"], *states], 2)
    constant(call, "w_ih", "w_hh", "b_ih", "b_hh")
    away(layout, -1, 2)
    return layout


def bilinear(call: Call) -> Value:
    """A bilinear layer over the last dimensions of two inputs, by weights that are the same for
    all.
    """
    constant(call, "weight", "bias")
    rank = call.rank(call["input1"])
    layout = aligned(call, [call["input1"], call["input2"]], rank)
    away(layout, -1, rank)
    return layout


def grid_sampled(call: Call) -> Value:
    """Each sample's image, sampled at each sample's points."""
    image, grid = call.of(call["input"]), call.of(call["grid"])
    if image != grid or image is None or image.dim != 0:
        raise Mixed("it samples one image at the points of another")
    return image


def transformed(call: Call) -> Value:
    """A grid of points for each sample's transformation."""
    layout = call.of(call["theta"])
    if layout is not None and layout.dim != 0:
        raise Mixed("it works over the batch")
    return layout


CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                "conv_transpose3d", "convolution")  # fmt: skip

RULES: dict[str, ProofRule] = {
    **dict.fromkeys(CONVOLUTIONS, convolved),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), normalised),
    **dict.fromkeys(("group_norm", "native_group_norm"), group_normalised),
    **dict.fromkeys(
        ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_batch_norm_no_update",
         "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), batch_normalised
    ),
    "prelu": rectified,
    "instance_norm": instance_normalised,
    "linear": linear,
    "scaled_dot_product_attention": attention,
    "lstm": recurrent,
    "gru": recurrent,
    "rnn_tanh": recurrent,
    "rnn_relu": recurrent,
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
    "bilinear": bilinear,
    "grid_sampler": grid_sampled,
    "grid_sampler_2d": grid_sampled,
    "grid_sampler_3d": grid_sampled,
    "affine_grid_generator": transformed,
}  # fmt: skip
