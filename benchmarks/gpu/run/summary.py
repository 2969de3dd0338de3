"""What run.sh says at its end: the steps, the figure, and every goal: met, missed, not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from spacetime.benchmarks.gpu.names import OURS, STANDS_FOR
from spacetime.benchmarks.gpu.run import goals
from spacetime.benchmarks.gpu.run.steps import JUNIT

WIDTH = 110  # of a line
MOST = 11_500  # characters of it all: whoever keeps the last 12,000 of the output has all of it
Record = Mapping[str, Any]
StepTold = Mapping[str, Any]  # name, status, seconds and last: what it said last


def read_records(folder: Path, folded: Mapping[str, Record]) -> dict[str, Record]:
    """Returns every record by its topic: files of the folder, and what run.json holds."""
    by_topic: dict[str, Record] = dict(folded)
    for topic in ("partition", "verify", "device_flops", "device_models"):
        with suppress(OSError, ValueError):  # its step says why there is none
            record = json.loads((folder / f"{topic}.json").read_text(encoding="utf-8"))
            if isinstance(record, dict):
                by_topic[topic] = record
    return by_topic | {"tests": tests_of(folder / JUNIT)}


def tests_of(file: Path) -> dict[str, Any]:
    """Returns how many tests passed, failed and were skipped, by group, and which failed.

    A test that ended its process has failed.
    """
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "groups": {}}
    try:
        suites = [*ET.parse(file).getroot()]
    except (OSError, ET.ParseError):
        return counts
    for suite in suites:
        group = {"passed": 0, "failed": 0, "skipped": 0}
        counts["groups"][suite.get("name")] = group
        for case in suite:
            kinds = {child.tag for child in case}
            failed = bool(kinds & {"failure", "error"})
            group["failed" if failed else "skipped" if kinds else "passed"] += 1
            if failed:
                counts["failures"].append(f"{case.get('classname')}::{case.get('name')}")
        for kind, number in group.items():
            counts[kind] += number
    return counts


def text(
    steps: Sequence[StepTold], records: Mapping[str, Record], *, rehearsed: bool = False
) -> str:
    """Returns the summary; where it would be too long, rows of the figure go first."""
    judged = goals.every({} if rehearsed else records)
    head = [f"{'step':<16} {'status':<14} {'s':>5}  headline", *map(_step(records), steps)]
    lines = [*_goals(judged, rehearsed=rehearsed)]
    extra = [*_failures(records), *_figure(records.get("device_flops", {}))]
    room = MOST - sum(len(line) + 1 for line in (*head, *lines))
    kept: list[str] = []
    for line in (detail[:WIDTH] for detail in extra):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join((*head, *kept, *lines))


def _step(records: Mapping[str, Record]) -> Callable[[StepTold], str]:
    def line(step: StepTold) -> str:
        told = headline(step["name"], records) if step["status"] in {"ok", "FAILED"} else ""
        last = told or step["last"]
        return f"{step['name']:<16} {step['status']:<14} {step['seconds']:>5.0f}  {last}"[:WIDTH]

    return line


def _goals(judged: Sequence[goals.Goal], *, rehearsed: bool) -> Iterator[str]:
    counts = dict.fromkeys(goals.WORDS.values(), 0)
    for goal in judged:
        counts[goals.WORDS[goal.met]] += 1
    yield ""
    told = ", ".join(f"{number} {word}" for word, number in counts.items())
    yield f"goals: {told}" + (" (a rehearsal measures nothing)" if rehearsed else "")
    for goal in judged:
        sign = "<=" if goal.below else ">="
        got = "-" if goal.got is None else f"{goal.got:.3g}"
        over = f" ({goal.over})" if goal.over else ""
        yield f"{goals.WORDS[goal.met]:<12} {goal.name}: {got}, asked {sign} {goal.asked:g}{over}"[
            :WIDTH
        ]


def _figure(record: Record) -> Iterator[str]:
    """Each case's factor over each baseline by name, and the losses."""
    rows = [row for row in record.get("rows", []) if row.get("factor")]
    if not rows:
        return
    unreal = "; a rehearsal's numbers mean nothing" if record.get("unreal") else ""
    yield ""
    yield f"ours over each baseline, times as fast{unreal}"
    for row in rows:
        case = f"{row['problem']} {row['precision']} R={row['tenants']}"
        over = ", ".join(f"{way} x{factor:.2f}" for way, factor in row["factor"].items())
        yield f"{case}: {over}"
        if row["lost_to"]:
            yield f"{case}: LOST to {', '.join(row['lost_to'])}"
    yield from (f"  {way}: {words}" for way, words in STANDS_FOR.items() if way != OURS)


def _failures(records: Mapping[str, Record]) -> Iterator[str]:
    for name in records.get("tests", {}).get("failures", [])[:20]:
        yield f"test failed: {name}"


def headline(step: str, records: Mapping[str, Record]) -> str:
    """Returns what a step's record says in one line; empty where there is none to read."""
    if step.startswith("test-"):
        groups: Mapping[str, Record] = records.get("tests", {}).get("groups", {})
        counts = groups.get(step.removeprefix("test-"), {})
        return ", ".join(f"{number} {kind}" for kind, number in counts.items())
    if step not in _HEADLINES:
        return ""
    topic, told = _HEADLINES[step]
    try:
        return told(records[topic])
    except (KeyError, IndexError, TypeError, ValueError):
        return ""  # the step's own last line is shown instead


def _probes(record: Record) -> str:
    probes = record["probes"]
    failed = [name for name, probe in probes.items() if probe["status"] != "ok"]
    return f"{len(probes) - len(failed)} of {len(probes)} answered; not: {', '.join(failed) or '-'}"


def _verify(record: Record) -> str:
    private = [row["held_frac"] for row in record["rows"] if row["private"]]
    shared = [row["held_frac"] for row in record["rows"] if not row["private"]]
    leaked = sum(row["leaked"] for row in record["rows"])
    verdict = "passed" if record["passed"] else "not passed"
    worst = f"{min(private):.0%}" + (f", shared {min(shared):.0%}" if shared else "")
    return f"{verdict}, {len(record['rows'])} pairs: worst held, private {worst}; leaks {leaked}"


def _flops(record: Record) -> str:
    rows = record["rows"]
    best = max(row["tflops"].get(OURS, 0.0) for row in rows)
    lost = sum(bool(row.get("lost_to")) for row in rows)
    left = len(record["left_out"])
    return f"{len(rows)} cases, ours up to {best:.3g} TFLOP/s, {lost} lost, {left} left out"


def _models(record: Record) -> str:
    parts = []
    for row in record["rows"]:
        told = f"over the hardest, {row['hardest']}, x{row['speedup']['best rival']:.2f}"
        rate = f"{row['serving']['closed_rps']:.0f} answers/s" if "serving" in row else "no load"
        parts.append(f"{row['model']} {row['precision']} R={row['tenants']}: {told}, {rate}")
    return "; ".join(parts)


def _partition(record: Record) -> str:
    switch, create = record["switch_us"], record["create_us"]
    launch = record["launch_us"]
    added = f", a launch adds {launch['added']:.1f} us" if launch else ""
    return f"switch {switch['median']:.1f} us, create {create['median']:.0f} us{added}"


def _mps(record: Record) -> str:
    rows = [f"{row['way']}, {row['launched']} {row['tflops']:.3g}" for row in record["rows"]]
    if record["mps"]:
        rows.append(record["mps"])
    return f"TFLOP/s of R={record['rows'][0]['tenants']}: {'; '.join(rows)}"


_HEADLINES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "probes": ("probes", _probes),
    "verify": ("verify", _verify),
    "partition": ("partition", _partition),
    "flops": ("device_flops", _flops),
    "models": ("device_models", _models),
    "mps": ("mps", _mps),
}
