"""Device time of a call that finds nothing of its own in the L2, as a launch among others does.

A call that is repeated on the same operands reads them from the L2 from the second time on: small
weights then seem free, and a tile that reads them too often seems as good as another.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

WARM_UPS = 3  # calls before a capture: kernels are loaded, cuDNN chooses, workspaces are made
TIMED = 7  # replays of a captured call; their median counts


def sweep(device: torch.device) -> None:
    """Writes twice the L2 on the current stream, so that nothing of earlier work is left in it."""
    l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    torch.empty(2 * l2_bytes, dtype=torch.uint8, device=device).zero_()


def cold_seconds(
    call: Callable[[], object],
    stream: torch.cuda.Stream,
    device: torch.device,
    capture: Callable[[Callable[[], object]], torch.cuda.CUDAGraph],
) -> float:
    """Device time of a call inside a graph on `stream`, where it will run: eager launches from
    Python would time Python. A call that cannot be captured raises here.

    capture: makes that graph of the call, and raises what it finds wrong with it.
    """
    event: Callable[..., torch.cuda.Event] = torch.cuda.Event
    times: list[tuple[Any, Any]] = []
    with torch.cuda.device(device), torch.cuda.stream(stream), torch.no_grad():
        for _ in range(WARM_UPS):
            call()
        stream.synchronize()
        graph = capture(call)
        graph.replay()
        for _ in range(TIMED):
            begin, end = event(enable_timing=True), event(enable_timing=True)
            sweep(device)  # while it runs the host enqueues what follows
            begin.record(stream)
            graph.replay()
            end.record(stream)
            times.append((begin, end))
        stream.synchronize()
    return median(float(begin.elapsed_time(end)) for begin, end in times) / 1e3
