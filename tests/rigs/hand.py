"""The scheduler driven by hand: short ways to set one up and to read its actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spacetime import _native

# L(b) of the family most tests use: a launch of 4 costs 1.6 times a launch of 1.
LATENCY = {1: 1000, 2: 1200, 4: 1600}
Starts = list[tuple[int, tuple[int, ...]]]


def scheduler(
    *,
    lanes: int | Sequence[Mapping[str, Any]] = 1,
    families: Sequence[Mapping[int, int]] = (LATENCY,),
    tenants: Sequence[Mapping[str, Any]] = ({},),
    **policy: Any,
) -> _native.Scheduler:
    """Every family has the same latencies on every lane; tenants are of family 0 on lane 0."""
    made = _native.Scheduler(_native.Policy(**policy))
    for lane in [{}] * lanes if isinstance(lanes, int) else lanes:
        made.add_lane(**lane)
    for latency in families:
        family = made.add_family(sorted(latency))
        for lane_id in range(lanes if isinstance(lanes, int) else len(lanes)):
            for bucket, latency_ns in latency.items():
                made.set_latency(family, lane_id, bucket, latency_ns)
    for tenant in tenants:
        made.add_tenant(**{"family": 0, "lane": 0, **tenant})
    return made


def starts(actions: Sequence[tuple[Any, ...]]) -> Starts:
    """(lane, requests) of every start."""
    return [(a[2], a[5]) for a in actions if a[0] == "start"]


def drops(actions: Sequence[tuple[Any, ...]]) -> list[tuple[int, str]]:
    """(request, reason) of every drop."""
    return [(a[1], a[3]) for a in actions if a[0] == "drop"]


def serve_out(made: _native.Scheduler, launch: int, now: int, latency: int = 1000) -> Starts:
    """Finishes one launch after another on a single lane; what started, in order."""
    out: Starts = []
    while made.running:
        now += latency
        actions = made.finish(launch, now)
        out += starts(actions)
        launch += 1
    return out
