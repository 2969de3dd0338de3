"""Depthwise convolution over slots: each channel has a window of its own.

There is nothing to multiply as matrices and memory bounds it; hence a plain sum over the taps, with
channels along the vectors.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .epilogue import put
from .gemm import within


@triton.jit
def depthwise(
    rows,  # int64 [slots]
    x,  # [slots * k, C, H, W]
    weight,  # [T, O, 1, kh, kw], O a multiple of C
    bias,  # [T, O] or None
    residual,  # as y, or None
    y,  # [M, O], M the pixels of all samples
    slots,
    points,  # k * OUT[0] * OUT[1]
    weight_row,
    bias_row,
    OUTPUTS: tl.constexpr,  # O
    PER_CHANNEL: tl.constexpr,  # O / C
    IN: tl.constexpr,
    OUT: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    X_STRIDES: tl.constexpr,
    W_STRIDES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Fill every tile of this program; a tile is BLOCK_M pixels of one slot times BLOCK_N
    channels.
    """
    tiles_n: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    width: tl.constexpr = KERNEL[1]
    tiles_m = tl.cdiv(points, BLOCK_M)
    for unit in range(tl.program_id(0), slots * tiles_n * tiles_m, tl.num_programs(0)):
        slot = unit // tiles_m // tiles_n
        row = tl.load(rows + slot)
        n = unit // tiles_m % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
        m = unit % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
        mine = m < points
        m = slot * points + m
        known = n < OUTPUTS
        h = m // OUT[1] % OUT[0] * STRIDE[0] - PADDING[0]
        w = m % OUT[1] * STRIDE[1] - PADDING[1]
        x_at = x + (m // (OUT[0] * OUT[1])).to(tl.int64) * X_STRIDES[0]
        x_at = x_at + h * X_STRIDES[2] + w * X_STRIDES[3]
        x_at = x_at[:, None] + (n // PER_CHANNEL * X_STRIDES[1])[None, :]
        w_at = weight + row * weight_row + n * W_STRIDES[0]
        h = tl.where(mine, h, -(1 << 28))  # out of bounds whatever the tap: one test serves both
        value = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for i in range(KERNEL[0]):
            for j in tl.static_range(width):
                inside = within(h + i * DILATION[0], IN[0]) & within(w + j * DILATION[1], IN[1])
                x_off = i * DILATION[0] * X_STRIDES[2] + j * DILATION[1] * X_STRIDES[3]
                a = tl.load(x_at + x_off, mask=inside[:, None] & known[None, :], other=0.0)
                b = tl.load(w_at + i * W_STRIDES[2] + j * W_STRIDES[3], mask=known, other=0.0)
                value += a.to(tl.float32) * b.to(tl.float32)[None, :]
        put(y, value, bias, row * bias_row, residual, m, mine, n, known, OUTPUTS, ACTIVATION)
