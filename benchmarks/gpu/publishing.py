"""Begin and end of a record of a CUDA device: what it holds in any case, its goals, its tables.

What several topics on a device share (`flops.py`, `models.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.gpu.names import STANDS_FOR
from spacetime.benchmarks.gpu.rig import CudaRig, DeviceFault, DryRig, clocks
from spacetime.benchmarks.gpu.run import goals

GoalsOf = Callable[[Sequence[Mapping[str, Any]]], Iterable[goals.Goal]]


def begun(
    topic: str,
    rig: CudaRig | DryRig,
    *,
    device: str,
    dry_run: bool,
    seed: int,
    quick: bool,
    chosen: Mapping[str, Sequence[object] | None],
) -> dict[str, Any]:
    """Returns the record of `topic` without rows yet: the device's facts, the command, the seed.

    chosen: the topic's own options, None where its defaults hold.
    """
    result = record.header(topic, seed=seed, quick=quick, chosen=chosen)
    result["command"] += f" --device {device}" + " --dry-run" * dry_run
    result |= {**rig.facts(), "topic": f"device_{topic}", "unreal": dry_run}
    return result | {"baselines": STANDS_FOR, "rows": [], "left_out": []}


def judged(result: dict[str, Any], goals_of: GoalsOf) -> dict[str, Any]:
    """Returns the record so far with its goals; rows of a dry run reach none."""
    rows = [] if result["unreal"] else result["rows"]
    result["goals"] = goals.told(goals_of(rows))
    return result


def publish(
    result: dict[str, Any],
    goals_of: GoalsOf,
    tables: Iterable[Any],
    *,
    device: str,
    out: Path | None,
    as_json: bool,
    picture: bool,
) -> None:
    """Prints the record with its goals, and saves it, with a picture where `picture`.

    tables: what is printed before the goals; drawn from only once they are judged. Raises
    DeviceFault where the device was lost; what was measured before is kept.
    """
    result["clocks_after"] = clocks()
    plots = "device" if picture else None
    shown = (part for parts in (tables, _ending(result)) for part in parts)
    record.publish(judged(result, goals_of), shown, out=out, as_json=as_json, plots=plots)
    if "fault" in result:
        raise DeviceFault(f"device {device}: {result['fault']}; what was measured before is kept")


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _ending(result: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the goals, why ways are missing, and how many cases were left out."""
    heads = ("goal", "asked", "got", "verdict")
    yield record.table("goals", heads, goals.goal_cells(result["goals"]))
    reasons = {(way, why) for row in result["rows"] for way, why in row["refused"].items()}
    for way, why in sorted(reasons):
        yield f"{way}: refused: {why}"
    if result["left_out"]:
        yield f"left out for want of time: {len(result['left_out'])} cases"
