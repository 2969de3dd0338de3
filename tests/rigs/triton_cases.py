"""The Triton kernels against their plain twins, in Triton's interpreter.

Run by test_kernels_triton in a process of its own, with TRITON_INTERPRET set before the import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.runtime import interpreter

from spacetime.kernels import reference
from spacetime.kernels.triton.boxes import Box, convolve_boxes
from spacetime.kernels.triton.configs import Config
from spacetime.kernels.triton.convolution import convolve_triton
from spacetime.kernels.triton.linear import linear_triton

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RUN = torch.tensor(-1)  # a kernel that takes rows in any order does not look at it
ROWS = [[0], [1, 1, 1], [3, 3, 0, 3, 1], [0, 1, 2, 3, 3, 2, 1]]
CONFIGS = [Config(16, 16, 16), Config(64, 32, 32), Config(32, 16, 16, splits=3)]
ACTIVATIONS = {
    "none": lambda v: v,
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
}

_dot = interpreter.InterpreterBuilder.create_dot


def _exact_dot(self, a, b, d, *options):  # type: ignore[no-untyped-def]
    """The interpreter keeps bfloat16 as its bits and would multiply those: widen them first."""
    wide = [
        interpreter.TensorHandle((v.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
        if v.dtype.scalar.is_bf16() and v.data.dtype == np.uint16
        else v
        for v in (a, b)
    ]
    return _dot(self, *wide, d, *options)


interpreter.InterpreterBuilder.create_dot = _exact_dot
# A third of the time: every sum of indices is made in int64 too, which none of these can need.
interpreter.interpreter_builder.options = replace(
    interpreter.interpreter_builder.options, sanitize_overflow=False
)


def stack(rows: int, *shape: int, dtype: torch.dtype, used: Sequence[int]) -> Tensor:
    """stack: random weights in an arena whose rows are far apart; NaN wherever nobody may read."""
    size = math.prod(shape)
    arena = torch.full((rows, 2 * size + 3), math.nan, dtype=dtype)
    for row in set(used):
        arena[row, :size] = torch.randn(size).to(dtype)
    return arena[:, :size].unflatten(1, shape)


def agree(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """agree: up to the rounding of the type, and of sums in float32."""
    assert got.dtype == dtype
    eps = max(torch.finfo(dtype).eps, 1e-6)
    torch.testing.assert_close(got.double(), want, rtol=4 * eps, atol=8 * eps)


def plain_linear(rows: Sequence[int], x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    x, w, b = x.double(), w.double(), None if b is None else b.double()
    each = [
        reference.linear(x[s].numpy(), w[r].numpy(), None if b is None else b[r].numpy())
        for s, r in enumerate(rows)
    ]
    return torch.from_numpy(np.stack(each))


def plain_convolution(
    rows: Sequence[int],
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    *geometry: Sequence[int],
    groups: int,
) -> Tensor:
    per_slot = x.shape[0] // len(rows)
    stride, padding, dilation = map(tuple, geometry)
    each = [
        reference.convolve(
            x[n].double().numpy(),
            w[rows[n // per_slot]].double().numpy(),
            None if b is None else b[rows[n // per_slot]].double().numpy(),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        for n in range(x.shape[0])
    ]
    return torch.from_numpy(np.stack(each))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("points", [1, 5, 20])
def test_linear(rows: list[int], config: Config, points: int) -> None:
    x = torch.randn(len(rows), points, 50)
    w = stack(4, 21, 50, dtype=x.dtype, used=rows)
    b = stack(4, 21, dtype=x.dtype, used=rows)
    for bias in (b, None):
        got = linear_triton(torch.tensor(rows), RUN, x, w, bias, sms=2, config=config)
        agree(got, plain_linear(rows, x, w, bias), x.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("splits", [1, 2])
def test_epilogue_and_types(dtype: torch.dtype, activation: str, splits: int) -> None:
    rows = [2, 0, 2]
    x, kept = torch.randn(3, 2, 3, 33).to(dtype), torch.randn(3, 2, 3, 7).to(dtype)
    w = stack(3, 7, 33, dtype=dtype, used=rows)
    b = stack(3, 7, dtype=dtype, used=rows)
    config = Config(16, 16, 16, splits=splits)
    options = {"residual": kept, "activation": activation, "sms": 3, "config": config}
    got = linear_triton(torch.tensor(rows), RUN, x, w, b, **options)
    want = ACTIVATIONS[activation](plain_linear(rows, x, w, b) + kept.double())
    agree(got, want, dtype)


def test_the_best_guess_is_taken_without_a_config() -> None:
    x, w = torch.randn(2, 3, 40), stack(2, 18, 40, dtype=torch.float32, used=[1, 0])
    got = linear_triton(torch.tensor([1, 0]), RUN, x, w, None, sms=4)
    agree(got, plain_linear([1, 0], x, w, None), x.dtype)


def test_nothing_is_launched_for_nothing() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert linear_triton(
        none, RUN, torch.empty(0, 3, 5), torch.empty(2, 4, 5), None, sms=1
    ).shape == (0, 3, 4)
    y = convolve_triton(
        none, RUN, torch.empty(0, 3, 5, 5), torch.empty(2, 4, 3, 3, 3), None, [2], [1], sms=1
    )
    assert y.shape == (0, 4, 3, 3)


def test_a_tenant_with_nan_spoils_only_its_own_slots() -> None:
    x, w = torch.randn(6, 1, 32), torch.randn(3, 16, 32)
    w[1] = math.nan
    x[4] = math.inf
    rows = [0, 1, 2, 1, 0, 0]
    got = linear_triton(torch.tensor(rows), RUN, x, w, None, sms=1, config=CONFIGS[0])
    assert got.isfinite().all(2).flatten().tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("rows", ROWS[1:3])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("geometry", "groups"),
    [
        (((1, 1), (1, 1), (1, 1)), 1),
        (((2, 1), (0, 2), (1, 2)), 1),
        (((1, 2), (2, 1), (2, 1)), 2),
    ],
)
def test_convolution(
    rows: list[int], config: Config, geometry: tuple[tuple[int, int], ...], groups: int
) -> None:
    x = torch.randn(len(rows), 4, 5, 6)
    w = stack(4, 6, 4 // groups, 3, 2, dtype=x.dtype, used=rows)
    b = stack(4, 6, dtype=x.dtype, used=rows)
    got = convolve_triton(torch.tensor(rows), RUN, x, w, b, *geometry, groups, sms=2, config=config)
    agree(got, plain_convolution(rows, x, w, b, *geometry, groups=groups), x.dtype)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    draw = data.draw
    tenants = draw(st.integers(1, 4))
    rows = draw(st.lists(st.integers(0, tenants - 1), min_size=1, max_size=5))
    groups, inner = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 17]))
    outer = draw(st.integers(1, 3))
    kernel, stride, dilation = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (3, 3, 2))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    size = draw(st.tuples(st.integers(5, 8), st.integers(5, 8)))
    dtype = draw(st.sampled_from(DTYPES))
    samples = len(rows) * draw(st.integers(1, 2))
    x = torch.randn(samples, groups * inner, *size).to(dtype)
    w = stack(tenants, outer * groups, *kernel, inner, dtype=dtype, used=rows).movedim(4, 2)
    if draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    else:
        w = stack(tenants, outer * groups, inner, *kernel, dtype=dtype, used=rows)
    if draw(st.booleans()):
        x = torch.randn(samples, 2 * groups * inner, *size).to(dtype)[:, ::2]
    bias = draw(st.booleans())
    b = stack(tenants, outer * groups, dtype=dtype, used=rows) if bias else None
    config = draw(st.sampled_from(CONFIGS))
    shape = (stride, padding, dilation)
    want = plain_convolution(rows, x, w, b, *shape, groups=groups)
    kept = torch.randn(want.shape).to(dtype)
    got = convolve_triton(
        torch.tensor(rows), RUN, x, w, b, *shape, groups,
        residual=kept, activation="relu", sms=draw(st.integers(1, 3)), config=config,
    )  # fmt: skip
    agree(got, F.relu(want + kept.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"),
    [((3, 3), (1, 1), (1, 1)), ((3, 2), (0, 2), (2, 1)), ((1, 1), (0, 0), (1, 1))],
)
def test_boxes(
    dtype: torch.dtype,
    samples: int,
    kernel: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Boxes that hang over every side of the image, whose outside is zero and nobody's weights."""
    rows = [3, 0, 3]
    x = torch.randn(3 * samples, 64, 7, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    size = 21 * kernel[0] * kernel[1] * 64
    arena = torch.full((4, size + 64), math.nan, dtype=dtype)
    arena[[0, 3], :size] = torch.randn(2, size).to(dtype)
    w = arena[:, :size].unflatten(1, (21, *kernel, 64)).movedim(4, 2)
    b = stack(4, 21, dtype=dtype, used=rows)
    want = plain_convolution(rows, x, w, b, (1, 1), padding, dilation, groups=1)
    kept = torch.randn(want.shape).to(dtype)
    got = convolve_boxes(
        torch.tensor(rows), RUN, x, w, b, padding, dilation,
        box=Box(4, 4, 16, 32, 4, 2), residual=kept, activation="relu", sms=2,
    )  # fmt: skip
    agree(got, F.relu(want + kept.double()), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_channel", [1, 2])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("last", [True, False])
def test_depthwise(dtype: torch.dtype, per_channel: int, samples: int, last: bool) -> None:
    rows = [1, 3, 1]
    x = torch.randn(3 * samples, 10, 7, 6).to(dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    w = stack(4, 10 * per_channel, 1, 3, 2, dtype=dtype, used=rows)
    b = stack(4, 10 * per_channel, dtype=dtype, used=rows)
    shape = ((2, 1), (1, 0), (1, 2))
    want = plain_convolution(rows, x, w, b, *shape, groups=10)
    kept = torch.randn(want.shape).to(dtype)
    for bias, config in ((b, None), (None, Config(8, 16))):
        want = plain_convolution(rows, x, w, bias, *shape, groups=10)
        got = convolve_triton(
            torch.tensor(rows), RUN, x, w, bias, *shape, 10,
            residual=kept, activation="relu6", sms=2, config=config,
        )  # fmt: skip
        agree(got, F.relu6(want + kept.double()), dtype)
        assert got.is_contiguous(memory_format=torch.channels_last)
