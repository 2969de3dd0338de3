"""Super-kernels against their plain twins, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spacetime.kernels import onednn, reference
from spacetime.kernels.convolution import convolve_each, convolve_grouped, convolve_unfolded
from spacetime.kernels.embedding import embed_table
from spacetime.kernels.linear import linear_batched, linear_each
from spacetime.kernels.normalisation import affine
from spacetime.kernels.pointwise import convolve_pointwise
from spacetime.kernels.slots import locate, pick, run_of, spread, take

LINEAR = [linear_batched, linear_each, *([onednn.linear_onednn] if onednn.available else [])]
POINTWISE = [
    convolve_pointwise,
    *([onednn.convolve_pointwise_onednn] if onednn.available else []),
]
ROWS = [[0], [2, 0, 1], [1, 2, 3], [3, 3, 0, 3, 1]]


def slots_of(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    r = torch.tensor(rows)
    return r, run_of(r)


@pytest.mark.parametrize("rows", ROWS)
def test_take_is_a_view_only_of_a_run(rows: list[int]) -> None:
    stack = torch.randn(4, 3, 2)
    r, run = slots_of(rows)
    got = take(stack, r, run)
    assert torch.equal(got, stack[rows])
    consecutive = rows == list(range(rows[0], rows[0] + len(rows)))
    assert (got.untyped_storage().data_ptr() == stack.untyped_storage().data_ptr()) == consecutive


def test_locate_refuses_removed_tenants() -> None:
    table = torch.tensor([0, -1, 1])
    assert locate(table, torch.tensor([2, 0])).tolist() == [1, 0]
    with pytest.raises(torch.jit.Error, match="removed"):
        locate(table, torch.tensor([0, 1]))


def test_spread_and_pick() -> None:
    rows = torch.tensor([2, 0])
    assert spread(rows, 2, 3).tolist() == [2, 2, 2, 0, 0, 0] * 2
    assert pick(torch.arange(3), rows, 0).item() == 2


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [((1, 1), (1, 1), (1, 1)), ((2, 1), (0, 2), (1, 2))]
)
def test_convolution(
    rows: list[int],
    bias: bool,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    x = torch.randn(len(rows), 4, 5, 6)
    w = torch.randn(4, 6, 4, 3, 2)
    b = torch.randn(4, 6) if bias else None
    want = [
        reference.convolve(
            x[s].double().numpy(),
            w[row].double().numpy(),
            None if b is None else b[row].double().numpy(),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=1,
        )
        for s, row in enumerate(rows)
    ]
    shape = (list(stride), list(padding), list(dilation))
    r, run = slots_of(rows)
    for got in (
        convolve_each(r, run, x, w, b, *shape, False, [0, 0], 1),
        convolve_grouped(r, run, x, w, b, *shape, False, [0, 0], 1),
        convolve_unfolded(r, run, x, w, b, *shape),
    ):
        np.testing.assert_allclose(got.numpy(), np.stack(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [convolve_each, convolve_grouped])
def test_convolution_with_groups_and_several_samples_a_slot(kernel: object) -> None:
    assert callable(kernel)
    rows, run = slots_of([1, 0])
    x, w = torch.randn(4, 4, 7), torch.randn(3, 6, 2, 3)
    got = kernel(rows, run, x, w, None, [1], [1], [1], False, [0], 2)
    for sample, row in enumerate([1, 1, 0, 0]):
        want = reference.convolve(
            x[sample].double().numpy(),
            w[row].double().numpy(),
            None,
            stride=(1,),
            padding=(1,),
            dilation=(1,),
            groups=2,
        )
        np.testing.assert_allclose(got[sample].numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kernel", LINEAR)
@pytest.mark.parametrize("middle", [(), (3,), (2, 3)])
def test_linear(rows: list[int], kernel: object, middle: tuple[int, ...]) -> None:
    assert callable(kernel)
    x, w, b = torch.randn(len(rows), *middle, 5), torch.randn(4, 7, 5), torch.randn(4, 7)
    r, run = slots_of(rows)
    for bias in (b, None):
        got = kernel(r, run, x, w, bias)
        for s, row in enumerate(rows):
            want = reference.linear(
                x[s].double().numpy(),
                w[row].double().numpy(),
                None if bias is None else bias[row].double().numpy(),
            )
            np.testing.assert_allclose(got[s].numpy(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", POINTWISE)
@pytest.mark.parametrize("last", [True, False])
def test_pointwise_convolution(kernel: object, last: bool) -> None:
    assert callable(kernel)
    rows, run = slots_of([2, 0, 2])
    x, w, b = torch.randn(6, 4, 5, 3), torch.randn(3, 7, 4, 1, 1), torch.randn(3, 7)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    got = kernel(rows, run, x, w, b, [2, 1])
    for sample, row in enumerate([2, 2, 0, 0, 2, 2]):
        want = reference.convolve(
            x[sample].double().numpy(),
            w[row].double().numpy(),
            b[row].double().numpy(),
            stride=(2, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
        )
        np.testing.assert_allclose(got[sample].numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("per_slot", [1, 2])
def test_grouped_convolution_takes_weights_as_they_lie(per_slot: int) -> None:
    rows, run = slots_of([2, 0])
    x, w = torch.randn(2 * per_slot, 4, 5, 5), torch.randn(3, 6, 3, 3, 4).movedim(-1, 2)
    args = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    got = convolve_grouped(rows, run, x, w, None, *args)
    want = convolve_each(rows, run, x, w.contiguous(), None, *args)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_embedding() -> None:
    rows, run = slots_of([2, 0, 2])
    ids, w = torch.randint(0, 5, (3, 4)), torch.randn(3, 5, 2)
    got = embed_table(rows, run, ids, w)
    for s, row in enumerate([2, 0, 2]):
        assert np.array_equal(got[s].numpy(), reference.embed(ids[s].numpy(), w[row].numpy()))


def test_affine() -> None:
    rows, run = slots_of([1, 0])
    x, scale, shift = torch.randn(3, 2, 4), torch.randn(2, 4), torch.randn(2, 4)
    got = affine(rows, run, x, scale, shift, [-1, 1, 4], 1)
    for s, row in enumerate([1, 0]):
        torch.testing.assert_close(got[:, s], x[:, s] * scale[row] + shift[row])
    torch.testing.assert_close(
        affine(rows, run, x, None, shift, [-1, 1, 4], 1)[:, 0], x[:, 0] + shift[1]
    )
