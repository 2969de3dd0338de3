"""Whether indexes lie inside what they index: asked on the host, or noted on the device.

An index i is within its bounds where low <= i < high, or where i == also. `also` is the one value
outside that an operation ignores; None where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


@scripted
def check(ids: Tensor, low: int, high: int, also: int | None) -> None:
    """Raise IndexError unless all indexes are within their bounds. Waits for the values."""
    if ids.numel() > 0:
        if also is not None:
            ids = torch.where(ids == also, low, ids)
        least, most = torch.aminmax(ids)
        if int(least) < low or int(most) >= high:
            raise IndexError("index out of range in self")


@scripted
def checked(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """The same indexes, once all are known to be within their bounds. Raises as `check`."""
    check(ids, low, high, also)
    return ids


@scripted
def beyond(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """Which indexes are beyond their bounds, as bool of the same shape. Nothing waits for the
    values.
    """
    out = (ids < low).logical_or(ids >= high)
    if also is not None:
        out = out.logical_and(ids != also)
    return out


@scripted
def clamped(ids: Tensor, out: Tensor) -> Tensor:
    """The indexes with 0, which is within any bounds, wherever `out` is true."""
    return ids.masked_fill(out, 0)


@scripted
def noted(codes: Tensor, out: Tensor, number: int) -> Tensor:
    """The codes int64 [S], set to `number` for each slot whose first index beyond is in `out`.

    `out` is bool [S, ...]. A code is 0 as long as all indexes of its slot were within.
    """
    here = out.reshape(out.size(0), -1).any(1)
    return codes.masked_fill(here.logical_and(codes == 0), number)
