"""Linear layer over slots in Triton: x [S, ..., K], weight stack [T, N, K], bias [T, N] or None."""

from __future__ import annotations

from torch import Tensor

from .configs import Config, Precision
from .launch import ConvolutionGeometry, Epilogue, Launch, prepare


def linear_launches(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: Precision = "tf32x3",
    sms: int | None = None,
    config: Config | None = None,
) -> tuple[Tensor, list[Launch]]:
    """linear_launches: as linear_triton, prepared but not run; the output is not yet filled."""
    if rows.shape[0] != x.shape[0] or weight.dim() != 3 or weight.shape[2] != x.shape[-1]:
        raise ValueError(
            f"x: {tuple(x.shape)} does not fit {rows.shape[0]} slots of weights "
            f"{tuple(weight.shape[1:])}"
        )
    shape = (*x.shape[:-1], weight.shape[1])
    pixels = x.reshape(-1, x.shape[-1])[:, :, None, None]
    if residual is not None:
        residual = residual.contiguous()
    y, launches = prepare(
        rows,
        pixels,
        weight[:, :, :, None, None],
        ConvolutionGeometry(),
        Epilogue(bias, residual, activation),
        precision=precision,
        sms=sms,
        config=config,
    )
    return y.view(shape), launches


def linear_triton(
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    precision: Precision = "tf32x3",
    sms: int | None = None,
    config: Config | None = None,
) -> Tensor:
    """linear_triton: activation(x times each slot's weight + bias + residual) [S, ..., N].

    `run` is not needed: rows may come in any order. `precision` is that of float32; `sms` sizes
    the grid (None: the whole device); `config` None takes the best guess. Stacks may have any
    stride of rows. ValueError for what does not fit.
    """
    y, launches = linear_launches(
        rows,
        x,
        weight,
        bias,
        residual=residual,
        activation=activation,
        precision=precision,
        sms=sms,
        config=config,
    )
    for launch in launches:
        launch.run()
    return y
