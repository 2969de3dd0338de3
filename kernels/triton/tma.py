"""2-d convolution over slots whose tiles are brought by the tensor memory accelerator (sm_90 on).

The padded window of an input is a box of its pixels at an offset: whatever lies outside arrives as
zeros, so no address is computed and no mask is kept in registers. Weights are a box of the stack at
the slot's row. Both go straight to the shared memory that wgmma reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .epilogue import put


@triton.jit
def boxes(
    rows,  # int64 [slots]
    x,  # descriptor of [samples, H, W, C], boxes [1, BLOCK_H, BLOCK_W, BLOCK_K]
    weight,  # descriptor of [T, O, kh * kw * C], boxes [1, BLOCK_N, BLOCK_K]
    bias,  # [T, O] or None
    residual,  # as y, or None
    y,  # [samples * OUT[0] * OUT[1], O]
    samples, per_slot, bias_row,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    OUT: tl.constexpr, KERNEL: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Fill every tile of this program; a tile is BLOCK_H x BLOCK_W pixels of one sample times
    BLOCK_N output channels.
    """
    high: tl.constexpr = (OUT[0] + BLOCK_H - 1) // BLOCK_H
    wide: tl.constexpr = (OUT[1] + BLOCK_W - 1) // BLOCK_W
    tiles_n: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    blocks: tl.constexpr = CHANNELS // BLOCK_K
    steps: tl.constexpr = KERNEL[0] * KERNEL[1] * blocks
    for unit in range(tl.program_id(0), samples * (tiles_n * high * wide), tl.num_programs(0)):
        tile_w = unit % wide
        tile_h = unit // wide % high
        tile_n = unit // (wide * high) % tiles_n
        sample = unit // (wide * high * tiles_n)
        row = tl.load(rows + sample // per_slot)
        top = tile_h * BLOCK_H - PADDING[0]
        left = tile_w * BLOCK_W - PADDING[1]
        value = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_N), tl.float32)
        for step in range(steps):
            tap = step // blocks
            c = (step - tap * blocks) * BLOCK_K
            h = top + tap // KERNEL[1] * DILATION[0]
            w = left + tap % KERNEL[1] * DILATION[1]
            a = x.load([sample, h, w, c]).reshape(BLOCK_H * BLOCK_W, BLOCK_K)
            b = weight.load([row.to(tl.int32), tile_n * BLOCK_N, tap * CHANNELS + c])
            value = tl.dot(a, b.reshape(BLOCK_N, BLOCK_K).T, value)
        pixel = tl.arange(0, BLOCK_H * BLOCK_W)
        h = tile_h * BLOCK_H + pixel // BLOCK_W
        w = tile_w * BLOCK_W + pixel % BLOCK_W
        n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
        m = (sample * OUT[0] + h) * OUT[1] + w
        mine = (h < OUT[0]) & (w < OUT[1])
        put(y, value, bias, row * bias_row, residual, m, mine, n, n < OUTPUTS, OUTPUTS, ACTIVATION)
