"""2-d convolution over slots in Triton: x [S*k, C, H, W], weight stack [T, O, C / groups, kh, kw].

Operands may have any strides; channels last is the fastest for both. The output [S*k, O, OH, OW]
always lies channels last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .configs import Config, Precision
from .launch import ConvolutionGeometry, Epilogue, Launch, pair, prepare


def convolution_launches(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: ConvolutionGeometry,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: Precision = "tf32x3",
    sms: int | None = None,
    config: Config | None = None,
) -> tuple[Tensor, list[Launch]]:
    """The output of `convolve_triton`, not yet filled, and the launches that fill it."""
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    return prepare(
        rows,
        x,
        weight,
        geometry,
        Epilogue(bias, residual, activation),
        precision=precision,
        sms=sms,
        config=config,
    )


def convolve_triton(  # noqa: PLR0917 - positions as its siblings have them
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: Precision = "tf32x3",
    sms: int | None = None,
    config: Config | None = None,
) -> Tensor:
    """activation(each sample convolved with its slot's weight + bias + residual): [S*k, O, OH, OW].

    `rows`: int64 [S], in any order; `run` is not needed.
    `x`, `weight`: as above, with any strides.
    `bias`: stack [T, O], or None.
    `stride`, `padding`, `dilation`: one number each, or two, down and across.
    `groups`: as in torch.convolution; not for transposed convolutions.
    `residual`, `activation`, `precision`, `sms`, `config`: as in `linear_triton`.

    Raises ValueError for operands that the kernels do not take.
    """
    y, launches = convolution_launches(
        rows,
        x,
        weight,
        bias,
        ConvolutionGeometry(pair(stride), pair(padding), pair(dilation), groups),
        residual=residual,
        activation=activation,
        precision=precision,
        sms=sms,
        config=config,
    )
    for launch in launches:
        launch.run()
    return y
