"""Rules of arithmetic: reductions, functions along lines, products, spectra and distances."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.proof.values import (
    Call,
    Mixed,
    ProofRule,
    Value,
    aligned,
    away,
    constant,
    elementwise,
    tensors,
    without,
)


def reduced(call: Call) -> Value:
    """A reduction over some dimensions; the batch's must not be among them."""
    source = call.node.args[0]
    assert isinstance(source, fx.Node)
    layout, rank = call.of(source), call.rank(source)
    if layout is None:
        return None
    dims = call.args.get("dim")
    gone = away(layout, None if dims is None or dims == [] else dims, rank)
    return layout if call.args.get("keepdim", False) else without(layout, gone)


def along(call: Call) -> Value:
    """A function of whole lines along some dimensions; the batch's must not be among them."""
    source = call.node.args[0]
    assert isinstance(source, fx.Node)
    layout, rank = aligned(call, [*call.args.values()], call.rank(source)), call.rank(source)
    dims = call.args.get("dim", call.args.get("dims", call.args.get("dimension")))
    away(layout, None if dims is None or dims == [] else dims, rank)
    return layout


def chosen(call: Call) -> Value:
    """where: element by element one of two; with the condition alone it would list places."""
    if "self" not in call.args:
        raise Mixed("how much it returns depends on values")
    return elementwise(call)


def _last(count: int) -> ProofRule:
    """The rule for a function of the last `count` dimensions that treats the others entry by
    entry.
    """

    def rule(call: Call) -> Value:
        source = call.node.args[0]
        assert isinstance(source, fx.Node)
        layout, rank = call.of(source), call.rank(source)
        if any(call.of(n) is not None for n in tensors(call.node.args[1:])):
            raise Mixed("it works with more than one value of the samples")
        away(layout, [*range(-count, 0)], rank)
        return layout

    return rule


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
    """Where the samples are in a product with a vector, whose one dimension is summed over."""
    if ranks[1] == 1 and b is None and a is not None and a.dim != ranks[0] - 1:
        return a
    if ranks[0] == 1 and a is None and b is not None and b.dim != ranks[1] - 2:
        return replace(b, dim=b.dim - (b.dim > ranks[1] - 2))
    raise Mixed("it sums over the batch")


def _crossed() -> Layout | None:
    """Raise Mixed: the samples of two operands meet."""
    raise Mixed("it combines each sample with others")


def _product_of(first: str, second: str, added: str | None = None) -> ProofRule:
    """The rule for a product of the arguments `first` and `second`, to which `added` is added."""

    def rule(call: Call) -> Value:
        layout = product(call, call[first], call[second])
        if added is None:
            return layout
        extra = aligned(call, [call[added]], len(call.result().shape))
        return layout if extra is None or extra == layout else _crossed()

    return rule


def einsum(call: Call) -> Value:
    """The letter of the batch must be the same in every operand with samples, and must be kept."""
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


def similar(call: Call) -> Value:
    """The angle between two vectors along a dimension, which is removed."""
    rank = max(call.rank(call["x1"]), call.rank(call["x2"]))
    layout = aligned(call, [call["x1"], call["x2"]], rank)
    return without(layout, away(layout, call["dim"], rank))


def windowed(call: Call) -> Value:
    """The spectrum of stretches of each row's last dimension."""
    layout, rank = call.of(call["self"]), call.rank(call["self"])
    constant(call, "window")
    away(layout, -1, rank)
    return layout


def distances(call: Call) -> Value:
    """The distances between the rows of two matrices of each sample."""
    first, second = call["x1"], call["x2"]
    a, b, ranks = call.of(first), call.of(second), (call.rank(first), call.rank(second))
    if a is not None and b is None and a.dim == ranks[0] - 2 and ranks[0] == ranks[1]:
        return a
    layout = aligned(call, [first, second], max(ranks))
    away(layout, [-1, -2], max(ranks))
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
# Operations that work element by element, though PyTorch does not tag them as pointwise.
ELEMENTWISE = (
    "__and__", "__or__", "__xor__", "masked_fill", "hardswish", "log_sigmoid_forward",
    "_prelu_kernel", "floor_divide", "polar", "complex", "real", "imag", "conj", "_conj",
    "resolve_conj", "resolve_neg", "rsub", "true_divide", "divide", "multiply", "subtract",
    "special_expit", "special_erf", "special_log1p", "ldexp", "isclose", "absolute", "isreal",
    "log_sigmoid",
)  # fmt: skip

RULES: dict[str, ProofRule] = {
    **dict.fromkeys(REDUCTIONS, reduced),
    **dict.fromkeys(LINES, along),
    **{name: _last(count) for count, names in ON_LAST.items() for name in names},
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "where": chosen,
    "mm": _product_of("self", "mat2"),
    "bmm": _product_of("self", "mat2"),
    "matmul": _product_of("self", "other"),
    "mv": _product_of("self", "vec"),
    "addmm": _product_of("mat1", "mat2", "self"),
    "baddbmm": _product_of("batch1", "batch2", "self"),
    "einsum": einsum,
    "cosine_similarity": similar,
    "stft": windowed,
    "cdist": distances,
    "_cdist_forward": distances,
}  # fmt: skip
