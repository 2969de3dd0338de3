"""Timelines: what happened, as Chrome trace events, which Perfetto opens; one track a lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol


class Happening(Protocol):
    """A launch that finished, or, where `lane` is None, a request that ended without one.

    Times are in ns, from one instant for all.
    """

    @property
    def start_ns(self) -> int: ...
    @property
    def finish_ns(self) -> int: ...
    @property
    def lane(self) -> int | None: ...
    @property
    def tenant(self) -> int: ...
    @property
    def tenants(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def bucket(self) -> int: ...
    @property
    def outcome(self) -> str: ...


def chrome_events(
    happenings: Iterable[Happening],
    names: Mapping[int, str],
    lanes: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns the trace events, in µs: process 1, where thread n + 1 is lane n.

    Thread 0 holds the requests that ended without a launch. names: tenants by number. lanes: their
    names, in order.
    """
    tracks = {0: "dropped"} | {n + 1: name for n, name in enumerate(lanes)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": name}}
        for tid, name in tracks.items()
    ]
    return events + [_event(happening, names) for happening in happenings]


def _event(h: Happening, names: Mapping[int, str]) -> dict[str, Any]:
    name = names.get(h.tenant, f"tenant {h.tenant}")
    if h.lane is None:
        return {
            "ph": "i", "s": "t", "name": f"{name}: {h.outcome}",
            "pid": 1, "tid": 0, "ts": h.finish_ns / 1000,
        }  # fmt: skip
    title = name if h.tenants == 1 else f"{h.tenants} tenants fused"
    return {
        "ph": "X", "name": title, "pid": 1, "tid": h.lane + 1,
        "ts": h.start_ns / 1000, "dur": (h.finish_ns - h.start_ns) / 1000,
        "args": {
            "requests": h.requests, "samples": h.samples, "bucket": h.bucket,
            "tenants": h.tenants, "outcome": h.outcome,
        },
    }  # fmt: skip
