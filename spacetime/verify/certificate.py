"""`spacetime verify`: the isolation certificate. What a partition holds beside a busy neighbour.

For every ordered pair of partitions a probe runs alone and beside a stressor that never pauses.
Reported are granted units, throughput held, latency inflation and whether any work left its
partition; judged against bounds that are part of the record (format spacetime.verify/1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from spacetime.devices.device import divided, open_device
from spacetime.errors import SpacetimeError
from spacetime.terminal.progress import track
from spacetime.verify.bounds import Bounds, broken, is_private
from spacetime.verify.cores import Cores
from spacetime.verify.measure import Case, ProbedPair, ProbeEffort, pairs
from spacetime.verify.sms import Sms
from spacetime.verify.under_test import Ground

FORMAT = "spacetime.verify/1"


class NotIsolated(SpacetimeError):
    """At least one pair of partitions broke its bounds; the certificate says which."""


def complaint(record: dict[str, Any]) -> str:
    """What is not isolated, in a line; empty where the certificate is passed."""
    failed = [row for row in record["rows"] if row["broken"]]
    told = [f"partitions {record['overlaps']} overlap"] if record["overlaps"] else []
    for number, part in enumerate(record["partitions"]):
        if not part["fits"]:
            told += [f"partition {number} runs on {len(part['home'])}, granted {part['granted']}"]
    if failed:
        first = f"{failed[0]['probe']} beside {failed[0]['stressor']}: {failed[0]['broken'][0]}"
        told += [f"{len(failed)} of {len(record['rows'])} pairs break their bounds ({first})"]
    return "; ".join(told)


def certificate(
    ground: Ground,
    effort: ProbeEffort,
    bounds: Bounds,
    *,
    quiet: bool = True,
    tell: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """The record of every pair; `passed` when none breaks a bound. The machine should be idle.

    tell: called with the record so far, after each pair and at the end.
    """

    def shown(cases: Sequence[Case]) -> Iterable[Case]:
        return track(cases, "pairs of partitions", quiet=quiet)

    rows: list[dict[str, Any]] = []
    for pair in pairs(ground, effort, shown):
        rows.append(_row(pair, bounds, ground))
        tell(_record(ground, effort, bounds, rows, complete=False))
    record = _record(ground, effort, bounds, rows, complete=True)
    tell(record)
    return record


def _record(
    ground: Ground,
    effort: ProbeEffort,
    bounds: Bounds,
    rows: Sequence[dict[str, Any]],
    *,
    complete: bool,
) -> dict[str, Any]:
    overlaps = _overlaps(ground)
    fits = [0 < len(p.home) <= p.granted for p in ground.partitions]
    broken_rows = any(row["broken"] for row in rows)
    return {
        "format": FORMAT,
        **ground.facts,
        "partitions": [
            {"asked": list(p.asked), "granted": p.granted, "home": sorted(p.home), "fits": fit}
            for p, fit in zip(ground.partitions, fits, strict=True)
        ],
        "private": sorted(ground.private),
        "shared": ground.shared,
        "bounds": asdict(bounds),
        "effort": asdict(effort),
        "rows": [*rows],
        "overlaps": overlaps,
        "passed": complete and all(fits) and not overlaps and not broken_rows,
    }


def _overlaps(ground: Ground) -> list[list[int]]:
    """Pairs of partitions that may use the same core or SM."""
    homes = [partition.home for partition in ground.partitions]
    return [[a, b] for a, b in combinations(range(len(homes)), 2) if homes[a] & homes[b]]


def _row(pair: ProbedPair, bounds: Bounds, ground: Ground) -> dict[str, Any]:
    private = is_private(pair, ground.private)
    return {**asdict(pair), "private": private, "broken": broken(pair, bounds, ground.private)}


def open_ground(device: str, lanes: int, memory_bytes: int | None = None) -> Ground:
    """The device divided into so many partitions; see VerifyCommand for `memory_bytes`."""
    opened = open_device(device)
    layout = divided(opened, lanes)
    if opened.kind == "cores":
        return Cores(opened, layout, memory_bytes=memory_bytes)
    return Sms(opened, layout)
