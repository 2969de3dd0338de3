"""The table at the end of run.sh: what each step said, with the number that matters of it.

python -m spacetime.benchmarks.gpu.summary STEPS DIR, where STEPS has a line `name status seconds
last line` a step, separated by tabs, and DIR holds the JSON files the steps wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WIDTH = 110  # of a headline


def main() -> int:
    """Prints the table."""
    steps, folder = map(Path, sys.argv[1:3])
    print(table(steps.read_text(encoding="utf-8"), folder))
    return 0


def table(steps: str, folder: Path) -> str:
    """The steps, one a line: name, status, seconds and headline."""
    lines = [f"{'step':<12} {'status':<10} {'s':>5}  headline"]
    for line in filter(None, steps.split("\n")):
        name, status, seconds, last = line.split("\t", 3)
        told = headline(name, folder) if status in {"ok", "FAILED"} else ""
        lines.append(f"{name:<12} {status:<10} {seconds:>5}  {(told or last)[:WIDTH]}")
    return "\n".join(lines)


def headline(step: str, folder: Path) -> str:
    """What this step's JSON says in one line; empty where it wrote none that can be read."""
    if step not in _FILES:
        return ""
    name, told = _FILES[step]
    try:
        return told(json.loads((folder / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""  # the step's own last line is shown instead


def _probes(record: Mapping[str, Any]) -> str:
    probes = record["probes"]
    failed = [name for name, probe in probes.items() if probe["status"] != "ok"]
    return f"{len(probes) - len(failed)} of {len(probes)} answered; not: {', '.join(failed) or '-'}"


def _verify(record: Mapping[str, Any]) -> str:
    private = [row["held_frac"] for row in record["rows"] if row["private"]]
    shared = [row["held_frac"] for row in record["rows"] if not row["private"]]
    leaked = sum(row["leaked"] for row in record["rows"])
    verdict = "passed" if record["passed"] else "FAILED"
    worst = f"{min(private):.0%}" + (f", shared {min(shared):.0%}" if shared else "")
    return f"{verdict}: worst held, private {worst}; leaks {leaked}"


def _goals(record: Mapping[str, Any]) -> str:
    known = [goal for goal in record["goals"] if goal["met"] is not None]
    met = sum(goal["met"] for goal in known)
    parts = [f"{goal['name'].split(', ')[-1]} {goal['got']:.2f}" for goal in known]
    return f"{met} of {len(record['goals'])} goals met; {'; '.join(parts) or 'none measured'}"


def _partition(record: Mapping[str, Any]) -> str:
    switch, create = record["switch_us"], record["create_us"]
    launch = record["launch_us"]
    added = f", a launch adds {launch['added']:.1f} us" if launch else ""
    return f"switch {switch['median']:.1f} us, create {create['median']:.0f} us{added}"


def _mps(record: Mapping[str, Any]) -> str:
    rows = record["rows"]
    parts = [f"{row['way']} R={row['tenants']}: {row['tflops']:.3g} TFLOP/s" for row in rows]
    return "; ".join(parts)


_FILES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "probes": ("probes.json", _probes),
    "verify": ("verify.json", _verify),
    "partition": ("partition.json", _partition),
    "flops": ("device_flops.json", _goals),
    "models": ("device_models.json", _goals),
    "mps": ("mps.json", _mps),
}


if __name__ == "__main__":
    sys.exit(main())
