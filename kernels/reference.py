"""Plain twins of the super-kernels, in numpy, for one slot at a time: what tests compare with."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Array:
    """One sample [C, *space] convolved with one tenant's weight [O, C / groups, *kernel]."""
    pads = [(0, 0), *((p, p) for p in padding)]
    x = np.pad(x, pads)
    kernel = weight.shape[2:]
    space = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:], kernel, stride, dilation, strict=True)
    ]
    out = np.zeros((weight.shape[0], *space))
    inputs, outputs = weight.shape[1], weight.shape[0] // groups
    for o, at in product(range(weight.shape[0]), np.ndindex(*space)):
        first = o // outputs * inputs
        window = [
            slice(first, first + inputs),
            *(
                slice(i * s, i * s + d * (k - 1) + 1, d)
                for i, k, s, d in zip(at, kernel, stride, dilation, strict=True)
            ),
        ]
        place = (o, *at)
        out[place] = (x[tuple(window)] * weight[o]).sum()
    return out if bias is None else out + bias.reshape(-1, *[1] * len(space))


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """x [..., K] times one tenant's weight [N, K] transposed, plus its bias [N]."""
    y: Array = x @ weight.T
    return y if bias is None else y + bias


def embed(ids: NDArray[np.int64], weight: Array) -> Array:
    """The rows of one tenant's table [V, D] at `ids`."""
    rows: Array = weight[ids]
    return rows
