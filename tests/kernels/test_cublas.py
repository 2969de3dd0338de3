"""Products by pointer array against PyTorch's own layers, on a cuBLAS that counts columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from columns import Columns
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacetime.kernels import cublas
from spacetime.kernels.by_pointer import convolve_by_pointer, linear_by_pointer

RUN = torch.tensor(-1)
ROWS = [3, 3, 0, 3, 1]


def stack(rows: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """stack: random weights whose rows lie far apart in an arena, NaN between and in row 2."""
    size = math.prod(shape)
    arena = torch.full((rows, 2 * size + 64), math.nan, dtype=dtype)
    arena[:, :size] = torch.randn(rows, size).to(dtype)
    arena[2] = math.nan  # nobody's
    return arena[:, :size].unflatten(1, shape)


def agree(got: Tensor, want: Tensor) -> None:
    eps = max(torch.finfo(got.dtype).eps, 1e-6)
    torch.testing.assert_close(got.double(), want, rtol=4 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("middle", [(), (1,), (3, 2)])
def test_linear(dtype: torch.dtype, bias: bool, middle: tuple[int, ...]) -> None:
    by = Columns()
    x, w = torch.randn(5, *middle, 24).to(dtype), stack(4, 16, 24, dtype=dtype)
    b = stack(4, 16, dtype=dtype) if bias else None
    got = linear_by_pointer(torch.tensor(ROWS), RUN, x, w, b, by=by.library())
    each = [
        F.linear(x[s].double(), w[r].double(), None if b is None else b[r].double())
        for s, r in enumerate(ROWS)
    ]
    agree(got, torch.stack(each))
    assert len(by.calls) == 1
    assert by.calls[0]["count"] == 5


@pytest.mark.parametrize("last", [True, False])
def test_weights_are_read_where_they_lie(last: bool) -> None:
    """The address of each slot's weight is its row's own, whatever the order of the rows."""
    by = Columns()
    x = torch.randn(4, 8, 5, 5)
    w = stack(9, 6, 3, 3, 8).movedim(4, 2) if last else stack(9, 6, 8, 3, 3)
    rows, shape = torch.tensor([8, 0, 0, 5]), ([1, 1], [1, 1], [1, 1])
    convolve_by_pointer(rows, RUN, x, w, None, *shape, by=by.library())
    assert {w[row].data_ptr() for row in (8, 0, 5)} <= by.calls[0]["read"]


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("per_slot", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "geometry"),
    [
        ((1, 1), ((1, 1), (0, 0), (1, 1))),
        ((1, 1), ((2, 2), (0, 0), (1, 1))),
        ((1, 1), ((1, 1), (1, 1), (1, 1))),
        ((3, 3), ((1, 1), (1, 1), (1, 1))),
        ((3, 2), ((2, 1), (0, 2), (1, 2))),
    ],
)
def test_convolution(
    last: bool, per_slot: int, kernel: tuple[int, int], geometry: tuple[tuple[int, int], ...]
) -> None:
    x = torch.randn(5 * per_slot, 8, 7, 6)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
        w = stack(4, 12, *kernel, 8).movedim(4, 2)
    else:
        w = stack(4, 12, 8, *kernel)
    for b in (stack(4, 12), None):
        got = convolve_by_pointer(
            torch.tensor(ROWS), RUN, x, w, b, *geometry, by=Columns().library()
        )
        agree(got, alone(ROWS, x, w, b, *geometry))


def alone(
    rows: Sequence[int], x: Tensor, w: Tensor, b: Tensor | None, *geometry: Sequence[int]
) -> Tensor:
    per_slot = len(x) // len(rows)
    stride, padding, dilation = map(list, geometry)
    return torch.cat([
        F.conv2d(
            x[s * per_slot : (s + 1) * per_slot].double(), w[r].double(),
            None if b is None else b[r].double(), stride, padding, dilation,
        )
        for s, r in enumerate(rows)
    ])  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_any_matrices_that_lie_together(data: st.DataObject) -> None:
    """Rows or columns together, parts of larger ones, a single row or column, repeated inputs."""
    draw = data.draw
    many, points, inner, outer = (draw(st.integers(1, most)) for most in (4, 5, 6, 5))
    rows = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=many, max_size=many)))

    def laid(count: int, high: int, wide: int) -> Tensor:
        more = draw(st.integers(0, 2))
        if draw(st.booleans()):
            return torch.randn(count, high, wide + more)[:, :, :wide]
        return torch.randn(count, wide, high + more)[:, :, :high].transpose(1, 2)

    x, w, y = laid(many, points, inner), laid(3, outer, inner), laid(many, points, outer)
    if draw(st.booleans()):
        x = x[:1].expand(many, -1, -1)
    b = torch.randn(3, outer) if draw(st.booleans()) else None
    want = torch.bmm(x.double(), w[rows].double().transpose(1, 2))
    want = want if b is None else want + b[rows].double().unsqueeze(1)
    cublas.multiply(rows, x, w, b, y, by=Columns().library())
    agree(y, want)


def test_float32_is_rounded_only_where_that_is_allowed() -> None:
    by = Columns()
    x, w, rows = torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.tensor([0, 1])
    for tf32, compute in ((False, 68), (True, 77)):
        linear_by_pointer(rows, RUN, x, w, None, tf32=tf32, by=by.library())
        assert by.calls[-1]["compute"] == compute
        assert by.math == 0  # whatever PyTorch had left there
    half = x.bfloat16(), w.bfloat16()
    linear_by_pointer(rows, RUN, *half, None, tf32=True, by=by.library())
    assert by.calls[-1]["compute"] == 68


def test_what_fast_kernels_would_read_askew_is_refused() -> None:
    x, rows, by = torch.randn(2, 1, 9), torch.tensor([0, 1]), Columns().library()
    w = stack(3, 4, 9)
    linear_by_pointer(rows, RUN, x, w, None, by=by)  # exact float32 needs no more than its own size
    with pytest.raises(ValueError, match="on 16 bytes"):
        linear_by_pointer(rows, RUN, x, w, None, tf32=True, by=by)
    with pytest.raises(ValueError, match="on 16 bytes"):
        linear_by_pointer(rows, RUN, x.half(), w.half(), None, by=by)


def test_other_types_and_layouts_are_named() -> None:
    rows, by = torch.tensor([0]), Columns().library()
    with pytest.raises(ValueError, match="float64"):
        linear_by_pointer(rows, RUN, torch.ones(1, 2).double(), torch.ones(1, 3, 2), None, by=by)
    with pytest.raises(ValueError, match="neither by rows nor by columns"):
        cublas.multiply(
            rows, torch.ones(1, 4, 8)[:, ::2, ::2], torch.ones(1, 3, 4), None,
            torch.empty(1, 2, 3), by=by,
        )  # fmt: skip


def test_memory_of_another_device_is_never_named_to_it() -> None:
    elsewhere = cublas.Library(lambda *_: 0, lambda *_: 0, lambda: 1)
    with pytest.raises(ValueError, match="lies on cpu, must lie on a cuda device"):
        linear_by_pointer(
            torch.tensor([0]), RUN, torch.ones(1, 2), torch.ones(1, 3, 2), None, by=elsewhere
        )


def test_a_refusal_of_the_library_is_an_error() -> None:
    refuses = cublas.Library(lambda *_: 15, lambda *_: 0, lambda: 1, "cpu")
    with pytest.raises(RuntimeError, match="cublasGemmBatchedEx returned status 15"):
        linear_by_pointer(
            torch.tensor([0]), RUN, torch.ones(1, 2), torch.ones(1, 3, 2), None, by=refuses
        )


def test_nothing_is_asked_for_nothing() -> None:
    none, by = torch.empty(0, dtype=torch.int64), Columns()
    y = linear_by_pointer(
        none, RUN, torch.empty(0, 3, 5), torch.ones(2, 4, 5), None, by=by.library()
    )
    assert y.shape == (0, 3, 4)
    shape = ([1, 1], [1, 1], [1, 1])
    x, w = torch.empty(0, 3, 5, 5), torch.ones(2, 4, 3, 3, 3)
    assert convolve_by_pointer(none, RUN, x, w, None, *shape, by=by.library()).shape == (0, 4, 5, 5)
    assert not by.calls


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built for CUDA")
def test_without_a_cuda_build_of_pytorch_the_reason_is_said() -> None:
    assert "built without CUDA" in cublas.why_missing()
