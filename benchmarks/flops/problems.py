"""What `bench flops` computes: one layer, R tenants with weights of their own, one request each.

Launches of one tenant are looped over in TorchScript: no interpreter between two launches. Two
kinds of launch compute the same: PyTorch's own operator, and oneDNN's with the weight laid out in
advance, which is what an optimised TorchScript program of one tenant consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spacetime.kernels.scripted import scripted


@scripted
def linear_loop(rows: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Launches once a tenant: rows [1, M, K], weights [N, K]."""
    return [F.linear(rows[i], weights[i]) for i in range(len(rows))]


@scripted
def convolution_loop(
    rows: list[Tensor], weights: list[Tensor], padding: int, groups: int
) -> list[Tensor]:
    """Launches once a tenant: rows [1, C, H, W], weights [O, C/groups, k, k]."""
    return [F.conv2d(rows[i], weights[i], None, 1, padding, 1, groups) for i in range(len(rows))]


@scripted
def packed_linear_loop(rows: list[Tensor], packed: list[Tensor]) -> list[Tensor]:
    """Does linear_loop with weights from LayerProblem.packed."""
    return [
        torch.ops.mkldnn._linear_pointwise(rows[i], packed[i], None, "none", [], "")
        for i in range(len(rows))
    ]


@scripted
def packed_convolution_loop(
    rows: list[Tensor], packed: list[Tensor], padding: int, groups: int
) -> list[Tensor]:
    """Does convolution_loop with weights from LayerProblem.packed."""
    return [
        torch.ops.mkldnn._convolution_pointwise(
            rows[i], packed[i], None, [padding, padding], [1, 1], [1, 1], groups, "none", [], ""
        )
        for i in range(len(rows))
    ]


@dataclass(frozen=True, slots=True)
class LayerProblem:
    """A linear layer or a 'same' convolution without bias; shapes without the batch dimension."""

    name: str
    request: tuple[int, ...]  # [M, K] or [C, H, W]
    weight: tuple[int, ...]  # [N, K] or [O, C/groups, k, k]
    groups: int = 1

    @property
    def convolves(self) -> bool:
        """Whether the layer is a convolution."""
        return len(self.weight) == 4

    @property
    def padding(self) -> int:
        """The padding that keeps a convolution's output as large as its input."""
        return self.weight[-1] // 2

    @property
    def flop(self) -> int:
        """Floating-point operations of one request: two for each multiply-add."""
        positions = prod(self.request[1:]) if self.convolves else self.request[0]
        return 2 * prod(self.weight) * positions

    def layer(self) -> nn.Module:
        """Returns the layer as a module."""
        if not self.convolves:
            return nn.Linear(self.weight[1], self.weight[0], bias=False)
        outputs, _, k, _ = self.weight
        return nn.Conv2d(
            self.request[0], outputs, k, padding=self.padding, groups=self.groups, bias=False
        )

    def one(self, x: Tensor, weight: Tensor) -> Tensor:
        """Does one launch: S requests `[S, ...]` with one tenant's weight."""
        if self.convolves:
            return F.conv2d(x, weight, padding=self.padding, groups=self.groups)
        return F.linear(x, weight)

    def loop(self, rows: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        """Does R launches, one after the other: rows `[1, ...]`, a weight each."""
        if self.convolves:
            return convolution_loop(rows, weights, self.padding, self.groups)
        return linear_loop(rows, weights)

    def packed(self, weight: Tensor) -> Tensor:
        """Returns a weight in oneDNN's layout, for packed_loop."""
        pad, one, size = [self.padding] * 2, [1, 1], [1, *self.request]
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        packed: Tensor = (
            reorder(weight.to_mkldnn(), pad, one, one, self.groups, size)
            if self.convolves
            else torch.ops.mkldnn._reorder_linear_weight(weight, self.request[0])
        )
        return packed

    def packed_loop(self, rows: list[Tensor], packed: list[Tensor]) -> list[Tensor]:
        """Does `loop` with packed weights."""
        if self.convolves:
            return packed_convolution_loop(rows, packed, self.padding, self.groups)
        return packed_linear_loop(rows, packed)


def gemm(name: str, *, m: int, n: int, k: int) -> LayerProblem:
    """Returns the product of an M x K request and a tenant's K x N matrix."""
    return LayerProblem(name, (m, k), (n, k))


def convolution(name: str, channels: tuple[int, int], *, side: int, k: int) -> LayerProblem:
    """Returns a convolution of `side` x `side` pixels, kernel k x k, by channels in and out."""
    inputs, outputs = channels
    return LayerProblem(name, (inputs, side, side), (outputs, inputs, k, k))


def depthwise(name: str, channels: int, *, side: int, k: int) -> LayerProblem:
    """Returns a convolution of each channel by itself."""
    return LayerProblem(name, (channels, side, side), (channels, 1, k, k), groups=channels)


# The three matrix shapes are those of D-STS (arXiv 1901.00041, Table 1; its mat-vec M=512 N=1 is
# one request row times a 512 x 512 matrix); the convolutions are from
# ResNet-50, from the digits' small ResNet (3x3-32-8) and from MobileNetV2 (depthwise).
PROBLEMS: dict[str, LayerProblem] = {
    problem.name: problem
    for problem in (
        gemm("conv2_2", m=256, n=128, k=1152),
        gemm("rnn", m=1, n=512, k=512),
        gemm("square", m=256, n=256, k=256),
        convolution("3x3-64-56", (64, 64), side=56, k=3),
        convolution("3x3-128-28", (128, 128), side=28, k=3),
        convolution("3x3-256-14", (256, 256), side=14, k=3),
        convolution("3x3-512-7", (512, 512), side=7, k=3),
        convolution("1x1-64-256-56", (64, 256), side=56, k=1),
        convolution("1x1-512-2048-7", (512, 2048), side=7, k=1),
        convolution("3x3-32-8", (32, 32), side=8, k=3),
        depthwise("depthwise-144-28", 144, side=28, k=3),
    )
}


def packs() -> bool:
    """Whether this PyTorch has oneDNN, which packed launches and its products need."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def peak_candidates(side: int) -> dict[str, Callable[[], object]]:
    """Returns large square products by the libraries PyTorch holds: 2 * side^3 operations each."""
    a, b, out = (torch.randn(side, side) for _ in range(3))
    candidates: dict[str, Callable[[], object]] = {"mm": lambda: torch.mm(a, b, out=out)}
    if packs():
        product = torch.ops.mkldnn._linear_pointwise
        candidates["oneDNN"] = lambda: product(a, b, None, "none", [], "")
    return candidates
