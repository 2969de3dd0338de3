"""Times callables the way a lane will run them: on its cores, with its threads, without grad."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spacetime.models.flat import FlatCall, spread
from spacetime.units import MS

_REPEATS = 3
_LONG_NS = 250 * MS  # past this larger buckets are extrapolated: adding a tenant stays short


def bucket_ns(
    call: FlatCall, example: Sequence[Tensor], buckets: Sequence[int], *, index: int = 0
) -> dict[int, int]:
    """Nanoseconds of `call` at each batch size; run it inside `on_cores`.

    example: the leaves of one call, each `[n, ...]`. index: if above 0 the call takes a leading
    tensor `[rows]` of member numbers, and the rows cycle through that many members.
    """
    measured: dict[int, int] = {}
    last = 0
    for rows in buckets:
        if measured and measured[last] > _LONG_NS:
            measured[rows] = measured[last] * rows // last
            continue
        inputs = spread(example, rows)
        if index:
            inputs = [torch.arange(rows) % index, *inputs]
        call(*inputs)
        measured[rows] = min(elapsed_ns(call, inputs) for _ in range(_REPEATS))
        last = rows
    return measured


def on_cores(cores: Sequence[int], measure: Callable[[], Any]) -> Any:
    """The result of `measure`, called on a fresh thread set up like a lane on `cores`."""
    box: list[Any] = []

    def body() -> None:
        try:
            os.sched_setaffinity(0, cores)
            with lane_threads(len(cores)):
                box.append((measure(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=body, name="spacetime-measure")
    thread.start()
    thread.join()
    result, error = box[0]
    if error is not None:
        raise error
    return result


@contextmanager
def lane_threads(count: int) -> Any:
    """PyTorch set up for a dispatcher thread: `count` intra-op threads, no autograd.

    The number of OpenMP threads belongs to the calling thread, but PyTorch also remembers the last
    number set as the default of threads that are still to come; that default is put back.
    """
    torch.get_num_threads()  # initialises this thread's own number before it is changed
    default = torch.get_num_threads()
    torch.set_num_threads(count)
    _restore_default(default)
    with torch.no_grad():
        yield


def _restore_default(count: int) -> None:
    thread = threading.Thread(target=torch.set_num_threads, args=(count,))
    thread.start()
    thread.join()


def elapsed_ns(call: Callable[..., object], inputs: Sequence[Any]) -> int:
    """Wall nanoseconds of one call."""
    start = time.perf_counter_ns()
    call(*inputs)
    return time.perf_counter_ns() - start
