"""Whether indexes lie inside what they index: asked on the host, or noted on the device.

Bounds are ``low <= i < high``, or ``i == also``, the one value that is ignored, if there is one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def check(ids: Tensor, low: int, high: int, also: int | None) -> None:
    """check(ids, low, high, also): IndexError unless all are within; waits for the values."""
    if ids.numel() > 0:
        if also is not None:
            ids = torch.where(ids == also, low, ids)
        least, most = torch.aminmax(ids)
        if int(least) < low or int(most) >= high:
            raise IndexError("index out of range in self")


@scripted
def checked(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """checked(ids, ...): the same indexes, once all are known to be within."""
    check(ids, low, high, also)
    return ids


@scripted
def beyond(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """beyond(ids, ...): which are not within, as bool; nothing waits for the values."""
    out = (ids < low).logical_or(ids >= high)
    if also is not None:
        out = out.logical_and(ids != also)
    return out


@scripted
def clamped(ids: Tensor, out: Tensor) -> Tensor:
    """clamped(ids, out): 0, which is within, where `out`."""
    return ids.masked_fill(out, 0)


@scripted
def noted(codes: Tensor, out: Tensor, number: int) -> Tensor:
    """noted(codes, out, number): int64 [S], `number` where a slot's first index beyond is now.

    `out` is bool [S, ...]; codes are 0 as long as a slot's indexes were all within.
    """
    here = out.reshape(out.size(0), -1).any(1)
    return codes.masked_fill(here.logical_and(codes == 0), number)
