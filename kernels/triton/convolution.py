"""2-d convolution over slots in Triton: x [S*k, C, H, W], weight stack [T, O, C/groups, kh, kw].

Operands may have any strides, channels last being the fastest for both; the output
[S*k, O, OH, OW] always lies channels last.
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
    """convolution_launches: as convolve_triton, prepared but not run."""
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
    """convolve_triton: activation(each sample with its slot's weight + bias + residual).

    Not for transposed convolutions. The options are those of `linear_triton`.
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
