"""One matrix product over slots: linear layers and 2-d convolutions as an implicit GEMM.

M are the output pixels of all slots, `points` of them in each; N the output channels of one group;
K every (tap, channel) of the window, channels innermost so that both operands are read along what
lies together in memory when it is channels last. No unfolded copy of the input is ever made.

A tile covers pixels of one slot or, where a slot has fewer than BLOCK_M, of `gathered` whole slots.
A unit of work is (part, slots, group, n, split, m): part p computes the pixels of the tile whose
slots use the same row as its p-th slot, unless an earlier slot uses it. So a tile reads each row's
weights once whatever the order of rows, tenants never meet in one sum (a NaN stays where it is),
and distinct rows still run in parallel. The grid is persistent: programs stride over the units.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .epilogue import put


@triton.jit
def gemm(
    rows,  # int64 [slots]
    x,  # [slots * k, C, H, W]
    weight,  # [T, O, C / groups, kh, kw]
    bias,  # [T, O] or None
    residual,  # as y, or None
    y,  # [M, O], or partial sums [SPLITS, M, O] in float32
    slots, points, gathered,  # points = k * OUT[0] * OUT[1]
    weight_row, bias_row,  # strides of the stacks' rows
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, GROUPS: tl.constexpr,  # of one group
    IN: tl.constexpr, OUT: tl.constexpr, KERNEL: tl.constexpr,  # (height, width) each
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    X_STRIDES: tl.constexpr,  # of n, c, h, w
    W_STRIDES: tl.constexpr,  # of o, c, kh, kw
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, SPLITS: tl.constexpr,
    SHARED: tl.constexpr,  # gathered > 1
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compute every unit of this program, as the file's docstring describes them."""
    tiles_n: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    total: tl.constexpr = GROUPS * OUTPUTS
    tiles_m = tl.cdiv(gathered * points, BLOCK_M)
    units = tl.cdiv(slots, gathered) * (GROUPS * tiles_n * SPLITS) * tiles_m
    for unit in range(tl.program_id(0), units * gathered, tl.num_programs(0)):
        part = unit // units
        tile_m, rest = unit % units % tiles_m, unit % units // tiles_m
        split = rest % SPLITS
        tile_n = rest // SPLITS % tiles_n
        group = rest // (SPLITS * tiles_n) % GROUPS
        first = rest // (SPLITS * tiles_n * GROUPS) * gathered
        m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
        if SHARED:
            slot = first + m // points
            own = first + part
            row = tl.load(rows + own, mask=own < slots, other=-1)
            here = tl.load(rows + slot, mask=(m < gathered * points) & (slot < slots), other=-2)
            mine = here == row
            leads = (row >= 0) & (tl.sum((mine & (slot < own)).to(tl.int32), 0) == 0)
        else:
            row = tl.load(rows + first)
            mine = m < points
            leads = row >= 0
        if leads:
            m = first * points + m
            n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
            value = product(
                x + group * CHANNELS * X_STRIDES[1],
                weight + row * weight_row + group * OUTPUTS * W_STRIDES[0],
                m, mine, n, split,
                CHANNELS, OUTPUTS, IN, OUT, KERNEL, STRIDE, PADDING, DILATION,
                X_STRIDES, W_STRIDES, PRECISION, SPLITS, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
            known = n < OUTPUTS
            n += group * OUTPUTS
            part_of_y = y + tl.cast(split, tl.int64) * slots * points * total
            at = row * bias_row
            put(part_of_y, value, bias, at, residual, m, mine, n, known, total, ACTIVATION)


@triton.jit
def product(
    x, weight, m, mine, n, split,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, KERNEL: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    X_STRIDES: tl.constexpr, W_STRIDES: tl.constexpr,
    PRECISION: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The sum float32 [BLOCK_M, BLOCK_N] of one group, for pixels m where `mine` and output
    channels n.
    """
    taps: tl.constexpr = KERNEL[0] * KERNEL[1]
    padded: tl.constexpr = PADDING[0] + PADDING[1] > 0
    # With few channels a step takes several taps; else a step lies in one tap, its offsets scalar.
    mixed: tl.constexpr = (CHANNELS < BLOCK_K) & (taps > 1)
    even: tl.constexpr = (taps * CHANNELS if mixed else CHANNELS) % BLOCK_K == 0
    blocks: tl.constexpr = (CHANNELS + BLOCK_K - 1) // BLOCK_K
    steps: tl.constexpr = (taps * CHANNELS + BLOCK_K - 1) // BLOCK_K if mixed else taps * blocks
    per_split: tl.constexpr = (steps + SPLITS - 1) // SPLITS
    h = m // OUT[1] % OUT[0] * STRIDE[0] - PADDING[0]
    w = m % OUT[1] * STRIDE[1] - PADDING[1]
    x_at = x + (m // (OUT[0] * OUT[1])).to(tl.int64) * X_STRIDES[0]
    x_at = (x_at + h * X_STRIDES[2] + w * X_STRIDES[3])[:, None]
    w_at = (weight + n * W_STRIDES[0])[None, :]
    known_n = (n < OUTPUTS)[None, :]
    h = tl.where(mine, h, -(1 << 28))  # out of bounds whatever the tap: one test serves both
    value = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(split * per_split, tl.minimum(split * per_split + per_split, steps)):
        if mixed:
            k = step * BLOCK_K + tl.arange(0, BLOCK_K)
            tap = k // CHANNELS
            c = k % CHANNELS
            known_k = tap < taps
        else:
            tap = step // blocks if taps > 1 else 0
            c = (step - tap * blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
            known_k = c < CHANNELS
        i = tap // KERNEL[1] * DILATION[0]
        j = tap % KERNEL[1] * DILATION[1]
        if not padded:
            inside = mine[:, None]
        elif mixed:
            inside = within(h[:, None] + i[None, :], IN[0])
            inside &= within(w[:, None] + j[None, :], IN[1])
        else:
            inside = (within(h + i, IN[0]) & within(w + j, IN[1]))[:, None]
        known_w = known_n
        if not even:
            inside &= known_k[None, :]
            known_w &= known_k[:, None]
        x_off = i * X_STRIDES[2] + j * X_STRIDES[3] + c * X_STRIDES[1]
        w_off = tap // KERNEL[1] * W_STRIDES[2] + tap % KERNEL[1] * W_STRIDES[3] + c * W_STRIDES[1]
        a = tl.load(x_at + x_off[None, :], mask=inside, other=0.0)
        if (OUTPUTS % BLOCK_N == 0) & even:
            b = tl.load(w_at + w_off[:, None])
        else:
            b = tl.load(w_at + w_off[:, None], mask=known_w, other=0.0)
        value = tl.dot(a, b, value, input_precision=PRECISION)
    return value


@triton.jit
def within(position, SIZE: tl.constexpr):
    """Whether 0 <= position < SIZE, in one comparison: a negative number is a large unsigned
    one.
    """
    return position.to(tl.uint32, bitcast=True) < SIZE
