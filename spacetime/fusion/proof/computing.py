"""Rules of reductions, products, convolutions, norms, pools and recurrent layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.proof.values import (
    Call,
    Mixed,
    ProofRule,
    Value,
    aligned,
    away,
    tensors,
    without,
)


def reduced(call: Call) -> Value:
    """One value for all entries of some dimensions, which must not be the batch's."""
    source = call.node.args[0]
    assert isinstance(source, fx.Node)
    layout, rank = call.of(source), call.rank(source)
    if layout is None:
        return None
    dims = call.args.get("dim")
    gone = away(layout, None if dims is None or dims == [] else dims, rank)
    return layout if call.args.get("keepdim", False) else without(layout, gone)


def along(call: Call) -> Value:
    """A function of whole lines along some dimensions, which must not be the batch's."""
    source = call.node.args[0]
    assert isinstance(source, fx.Node)
    layout, rank = aligned(call, [*call.args.values()], call.rank(source)), call.rank(source)
    dims = call.args.get("dim", call.args.get("dims", call.args.get("dimension")))
    away(layout, None if dims is None or dims == [] else dims, rank)
    return layout


def elementwise(call: Call) -> Value:
    """Element by element, of operands broadcast against each other."""
    return aligned(call, [*call.args.values()], len(call.result().shape))


def chosen(call: Call) -> Value:
    """Element by element, one of two; with the condition alone it would list places."""
    if "self" not in call.args:
        raise Mixed("how much it returns depends on values")
    return elementwise(call)


def rectified(call: Call) -> Value:
    """A slope for each channel, the same for all samples."""
    _constant(call, "weight")
    return call.of(call["self"])


def _last(count: int) -> ProofRule:
    """A function of the last dimensions, of each entry of the others apart."""

    def rule(call: Call) -> Value:
        source = call.node.args[0]
        assert isinstance(source, fx.Node)
        layout, rank = call.of(source), call.rank(source)
        if any(call.of(n) is not None for n in tensors(call.node.args[1:])):
            raise Mixed("it works with more than one value of the samples")
        away(layout, [*range(-count, 0)], rank)
        return layout

    return rule


def normalised(call: Call) -> Any:
    """Layer normalisation over the last dimensions."""
    source = call["input"]
    layout = call.of(source)
    _constant(call, "weight", "bias")
    away(layout, [*range(-len(call["normalized_shape"]), 0)], call.rank(source))
    return layout


def group_normalised(call: Call) -> Any:
    """Groups of channels, of each entry of the first dimension apart."""
    source = call["input"]
    layout = call.of(source)
    _constant(call, "weight", "bias")
    if layout is not None and layout.dim != 0:
        raise Mixed("it normalises over the batch")
    return layout


def batch_normalised(call: Call) -> Any:
    """By statistics that the model keeps, or of each channel where the samples are channels."""
    source = call["input"]
    layout = call.of(source)
    channels = layout is not None and layout.dim == 1  # instance normalisation is computed so
    per_channel = [call.args.get(n) for n in ("weight", "bias", "running_mean", "running_var")]
    for vector in tensors(per_channel):
        held = call.of(vector)
        if held is not None and (not channels or held != replace(layout or held, dim=0)):
            raise Mixed("its statistics are made of the samples")
    if _by_statistics(call) or channels or layout is None:
        return _first_of(call, layout)
    raise Mixed("it normalises over the batch")


def _by_statistics(call: Call) -> bool:
    """Whether batch normalisation uses what the model keeps, not the batch at hand."""
    if "no_training" in str(call.node.target):
        return True
    kept = call.args.get("running_mean") is not None
    training = call.args.get("training", call.args.get("train", call.args.get("use_input_stats")))
    return kept and training is False


def _first_of(call: Call, layout: Layout | None) -> Any:
    """The layout of the first result; what comes with it is empty, or the same for all."""
    results = call.node.meta["val"]
    if not isinstance(results, (list, tuple)):
        return layout
    side = replace(layout, dim=0) if layout is not None and layout.dim == 1 else None
    return (layout, *[side] * (len(results) - 1))


def instance_normalised(call: Call) -> Any:
    """Each channel of each sample apart."""
    layout = call.of(call["input"])
    _constant(call, "weight", "bias", "running_mean", "running_var")
    if layout is not None and layout.dim not in {0, 1}:
        raise Mixed("it normalises over the batch")
    return layout


def convolved(call: Call) -> Value:
    """Over the dimensions behind the channels, by weights that are the same for all."""
    source = call["input"]
    layout = call.of(source)
    _constant(call, "weight", "bias")
    if layout is not None and (layout.dim != 0 or call.rank(source) != call.rank(call["weight"])):
        raise Mixed("it convolves over the batch")
    return layout


def linear(call: Call) -> Value:
    """Over the last dimension, by weights that are the same for all."""
    source = call["input"]
    layout = call.of(source)
    _constant(call, "weight", "bias")
    away(layout, -1, call.rank(source))
    return layout


def _constant(call: Call, *names: str) -> None:
    if any(call.of(n) is not None for name in names for n in tensors(call.args.get(name))):
        raise Mixed("its weights are made of the samples")


def product(call: Call, first: fx.Node, second: fx.Node) -> Layout | None:
    """Where the samples are in a matrix product of two operands, broadcast as matmul does."""
    a, b, ranks = call.of(first), call.of(second), (call.rank(first), call.rank(second))
    if a is None and b is None:
        return None
    if min(ranks) == 1:
        return _by_vector(a, b, ranks)
    rank = max(ranks)
    if (a and a.dim == ranks[0] - 1) or (b and b.dim == ranks[1] - 2):
        raise Mixed("it sums over the batch")
    if a and a.dim == ranks[0] - 2:
        return replace(a, dim=rank - 2) if b is None else _crossed()
    if b and b.dim == ranks[1] - 1:
        return replace(b, dim=rank - 1) if a is None else _crossed()
    left = a and replace(a, dim=a.dim + rank - ranks[0])
    right = b and replace(b, dim=b.dim + rank - ranks[1])
    return left if right is None or left == right else right if left is None else _crossed()


def _by_vector(a: Layout | None, b: Layout | None, ranks: tuple[int, int]) -> Layout | None:
    """A product with a vector, whose one dimension is summed over."""
    if ranks[1] == 1 and b is None and a is not None and a.dim != ranks[0] - 1:
        return a
    if ranks[0] == 1 and a is None and b is not None and b.dim != ranks[1] - 2:
        return replace(b, dim=b.dim - (b.dim > ranks[1] - 2))
    raise Mixed("it sums over the batch")


def _crossed() -> Layout | None:
    raise Mixed("it combines each sample with others")


def _product_of(first: str, second: str, added: str | None = None) -> ProofRule:
    def rule(call: Call) -> Value:
        layout = product(call, call[first], call[second])
        if added is None:
            return layout
        extra = aligned(call, [call[added]], len(call.result().shape))
        return layout if extra is None or extra == layout else _crossed()

    return rule


def einsum(call: Call) -> Value:
    """The letter of the batch must be the same in every operand that has samples, and kept."""
    terms, _, kept = call["equation"].replace(" ", "").partition("->")
    if "." in terms or not kept:
        raise Mixed("its equation has no rule")
    layouts = {
        (term[layout.dim], layout.outer, layout.inner)
        for term, node in zip(terms.split(","), tensors(call["tensors"]), strict=True)
        if (layout := call.of(node)) is not None
    }
    if not layouts:
        return None
    (letter, outer, inner), *others = layouts
    if others or letter not in kept or any(term.count(letter) > 1 for term in terms.split(",")):
        raise Mixed("it combines each sample with others")
    if any(letter in t and call.of(n) is None
           for t, n in zip(terms.split(","), tensors(call["tensors"]), strict=True)):  # fmt: skip
        raise Mixed("it combines each sample with others")
    return Layout(kept.index(letter), outer, inner)


def attention(call: Call) -> Value:
    """Queries, keys and values of each sample apart; the mask too."""
    query, rank = call["query"], call.rank(call["query"])
    layout = aligned(call, [query, call["key"], call["value"], call["attn_mask"]], rank)
    if layout is not None and layout.dim >= rank - 2:
        raise Mixed("it attends over the batch")
    return layout


def recurrent(call: Call) -> Any:
    """Layers along time, from states that are zero or each sample's own."""
    source = call["input"]
    at = 0 if call["batch_first"] else 1
    states, begin = call.args.get("hx"), call.of(source)
    if call.rank(source) != 3 or begin is None or begin != Layout(at):
        raise Mixed("it runs along the batch")
    if any(call.of(n) not in {None, Layout(1)} for n in tensors(states)):
        raise Mixed("it runs along the batch")
    _constant(call, "params")
    return (begin, *[Layout(1)] * (len(call.node.meta["val"]) - 1))


def cell(call: Call) -> Any:
    """One step of a recurrent layer, from each sample's own state."""
    states = tensors(call["hx"])
    layout = aligned(call, [call["input"], *states], 2)
    _constant(call, "w_ih", "w_hh", "b_ih", "b_hh")
    away(layout, -1, 2)
    return layout


def similar(call: Call) -> Value:
    """The angle between two vectors along a dimension, which goes."""
    rank = max(call.rank(call["x1"]), call.rank(call["x2"]))
    layout = aligned(call, [call["x1"], call["x2"]], rank)
    return without(layout, away(layout, call["dim"], rank))


def bilinear(call: Call) -> Value:
    """Over the last dimensions of two inputs, by weights that are the same for all."""
    _constant(call, "weight", "bias")
    rank = call.rank(call["input1"])
    layout = aligned(call, [call["input1"], call["input2"]], rank)
    away(layout, -1, rank)
    return layout


def windowed(call: Call) -> Value:
    """The spectrum of stretches of each row's last dimension."""
    layout, rank = call.of(call["self"]), call.rank(call["self"])
    _constant(call, "window")
    away(layout, -1, rank)
    return layout


def distances(call: Call) -> Value:
    """Between the rows of two matrices of each sample."""
    first, second = call["x1"], call["x2"]
    a, b, ranks = call.of(first), call.of(second), (call.rank(first), call.rank(second))
    if a is not None and b is None and a.dim == ranks[0] - 2 and ranks[0] == ranks[1]:
        return a
    layout = aligned(call, [first, second], max(ranks))
    away(layout, [-1, -2], max(ranks))
    return layout


def grid_sampled(call: Call) -> Value:
    """Each sample's image at each sample's points."""
    image, grid = call.of(call["input"]), call.of(call["grid"])
    if image != grid or image is None or image.dim != 0:
        raise Mixed("it samples one image at the points of another")
    return image


def transformed(call: Call) -> Value:
    """A grid of points for each sample."""
    layout = call.of(call["theta"])
    if layout is not None and layout.dim != 0:
        raise Mixed("it works over the batch")
    return layout


REDUCTIONS = (
    "sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "prod", "var",
    "std", "var_mean", "std_mean", "logsumexp", "norm", "linalg_vector_norm", "count_nonzero",
    "median", "nanmedian", "mode", "kthvalue", "nansum", "nanmean", "aminmax",
)  # fmt: skip
LINES = (
    "softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "cummax", "cummin",
    "logcumsumexp", "sort", "argsort", "topk", "flip", "roll", "diff", "glu", "unfold",
    "_safe_softmax", "linalg_cross", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_fftn",
    "fft_rfftn", "fft_irfftn", "fft_ifftn", "fft_fft2", "fft_rfft2", "fft_irfft2", "fft_ifft2",
    "_fft_r2c", "_fft_c2r", "_fft_c2c", "softmin",
)  # fmt: skip
ON_LAST = {
    1: ("view_as_complex", "adaptive_avg_pool1d", "avg_pool1d", "max_pool1d", "upsample_linear1d",
        "upsample_nearest1d", "adaptive_max_pool1d", "_upsample_nearest_exact1d"),
    2: ("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d", "max_pool2d",
        "max_pool2d_with_indices", "adaptive_max_pool2d", "upsample_nearest2d",
        "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d",
        "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "col2im"),
    3: ("adaptive_avg_pool3d", "_adaptive_avg_pool3d", "avg_pool3d", "max_pool3d",
        "max_pool3d_with_indices", "adaptive_max_pool3d", "upsample_nearest3d",
        "upsample_trilinear3d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col"),
}  # fmt: skip
# What PyTorch does not tag as pointwise, and is.
ELEMENTWISE = (
    "__and__", "__or__", "__xor__", "masked_fill", "hardswish", "log_sigmoid_forward",
    "_prelu_kernel", "floor_divide", "polar", "complex", "real", "imag", "conj", "_conj",
    "resolve_conj", "resolve_neg", "rsub", "true_divide", "divide", "multiply", "subtract",
    "special_expit", "special_erf", "special_log1p", "ldexp", "isclose", "absolute", "isreal",
    "log_sigmoid",
)  # fmt: skip
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                "conv_transpose3d", "convolution")  # fmt: skip

RULES: dict[str, ProofRule] = {
    **dict.fromkeys(REDUCTIONS, reduced),
    **dict.fromkeys(LINES, along),
    **{name: _last(count) for count, names in ON_LAST.items() for name in names},
    **dict.fromkeys(CONVOLUTIONS, convolved),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), normalised),
    **dict.fromkeys(("group_norm", "native_group_norm"), group_normalised),
    **dict.fromkeys(
        ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_batch_norm_no_update",
         "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), batch_normalised
    ),
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "where": chosen,
    "prelu": rectified,
    "instance_norm": instance_normalised,
    "linear": linear,
    "mm": _product_of("self", "mat2"),
    "bmm": _product_of("self", "mat2"),
    "matmul": _product_of("self", "other"),
    "mv": _product_of("self", "vec"),
    "addmm": _product_of("mat1", "mat2", "self"),
    "baddbmm": _product_of("batch1", "batch2", "self"),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "lstm": recurrent,
    "gru": recurrent,
    "rnn_tanh": recurrent,
    "rnn_relu": recurrent,
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
    "cosine_similarity": similar,
    "bilinear": bilinear,
    "stft": windowed,
    "cdist": distances,
    "_cdist_forward": distances,
    "grid_sampler": grid_sampled,
    "grid_sampler_2d": grid_sampled,
    "grid_sampler_3d": grid_sampled,
    "affine_grid_generator": transformed,
}  # fmt: skip
