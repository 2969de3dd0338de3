"""`spacetime verify`: measures the isolation certificate, prints it and writes it.

The certificate itself, and how it is measured, is in `verify/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.errors import UnsupportedError
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.verify.bounds import Bounds
from spacetime.verify.certificate import NotIsolated, certificate, complaint, open_ground
from spacetime.verify.cores import KINDS
from spacetime.verify.measure import ProbeEffort

FILE = "verify.json"
DEFAULT_BOUNDS = Bounds()

HEADS = (
    "probe on", "stressor on", "probe", "stressor", "alone", "beside", "held",
    "p50", "p99", "alone p99 µs", "leak", "verdict",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """The options of `spacetime verify`.

    lanes: how many disjoint partitions; rounds: pairs of probes, alone and beside, the median of
    which counts; launches: of a probe, half a millisecond each on cores and 2 ms on SMs; probe,
    stressor: kinds of work; memory_bytes: of each of memory's operands, None for several last-level
    caches; picture: False where it is drawn later.
    """

    device: str = "auto"
    lanes: int = 2
    rounds: int = 5
    launches: int = 150
    probe: Sequence[str] = KINDS
    stressor: Sequence[str] = KINDS
    bounds: Bounds = DEFAULT_BOUNDS
    out: Path | None = None
    as_json: bool = False
    memory_bytes: int | None = None
    picture: bool = True


def run(asked: VerifyCommand) -> dict[str, Any]:
    """Measures, prints tables (or the certificate as JSON), writes JSON and a picture to `out`.

    The JSON is rewritten after each pair; one that is not complete is not passed.
    Raises NotIsolated when a bound is broken, after everything is printed and written.
    """
    if asked.lanes < 2:
        raise UnsupportedError(
            f"lanes={asked.lanes}: isolation is between partitions; give at least 2"
        )
    effort = ProbeEffort(asked.rounds, asked.launches, asked.probe, asked.stressor)
    with nullcontext() if asked.as_json else working("opening partitions"):
        opened = open_ground(asked.device, asked.lanes, asked.memory_bytes)

    def tell(record: dict[str, Any]) -> None:
        if asked.out is not None:
            _save(record, asked.out)

    with closing(opened) as ground:
        record = certificate(ground, effort, asked.bounds, quiet=asked.as_json, tell=tell)
    if asked.as_json:
        print(json.dumps(record))
    else:
        print_certificate(record)
    if asked.out is not None:
        _show_files(record, asked.out, picture=asked.picture, quiet=asked.as_json)
    if not record["passed"]:
        raise NotIsolated(f"verify: {complaint(record)}")
    return record


def print_certificate(record: dict[str, Any]) -> None:
    """Prints partitions, pairs, and the verdict with what is not isolated."""
    screen = Console()
    for number, part in enumerate(record["partitions"]):
        screen.print(
            f"partition {number}: units {part['asked']} asked, {part['granted']} "
            f"{record['unit']}s granted, on {record['unit']}s {part['home']}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    rows = record["rows"]
    screen.print(FittedTable(
        HEADS, [*map(_cells, rows)], words=("probe", "stressor", "verdict"),
        title=f"isolation of {record['device']}, kind {record['kind']}: what the probe holds",
        styles=["red" if row["broken"] else "" for row in rows],
    ))  # fmt: skip
    screen.print(
        "held, p50, p99: beside the stressor, compared with alone. leak: looks that found work "
        "outside its partition.", highlight=False, soft_wrap=True,
    )  # fmt: skip
    bounds = record["bounds"]
    screen.print(
        f"bounds: private pairs hold {bounds['private_held']:g}, p99 x{bounds['private_p99']:g}; "
        f"shared pairs {bounds['shared_held']:g}, x{bounds['shared_p99']:g}; no leak. "
        f"Not isolated: {record['shared']}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if record.get("split cores"):
        screen.print(f"Partitions share physical cores: {record['split cores']}", highlight=False)
    for first, second in record["overlaps"]:
        screen.print(f"OVERLAP: partitions {first} and {second}", highlight=False)
    failed = sum(bool(row["broken"]) for row in record["rows"])
    passed = "PASSED" if record["passed"] else f"FAILED: {failed} of {len(record['rows'])} pairs"
    screen.print(passed)


def _cells(row: dict[str, Any]) -> list[str]:
    unit = "GFLOP/s" if row["probe"] == "compute" else "GB/s"
    return [
        str(row["on"]),
        str(row["by"]),
        row["probe"],
        row["stressor"],
        f"{row['alone']['rate']:.3g} {unit}",
        f"{row['beside']['rate']:.3g}",
        f"{row['held_frac']:.0%}",
        f"x{row['p50_inflation']:.2f}",
        f"x{row['p99_inflation']:.2f}",
        f"{row['alone']['p99_us']:.0f}",
        f"{row['leaked']}/{row['looked']}",
        "; ".join(row["broken"]) or ("ok" if row["private"] else "ok (shared)"),
    ]


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
