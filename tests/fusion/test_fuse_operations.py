"""Every operation that owns parameters, fused, against one sample of one tenant at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fuse_models import Net, assert_equals_alone, tenants_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spacetime.fusion import CannotFuse, fuse

PICTURE, SEQUENCE, VECTOR = (4, 8, 8), (5, 6), (6,)
Make = Callable[[], nn.Module]


def weight(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


def only(make: Make) -> tuple[Any, dict[str, Any]]:
    """A network of one layer."""
    return lambda net, x: net.layer(x), {"layer": make}


def time_first(layer: Make) -> tuple[Any, dict[str, Any]]:
    """A layer that sees the samples as its second dimension."""
    return lambda net, x: net.layer(x.transpose(0, 1)).transpose(0, 1), {"layer": layer}


def assigned(x: Tensor, p: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = p
    y[:, 1] += p
    return y


FUSED: dict[str, tuple[tuple[Any, dict[str, Any]], tuple[int, ...]]] = {
    "conv1d": (only(lambda: nn.Conv1d(5, 6, 3, padding=1)), SEQUENCE),
    "conv2d-strided": (only(lambda: nn.Conv2d(4, 6, 3, stride=2, dilation=2)), PICTURE),
    "conv2d-depthwise": (only(lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False)), PICTURE),
    "conv2d-same": (
        only(lambda: nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 3))),
        PICTURE,
    ),
    "conv2d-valid": (only(lambda: nn.Conv2d(4, 6, 2, padding="valid")), PICTURE),
    "conv2d-reflect": (
        only(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")),
        PICTURE,
    ),
    "conv3d": (only(lambda: nn.Conv3d(2, 4, 3, padding=1, groups=2)), (2, 4, 4, 4)),
    "transposed1d": (only(lambda: nn.ConvTranspose1d(5, 6, 3, stride=2)), SEQUENCE),
    "transposed2d": (
        only(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)),
        PICTURE,
    ),
    "transposed2d-groups": (only(lambda: nn.ConvTranspose2d(4, 6, 3, groups=2)), PICTURE),
    "transposed3d": (only(lambda: nn.ConvTranspose3d(2, 4, 3)), (2, 4, 4, 4)),
    "frames": (
        (
            lambda n, x: n.c(x.flatten(0, 1)).unflatten(0, (-1, 3)),
            {"c": lambda: nn.Conv2d(4, 2, 3)},
        ),
        (3, *PICTURE),
    ),
    "frames-time-first": (
        (
            lambda n, x: n.c(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (3, -1)).transpose(0, 1),
            {"c": lambda: nn.Conv2d(4, 2, 3)},
        ),
        (3, *PICTURE),
    ),
    "linear": (only(lambda: nn.Linear(6, 3)), VECTOR),
    "linear-sequence": (only(lambda: nn.Linear(6, 3, bias=False)), SEQUENCE),
    "linear-time-first": (time_first(lambda: nn.Linear(6, 3)), SEQUENCE),
    "linear-flattened": (
        (lambda n, x: n.l(x.reshape(-1, 6)).reshape(-1, 5, 3), {"l": lambda: nn.Linear(6, 3)}),
        SEQUENCE,
    ),
    "linear-flattened-time-first": (
        (
            lambda n, x: (
                (n.l(x.transpose(0, 1).reshape(-1, 6)) + n.p).reshape(5, -1, 3).transpose(0, 1)
            ),
            {"l": lambda: nn.Linear(6, 3), "p": weight(3)},
        ),
        SEQUENCE,
    ),
    "windows": (
        (
            lambda n, x: n.n(
                n.l(x.view(-1, 4, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 4))
            ).view(-1, 2, 2, 4, 4, 4),
            {"l": lambda: nn.Linear(4, 4), "n": lambda: nn.LayerNorm(4)},
        ),
        PICTURE,
    ),
    "matmul": ((lambda n, x: x @ n.w, {"w": weight(6, 3)}), SEQUENCE),
    "addmm": (
        (lambda n, x: torch.addmm(n.b, x, n.w), {"w": weight(6, 3), "b": weight(3)}),
        VECTOR,
    ),
    "weight-norm": (
        only(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))),
        SEQUENCE,
    ),
    "attention": (
        (
            lambda n, x: n.m(x, x, x)[0],
            {"m": lambda: nn.MultiheadAttention(6, 2, batch_first=True)},
        ),
        SEQUENCE,
    ),
    "attention-time-first": (
        (
            lambda n, x: n.m(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1),
            {"m": lambda: nn.MultiheadAttention(6, 2, add_bias_kv=True)},
        ),
        SEQUENCE,
    ),
    "encoder": (
        only(lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)),
        SEQUENCE,
    ),
    "batch-norm": (only(lambda: nn.BatchNorm2d(4)), PICTURE),
    "batch-norm-plain": (only(lambda: nn.BatchNorm2d(4, affine=False)), PICTURE),
    "batch-norm-after-linear": (
        only(lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5))),
        SEQUENCE,
    ),
    "layer-norm": (only(lambda: nn.LayerNorm((5, 6), bias=False)), SEQUENCE),
    "layer-norm-time-first": (time_first(lambda: nn.LayerNorm(6)), SEQUENCE),
    "group-norm": (only(lambda: nn.GroupNorm(2, 4)), PICTURE),
    "instance-norm": (only(lambda: nn.InstanceNorm2d(4, affine=True)), PICTURE),
    "rms-norm": (only(lambda: nn.RMSNorm(6)), SEQUENCE),
    "prelu": (only(lambda: nn.PReLU(4)), PICTURE),
    "prelu-one": (only(nn.PReLU), SEQUENCE),
    "class-token": (
        (
            lambda n, x: torch.cat([n.c.expand(x.shape[0], -1, -1), x], 1) + n.p,
            {"c": weight(1, 1, 6), "p": weight(6, 6)},
        ),
        SEQUENCE,
    ),
    "class-token-repeated": (
        (lambda n, x: torch.cat([n.c.repeat(x.shape[0], 2, 1), x], 1), {"c": weight(1, 1, 6)}),
        SEQUENCE,
    ),
    "positions": (
        (lambda n, x: x + n.p[:, :5] * n.s, {"p": weight(1, 9, 6), "s": weight()}),
        SEQUENCE,
    ),
    "layer-scale": ((lambda n, x: x * n.s, {"s": weight(4, 1, 1)}), PICTURE),
    "time-first-scale": (
        (lambda n, x: (x.transpose(0, 1) * n.s).transpose(0, 1), {"s": weight(6)}),
        SEQUENCE,
    ),
    "position-bias": (
        (
            lambda n, x: F.scaled_dot_product_attention(*[x[:, None]] * 3, attn_mask=n.p),
            {"p": weight(1, 5, 5)},
        ),
        SEQUENCE,
    ),
}
FELL_BACK: dict[str, tuple[tuple[Any, dict[str, Any]], tuple[int, ...]]] = {
    "einsum": (
        (lambda n, x: torch.einsum("bnd,de->bne", x, n.w), {"w": weight(6, 3)}),
        SEQUENCE,
    ),
    "bilinear": (
        (lambda n, x: n.l(x, x), {"l": lambda: nn.Bilinear(6, 6, 3)}),
        VECTOR,
    ),
    "gru": (
        (lambda n, x: n.g(x)[0], {"g": lambda: nn.GRU(6, 4, batch_first=True)}),
        SEQUENCE,
    ),
    "lstm-cell": (only(lambda: nn.LSTMCell(6, 4)), VECTOR),
    "instance-norm-statistics": (
        only(lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        PICTURE,
    ),
    "assignment": ((lambda n, x: assigned(x, n.p), {"p": weight(6)}), SEQUENCE),
    "large-expression": (
        (
            lambda n, x: x @ (n.a[:, None] * n.b[None, :]),
            {"a": weight(6), "b": weight(300)},
        ),
        SEQUENCE,
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_equals_alone(name: str) -> None:
    (forward, parts), shape = FUSED[name]
    models = tenants_of(lambda: Net(forward, parts), 4)
    fused = assert_equals_alone(models, (torch.randn(2, *shape),))
    assert {row.how for row in fused.report.rows} == {"fused"}, str(fused.report)


@pytest.mark.parametrize("name", FELL_BACK)
def test_the_generic_rule_equals_alone_and_is_reported(name: str) -> None:
    (forward, parts), shape = FELL_BACK[name]
    models = tenants_of(lambda: Net(forward, parts), 4)
    fused = assert_equals_alone(models, (torch.randn(2, *shape),))
    rows = [row for row in fused.report.rows if row.how == "fell back"]
    assert rows
    assert all(row.reason and row.implementation for row in rows)


@pytest.mark.parametrize("inputs", [(2, 5), (2,)])
def test_embedding(inputs: tuple[int, ...]) -> None:
    models = tenants_of(lambda: nn.Embedding(9, 4, padding_idx=0), 4)
    assert_equals_alone(models, (torch.randint(0, 9, inputs),))


def test_tied_embedding_is_stacked_once() -> None:
    net = (lambda n, i: n.e(i) @ n.e.weight.t(), {"e": lambda: nn.Embedding(9, 4)})
    fused = assert_equals_alone(tenants_of(lambda: Net(*net), 4), (torch.randint(0, 9, (2, 5)),))
    assert fused.report.bytes_per_tenant == 9 * 4 * 4


def test_boolean_and_integer_inputs() -> None:
    net = (lambda n, x, m: torch.where(m[..., None], x * n.p, n.p), {"p": weight(6)})
    mask = torch.rand(2, 5) > 0.5
    assert_equals_alone(tenants_of(lambda: Net(*net), 4), (torch.randint(0, 9, (2, 5, 6)), mask))


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("fold", [True, False])
def test_batch_norm_after_convolution(layer: Any, fold: bool) -> None:
    make = lambda: nn.Sequential(layer(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())  # noqa: E731
    fused = assert_equals_alone(tenants_of(make, 4), (torch.randn(2, *PICTURE),), fold=fold)
    assert len(fused.report.rows) == (1 if fold else 2)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[int, ...]]:
    """A convolution's arguments and an input it fits."""
    groups = draw(st.sampled_from([1, 2, 3]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel = draw(pair)
    # A window of one is not dilated: PyTorch 2.13 can crash on the CPU where one is, with a stride.
    dilation = tuple(draw(st.integers(1, 2 if size > 1 else 1)) for size in kernel)
    arguments = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "kernel_size": kernel,
        "stride": draw(pair),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    least = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [draw(st.integers(n, 8)) for n in least]
    return arguments, (arguments["in_channels"], *size)


@settings(max_examples=12, deadline=None)
@given(convolutions())
def test_any_convolution(case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    arguments, shape = case
    models = tenants_of(lambda: nn.Conv2d(**arguments), 3)
    assert_equals_alone(models, (torch.randn(2, *shape),), indices=([1, 0, 2, 1],), script=False)


CANNOT: dict[str, tuple[Any, str]] = {
    "batch mean": (lambda n, x: n.l(x - x.mean(0)), "mean: .*whole batch"),
    "batch maximum": (lambda n, x: n.l(x / x.max()), "max.*: .*whole batch"),
    "gram matrix": (lambda n, x: n.l(x) @ x.t(), "holds the batch twice"),
    "cumulative sum": (lambda n, x: n.l(x.cumsum(0)), "works over the batch"),
    "weight output": (lambda n, x: (n.l(x), n.l.weight), "needs the batch as its first"),
    "turned output": (lambda n, x: n.l(x).t(), "needs the batch as its first"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_fused_is_refused_by_name(name: str) -> None:
    forward, reason = CANNOT[name]
    model = Net(forward, {"l": lambda: nn.Linear(6, 6)}).eval()
    with pytest.raises(CannotFuse, match=reason) as caught:
        fuse(model, [model.state_dict()], example_inputs=(torch.randn(2, 6),))
    assert "\n" not in str(caught.value)
