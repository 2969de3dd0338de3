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
    """The output of `linear_triton`, not yet filled, and the launches that fill it."""
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
    """activation(x times each slot's weight + bias + residual): [S, ..., N].

    `rows`: int64 [S], in any order; `run` is not needed.
    `x`: [S, ..., K].
    `weight`, `bias`: stacks [T, N, K] and [T, N], or None; their rows may have any stride.
    `residual`: as the output, or None.
    `activation`: one of `epilogue.ACTIVATIONS`.
    `precision`: how float32 is multiplied.
    `sms`: sizes the grid; None means the whole device.
    `config`: the tiles; None takes the best guess.

    Raises ValueError for operands that do not fit each other.
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
