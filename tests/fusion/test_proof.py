"""Which graphs prove that the samples of a batch are apart, and at which operation others end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spacetime.fusion import CannotExport, Doubt, doubt, export

ROW, PICTURE, IDS = torch.randn(1, 6), torch.randn(1, 3, 8, 8), torch.randint(0, 9, (1, 5))


class Of(nn.Module):
    """A function of one tensor as a model, with the layers it uses."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.layers)


def found(function: Callable[..., Any], x: Tensor, *layers: nn.Module) -> Doubt | None:
    return doubt(export(Of(function, *layers).eval(), (x,)))


def count(x: Tensor) -> int:
    return x.shape[0]


# With the operation that ends the proof; None where torch.export may refuse it before.
MIXED: dict[str, tuple[str | None, Callable[..., Any], Tensor]] = {
    "centred over the batch": ("mean", lambda x: x - x.mean(0, keepdim=True), ROW),
    "shares of a total": ("sum", lambda x: x / x.sum(), ROW),
    "softmax of samples": ("softmax", lambda x: x.softmax(0), ROW),
    "reversed": ("flip", lambda x: x.flip(0), ROW),
    "the sample before": ("roll", lambda x: x.roll(1, 0), ROW),
    "running sum": ("cumsum", lambda x: x.cumsum(0), ROW),
    "sorted samples": ("sort", lambda x: x.sort(0)[0], ROW),
    "divided by how many": ("div", lambda x: x / count(x), ROW),
    "its number added": ("add", lambda x: x + torch.arange(count(x))[:, None], ROW),
    "all pairs": ("matmul", lambda x: x @ x.T @ x, ROW),
    "columns as rows": (None, lambda x: x.T.reshape(count(x), -1), ROW),
    "the largest of all": ("max", lambda x: x * x.max(), ROW),
    "the first sample": ("select", lambda x: x + x[0], ROW),
    "the first as a slice": ("slice", lambda x: x + x[:1], ROW),
    "the last": ("slice", lambda x: x - x[-1:], ROW),
    "gathered across": ("gather", lambda x: x.gather(0, (x > 0).long()), ROW),
    "looked up across": ("index", lambda x: x[(x[:, 0] > 0).long()], ROW),
    "batch norm without statistics": (
        "batch_norm", lambda x: F.batch_norm(x, None, None, training=True), PICTURE
    ),
    "noise": ("rand_like", lambda x: x + torch.rand_like(x), ROW),
    "outer product summed": ("mul", lambda x: (x[:, None] * x[None]).sum(1), ROW),
    "einsum over pairs": ("einsum", lambda x: torch.einsum("bi,ci->bi", x, x), ROW),
    "norm of all": ("norm", lambda x: x / x.norm(), ROW),
    "any of all": ("any", lambda x: x * (x > 3).any(), ROW),
    "attention among samples": (
        "attention", lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0], ROW
    ),
    "scattered across": (
        "scatter", lambda x: torch.zeros_like(x).scatter(0, (x > 0).long() * 0, x), ROW
    ),
    "shifted by one": (None, lambda x: torch.cat([x[1:], x[:1]]), ROW),
    "convolved along the batch": (
        "conv1d", lambda x: F.conv1d(x.T[None], torch.ones(6, 6, 3), padding=1)[0].T, ROW
    ),
    "distances among samples": (None, lambda x: torch.cdist(x, x).sum(1, keepdim=True), ROW),
    "two copies dealt out": ("view", lambda x: x.repeat(2, 1).view(count(x), 12), ROW),
    "filled with how many": ("full", lambda x: x + torch.full((count(x), 6), count(x)), ROW),
    "classes counted": (None, lambda x: F.one_hot((x > 0).long())[:, :, 0].float(), ROW),
    "halves": (None, lambda x: torch.cat([x[: count(x) // 2], x[count(x) // 2 :]]), ROW),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_an_operation_that_mixes_samples_ends_the_proof(name: str) -> None:
    operation, function, x = MIXED[name]
    try:
        doubted = found(function, x)
    except CannotExport:
        assert operation is None
        return
    assert doubted is not None
    if operation is None:
        return
    assert operation in doubted.operation
    assert "\n" not in str(doubted)


def no_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


def changed(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 2] = 0
    y[:, 1:3] += 1
    return y


def windows(x: Tensor) -> Tensor:
    tiles = x.view(-1, 3, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 4, 4).softmax(-1)
    return tiles.view(-1, 2, 2, 3, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, 8, 8)


def sampled(x: Tensor) -> Tensor:
    turned = torch.eye(2, 3)[None].repeat(count(x), 1, 1)
    grid = F.affine_grid(turned, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


APART: dict[str, tuple[Any, ...]] = {
    "own maximum looked up": (lambda x: x[torch.arange(count(x)), x.argmax(1)], ROW),
    "own entry written": (
        lambda x: torch.zeros_like(x).index_put(
            (torch.arange(count(x)), x.argmax(1)), torch.ones(())
        ),
        ROW,
    ),
    "halves of features": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), ROW),
    "einsum": (lambda x: torch.einsum("bi,ij->bj", x, torch.ones(6, 3)), ROW),
    "batch norm that keeps statistics": (lambda x, n: n(x), PICTURE, nn.BatchNorm2d(3)),
    "instance norm": (F.instance_norm, PICTURE),
    "group norm": (lambda x: F.group_norm(x, 3), PICTURE),
    "windows": (windows, PICTURE),
    "a token before": (
        lambda x: torch.cat([torch.zeros(1, 6).expand(count(x), -1), x], 1), ROW
    ),
    "a token repeated": (
        lambda x: torch.cat([torch.zeros(1, 6).repeat(count(x), 1), x], 1), ROW
    ),
    "every sample twice, then folded": (lambda x: x.repeat_interleave(2, 0).view(-1, 12), ROW),
    "steps first": (lambda x: x.flatten(2).permute(2, 0, 1).softmax(0).permute(1, 2, 0), PICTURE),
    "a grid for each": (sampled, PICTURE),
    "bags": (lambda x, e: e(x), IDS, nn.EmbeddingBag(9, 4)),
    "assignments": (changed, ROW),
    "without gradients": (no_gradient, ROW),
    "patches": (lambda x: F.unfold(x, 2), PICTURE),
    "scores": (lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), ROW),
    "recurrent": (
        lambda x, g: g(x[:, None])[0], ROW, nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True)
    ),
    "heads, steps first": (
        lambda x, a: a(*[x.view(-1, 2, 3).transpose(0, 1)] * 3)[0].transpose(0, 1),
        ROW, nn.MultiheadAttention(3, 1),
    ),
    "spectrum": (lambda x: torch.fft.rfft(x).abs(), ROW),
    "pairs of features": (lambda x, b: b(x, x), ROW, nn.Bilinear(6, 6, 2)),
    "slopes": (lambda x, p: p(x), PICTURE, nn.PReLU(3)),
    "classes of a known number": (lambda x: F.one_hot((x > 0).long(), 2), ROW),
    "a step": (lambda x, c: c(x)[0], ROW, nn.LSTMCell(6, 3)),
    "a table gathered from": (
        lambda x: torch.arange(12.0).view(6, 2).gather(0, (x[:, :2] > 0).long()), ROW
    ),
    "entries taken": (lambda x: torch.arange(12.0).take((x > 0).long()), ROW),
    "angles": (lambda x: F.cosine_similarity(x, x * 2 + 1), ROW),
    "stretches of sound": (
        lambda x: torch.stft(x, 4, window=torch.ones(4), return_complex=True).abs(),
        torch.randn(1, 32),
    ),
    "gates": (lambda x: F.logsigmoid(x) * F.glu(F.hardswish(x).repeat(1, 2)), ROW),
    "response norm": (lambda x: F.local_response_norm(x, 2), PICTURE),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_an_operation_that_keeps_samples_apart_is_proven(name: str) -> None:
    function, x, *layers = APART[name]
    assert found(function, x, *layers) is None


def test_a_doubt_names_the_module_and_the_operation() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)).eval()
    doubted = doubt(export(model, (ROW,)))
    assert doubted is not None
    assert "'1' (BatchNorm1d)" in str(doubted)
    assert "normalises over the batch" in str(doubted)


def test_an_operation_without_a_rule_is_no_proof() -> None:
    library = torch.library.Library("proof_test", "DEF")
    try:
        library.define("softmax(Tensor x) -> Tensor")
        library.impl("softmax", lambda x: x.softmax(0), "CompositeExplicitAutograd")
        library.impl("softmax", torch.empty_like, "Meta")
        doubted = found(torch.ops.proof_test.softmax, ROW)
    finally:
        library._destroy()
    assert doubted is not None
    assert "no rule" in doubted.reason


def test_tied_to_no_size_of_batch() -> None:
    """A constant per sample is no dependence; a constant whose size is the batch's own is."""
    assert found(lambda x: x + torch.zeros(count(x), 6), ROW) is None
    assert found(lambda x: torch.eye(count(x)) @ x, ROW) is not None
