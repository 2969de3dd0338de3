"""Statistics of models in Triton's words, from the session's counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spacetime.reports.counters import TenantCounters
from spacetime.server.model import VERSION
from spacetime.server.repository import Repository


def statistics(repository: Repository, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the statistics of the models of these names; of all that are loaded where none is.

    Times are in ns, summed since a model was loaded. `compute_input` and `compute_output` are 0 and
    part of `compute_infer`, since tensors are not moved in steps of their own; nothing is cached.
    """
    counted = repository.session.counters().tenants
    loaded = [name for name in repository.models if name in counted]
    shown = names or loaded
    return {"model_stats": [_model(n, counted[n], repository.last_ms(n)) for n in shown]}


def _model(name: str, counted: TenantCounters, last_ms: int) -> dict[str, Any]:
    ended = counted.completed
    compute_ns = max(0, counted.latency_ns - counted.wait_ns)
    return {
        "name": name,
        "version": VERSION,
        "last_inference": last_ms,
        "inference_count": counted.samples,
        "execution_count": counted.launches,
        "inference_stats": {
            "success": _duration(ended, counted.latency_ns),
            "fail": _duration(failures(counted), 0),
            "queue": _duration(ended, counted.wait_ns),
            "compute_input": _duration(ended, 0),
            "compute_infer": _duration(ended, compute_ns),
            "compute_output": _duration(ended, 0),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [],
    }


def failures(counted: TenantCounters) -> int:
    """Returns how many requests got no answer: refused, dropped, or failed in the model."""
    return counted.failed + counted.refused + sum(counted.dropped.values())


def misses(counts: TenantCounters) -> dict[str, int]:
    """Returns how many requests were not answered in time, by reason.

    A request that its own client withdrew is not among them.
    """
    dropped = {reason: n for reason, n in counts.dropped.items() if reason != "cancelled"}
    dropped["queue-full"] = dropped.get("queue-full", 0) + counts.refused
    return dropped | {"late": counts.late, "failed": counts.failed}


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
