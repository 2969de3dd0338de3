"""What happens to a sum before it is stored: bias, residual, activation. All in float32."""

from __future__ import annotations

import triton
import triton.language as tl

ACTIVATIONS = ("none", "relu", "relu6", "gelu", "silu", "hardswish")


@triton.jit
def activate(value, ACTIVATION: tl.constexpr):
    """The named function of each element, as torch.nn.functional defines it."""
    if ACTIVATION == "relu":
        value = tl.where(value < 0, 0.0, value)  # keeps NaN, as torch does
    elif ACTIVATION == "relu6":
        value = tl.where(value < 0, 0.0, tl.where(value > 6, 6.0, value))
    elif ACTIVATION == "gelu":
        value = 0.5 * value * (1 + tl.erf(value * 0.7071067811865476))
    elif ACTIVATION == "silu":
        value = value / (1 + tl.exp(-value))
    elif ACTIVATION == "hardswish":
        value = value * tl.minimum(tl.maximum(value + 3, 0.0), 6.0) / 6
    return value


@triton.jit
def put(
    y,
    value,
    bias,
    bias_at,  # where the bias of this row begins
    residual,
    m,
    mine,
    n,
    known,
    TOTAL: tl.constexpr,  # channels of y
    ACTIVATION: tl.constexpr,
):
    """Store value [m, n] where `mine` and `known`, after the epilogue."""
    keep = mine[:, None] & known[None, :]
    at = m.to(tl.int64)[:, None] * TOTAL + n[None, :]
    if bias is not None:
        value += tl.load(bias + bias_at + n, mask=known, other=0.0)[None, :]
    if residual is not None:
        value += tl.load(residual + at, mask=keep, other=0.0)
    tl.store(y + at, activate(value, ACTIVATION).to(y.dtype.element_ty), mask=keep)


@triton.jit
def finish(
    rows,
    sums,  # float32 [SPLITS, M, OUTPUTS]
    bias,
    residual,
    y,  # [M, OUTPUTS]
    total,  # M
    points,  # of M, in each slot
    bias_row,
    OUTPUTS: tl.constexpr,
    SPLITS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Add the partial sums of a split product in a fixed order, then finish as `gemm` does."""
    tiles_n: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    for unit in range(tl.program_id(0), tl.cdiv(total, BLOCK_M) * tiles_n, tl.num_programs(0)):
        m = unit // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
        n = unit % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
        keep = (m < total)[:, None] & (n < OUTPUTS)[None, :]
        at = m.to(tl.int64)[:, None] * OUTPUTS + n[None, :]
        value = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for split in tl.static_range(SPLITS):
            part = sums + tl.cast(split, tl.int64) * total * OUTPUTS
            value += tl.load(part + at, mask=keep, other=0.0)
        if bias is not None:
            row = tl.load(rows + m // points, mask=m < total, other=0)
            value += tl.load(bias + (row * bias_row)[:, None] + n[None, :], mask=keep, other=0.0)
        if residual is not None:
            value += tl.load(residual + at, mask=keep, other=0.0)
        tl.store(y + at, activate(value, ACTIVATION).to(y.dtype.element_ty), mask=keep)
