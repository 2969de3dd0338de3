"""`spacetime verify`: the isolation certificate. What a partition holds beside a busy neighbour.

For every ordered pair of partitions a probe runs alone and beside a stressor that never pauses.
Reported are granted units, throughput held, latency inflation and whether any work left its
partition; judged against bounds that are part of the record (format spacetime.verify/1).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

from spacetime.devices.device import divided, open_device
from spacetime.errors import SpacetimeError, UnsupportedError
from spacetime.terminal.progress import track, working
from spacetime.verify.bounds import Bounds, broken, is_private
from spacetime.verify.cores import KINDS, Cores
from spacetime.verify.measure import Case, Effort, Pair, pairs
from spacetime.verify.sms import Sms
from spacetime.verify.tables import show
from spacetime.verify.under_test import Ground

FORMAT = "spacetime.verify/1"
FILE = "verify.json"
DEFAULT_BOUNDS = Bounds()


class NotIsolated(SpacetimeError):
    """At least one pair of partitions broke its bounds; the certificate says which."""


def run(
    *,
    device: str = "auto",
    lanes: int = 2,
    rounds: int = 5,
    launches: int = 150,
    probe: Sequence[str] = KINDS,
    stressor: Sequence[str] = KINDS,
    bounds: Bounds = DEFAULT_BOUNDS,
    out: Path | None = None,
    as_json: bool = False,
    memory_bytes: int | None = None,
    picture: bool = True,
) -> dict[str, Any]:
    """Measures, prints tables (or the certificate as JSON), writes JSON and a picture to `out`.

    The JSON is rewritten after each pair; one that is not complete is not passed.

    lanes: how many disjoint partitions; rounds: pairs of probes, alone and beside, the median of
    which counts; launches: of a probe, half a millisecond each on cores and 2 ms on SMs; probe,
    stressor: kinds of work; memory_bytes: of each of memory's operands, None for several last-level
    caches; picture: False where it is drawn later.
    Raises NotIsolated when a bound is broken, after everything is printed and written.
    """
    if lanes < 2:
        raise UnsupportedError(f"lanes={lanes}: isolation is between partitions; give at least 2")
    effort = Effort(rounds, launches, probe, stressor)
    with nullcontext() if as_json else working("opening partitions"):
        opened = _opened(device, lanes, memory_bytes)

    def tell(record: dict[str, Any]) -> None:
        if out is not None:
            _save(record, out)

    with closing(opened) as ground:
        record = certificate(ground, effort, bounds, quiet=as_json, tell=tell)
    if as_json:
        print(json.dumps(record))
    else:
        show(record)
    if out is not None:
        _show_files(record, out, picture=picture, quiet=as_json)
    if not record["passed"]:
        raise NotIsolated(f"verify: {_complaint(record)}")
    return record


def _complaint(record: dict[str, Any]) -> str:
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
    effort: Effort,
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
    effort: Effort,
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


def _row(pair: Pair, bounds: Bounds, ground: Ground) -> dict[str, Any]:
    private = is_private(pair, ground.private)
    return {**asdict(pair), "private": private, "broken": broken(pair, bounds, ground.private)}


def _opened(device: str, lanes: int, memory_bytes: int | None) -> Ground:
    opened = open_device(device)
    layout = divided(opened, lanes)
    if opened.kind == "cores":
        return Cores(opened, layout, memory_bytes=memory_bytes)
    return Sms(opened, layout)


def _save(record: dict[str, Any], out: Path) -> None:
    """As a whole: who reads meanwhile sees the record before."""
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".verify.{os.getpid()}"
    draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draft.replace(out / FILE)


def _show_files(record: dict[str, Any], out: Path, *, picture: bool, quiet: bool) -> None:
    wrote = [out / FILE]
    if picture:
        wrote.append(wrote[0].with_suffix(".png"))
        # Imported here: drawing needs an optional package that measuring does not.
        import_module("spacetime.plots.verify").draw_verify(record, wrote[1])
    if not quiet:
        print("wrote", " and ".join(map(str, wrote)))


def from_options(
    *,
    probe: Sequence[str],
    stressor: Sequence[str],
    private_held: float | None,
    private_p99: float | None,
    shared_held: float | None,
    shared_p99: float | None,
    **options: Any,
) -> None:
    """`run` for the command line, where a bound or a kind that is not given has its default."""
    given = {
        "private_held": private_held,
        "private_p99": private_p99,
        "shared_held": shared_held,
        "shared_p99": shared_p99,
    }
    bounds = Bounds(**{name: value for name, value in given.items() if value is not None})
    run(probe=probe or KINDS, stressor=stressor or KINDS, bounds=bounds, **options)
