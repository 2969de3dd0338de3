"""What was set out to be reached on an H200, and whether records reach it. Pure arithmetic.

A goal is always named and judged, also where nothing of it was measured. Dry runs and fake devices
reach none: their records say `unreal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from spacetime.benchmarks.gpu.names import (
    BOUND,
    BRANCHES,
    EAGER,
    LOOP,
    OURS,
    PROCESSES,
    SERIAL,
    SPACE_ONLY,
    STREAMS,
    TIME_ONLY,
    UNDER_MPS,
)

Row = Mapping[str, Any]
LOST = 0.97  # a factor below this over a baseline is a loss: the rest is noise of the machine
MANY = 16  # tenants from which on a super-kernel has to come close to the bound
FIGURE = ("conv2_2", "fp32")  # the layer and the precision of the paper's figure
MODEL, MODEL_TENANTS, MODEL_DTYPES = "resnet-50", 16, ("bf16", "tf32")
SWITCH_US, LAUNCH_US = 100.0, 5.0
PRIVATE_HELD, PRIVATE_P99 = 0.9, 1.5  # spacetime.verify.bounds, which needs torch


@dataclass(frozen=True, slots=True)
class Goal:
    """At least (or, `below`, at most) so much of a quantity; `got` None where not measured."""

    name: str
    asked: float
    got: float | None
    below: bool = False
    over: str = ""  # what was averaged over, or the worst of

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.got is None:
            return None
        return self.got <= self.asked if self.below else self.got >= self.asked


def factors(row: Row) -> dict[str, float]:
    """Returns how many times as fast as each baseline ours is: `{baseline: factor}`.

    Baselines that pay their host are compared with ours from the call to the end, host included;
    captured ones by device time, on both sides.
    """
    us, wall_us = row["us"], row.get("wall_us", {})
    over = {}
    for way in us:
        of = wall_us if way in EAGER and {way, OURS} <= set(wall_us) else us
        if way != OURS and OURS in of:
            over[way] = of[way] / of[OURS]
    return over


def speedups(row: Row) -> dict[str, float]:
    """Returns how many times as fast as the best of each kind of rival ours is, by device time."""
    us = row["us"]
    ours = us[OURS]
    rivals = [way for way in us if way not in {OURS, BOUND}]
    kinds = {
        "time-only": [way for way in TIME_ONLY if way in us],
        "space-only": [way for way in SPACE_ONLY if way in us],
        "best rival": rivals,
        BOUND: [BOUND] if BOUND in us else [],
    }
    return {kind: min(us[way] for way in ways) / ours for kind, ways in kinds.items() if ways}


def hardest(row: Row) -> str:
    """Returns the rival with the least time; the upper bound does not count."""
    us: dict[str, float] = row["us"]
    return min((way for way in us if way not in {OURS, BOUND}), key=us.__getitem__)


def losses(row: Row) -> list[str]:
    """Returns the baselines that ours is slower than; the upper bound does not count."""
    return [way for way, factor in factors(row).items() if way != BOUND and factor < LOST]


def flops_goals(rows: Sequence[Row], processes: Sequence[Row] = ()) -> list[Goal]:
    """The paper's figure and beyond it: conv2_2 in fp32.

    rows: of `flops`; processes: of `mps`, which are compared with ours at the same R.
    """
    wanted = [row for row in rows if _of_figure(row) and OURS in row["us"]]
    several = [row for row in wanted if row["tenants"] >= 2]
    return [
        _mean(several, LOOP, 7.73, "eager launches in turn (time-only, the paper's way)"),
        _against_processes(wanted, processes, PROCESSES, 7.73, "a process a tenant in turn"),
        _mean(several, SERIAL, 3.0, "captured launches in turn (time-only)"),
        _mean(several, STREAMS, 3.23, "streams (space-only, the paper's way)"),
        _against_processes(wanted, processes, UNDER_MPS, 3.23, "processes under MPS"),
        _mean(several, "best rival", 1.2, "the best of all rivals"),
        _worst([row for row in wanted if row["tenants"] >= MANY], BOUND, 0.9),
    ]


def _of_figure(row: Row) -> bool:
    return (row["problem"], row["precision"]) == FIGURE


def _mean(rows: Sequence[Row], baseline: str, asked: float, words: str) -> Goal:
    """Returns the goal of the geometric mean of a factor over the R that were measured."""
    by_tenants = {
        row["tenants"]: factor
        for row in rows
        if (factor := (factors(row) | speedups(row)).get(baseline)) is not None
    }
    got = geometric_mean(by_tenants.values()) if by_tenants else None
    return Goal(f"conv2_2 fp32, over {words}", asked, got, over=_tenants("mean of", by_tenants))


def _worst(rows: Sequence[Row], baseline: str, asked: float) -> Goal:
    by_tenants = {r["tenants"]: factors(r)[baseline] for r in rows if baseline in r["us"]}
    name = f"conv2_2 fp32, part of the bound (one batch), R >= {MANY}"
    return Goal(
        name, asked, min(by_tenants.values(), default=None), over=_tenants("worst of", by_tenants)
    )


def _tenants(word: str, counts: Iterable[int]) -> str:
    """Returns over which numbers of tenants a goal is judged, in words."""
    numbers = ", ".join(map(str, counts))
    return f"{word} R = {numbers}" if numbers else ""


def _against_processes(
    rows: Sequence[Row], processes: Sequence[Row], way: str, asked: float, words: str
) -> Goal:
    """Answers a second of ours over those of as many processes, at one R; both pay their host.

    The processes launch eagerly, as the paper's do; what they get captured is in their record. They
    have the better of it: they enqueue several launches before they wait, and find their weights in
    the L2; ours waits for each launch and finds none there.
    """
    ours = {row["tenants"]: row for row in rows if "wall_us" in row and OURS in row["wall_us"]}
    for row in processes:
        if row["way"] == way and row["launched"] == "eager" and row["tenants"] in ours:
            count = row["tenants"]
            rate = count / ours[count]["wall_us"][OURS] * 1e6
            got = rate / sum(row["launches_s"])
            return Goal(f"conv2_2 fp32, over {words}", asked, got, over=_tenants("at", [count]))
    return Goal(f"conv2_2 fp32, over {words}", asked, None)


def models_goals(rows: Sequence[Row]) -> list[Goal]:
    """ResNet-50, 16 tenants, one image each: every precision has to reach each factor."""
    return [
        goal
        for dtype in MODEL_DTYPES
        for goal in _model_goals(next((r for r in rows if _of_model(r, dtype)), {}), dtype)
    ]


def _of_model(row: Row, dtype: str) -> bool:
    asked = (row["model"], row["tenants"], row["precision"])
    return asked == (MODEL, MODEL_TENANTS, dtype)


def _model_goals(row: Row, dtype: str) -> list[Goal]:
    us, name = row.get("us", {}), f"{MODEL} {dtype}, {MODEL_TENANTS} tenants"
    got = dict(row.get("speedup", {}))
    if OURS in us and BRANCHES in us:
        got[BRANCHES] = us[BRANCHES] / us[OURS]
    asked = {"time-only": 5.0, "space-only": 2.0, BRANCHES: 1.3}
    tail = row.get("serving", {}).get("p99_over_p50")
    return [
        *(Goal(f"{name}, over {kind}", factor, got.get(kind)) for kind, factor in asked.items()),
        Goal(f"{name}, p99 over p50 at 80 % load", 1.2, tail, below=True),
    ]


def partition_goals(record: Row) -> list[Goal]:
    """What a partition of SMs may cost."""
    added = (record.get("launch_us") or {}).get("added")
    switch = record.get("switch_us", {}).get("median")
    return [
        Goal("switch between rungs, us", SWITCH_US, switch, below=True),
        Goal("a launch over bare driver calls, us", LAUNCH_US, added, below=True),
    ]


def verify_goals(record: Row) -> list[Goal]:
    """What partitions of SMs must keep apart."""
    rows = record["rows"] if record.get("kind") == "sm" else []  # cores are another matter
    private = [row for row in rows if row["private"]]
    held = min((row["held_frac"] for row in private), default=None)
    p99 = max((row["p99_inflation"] for row in private), default=None)
    leaks = float(sum(row["leaked"] for row in rows)) if rows else None
    return [
        Goal("isolation: private work holds of its rate alone", PRIVATE_HELD, held),
        Goal("isolation: private work's p99, times alone", PRIVATE_P99, p99, below=True),
        Goal("isolation: launches seen outside their partition", 0, leaks, below=True),
    ]


def tests_goals(tests: Row) -> list[Goal]:
    """Returns the goal of tests, by how many passed and failed; none that ran is not measured."""
    ran = tests.get("passed", 0) + tests.get("failed", 0)
    failed = float(tests["failed"]) if ran else None
    over = f"of {ran} that ran" if ran else ""
    return [Goal("tests on the device that fail", 0, failed, below=True, over=over)]


def every(records: Mapping[str, Row]) -> list[Goal]:
    """Returns all goals of the project on this device, from records by their topic."""

    def of(topic: str) -> Row:
        record = records.get(topic, {})
        return {} if not isinstance(record, dict) or record.get("unreal") else record

    def rows(topic: str) -> Sequence[Row]:
        rows: Sequence[Row] = of(topic).get("rows", [])
        return rows

    return [
        *_judged(flops_goals, rows("device_flops"), rows("mps")),
        *_judged(models_goals, rows("device_models")),
        *_judged(partition_goals, of("partition")),
        *_judged(verify_goals, of("verify")),
        *_judged(tests_goals, of("tests")),
    ]


def _judged(judge: Callable[..., list[Goal]], *records: Any) -> list[Goal]:
    """Returns the judge's goals; where records are malformed, its goals as not measured."""
    try:
        return judge(*records)
    except (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError):
        return judge(*(type(record)() for record in records))


def told(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    """Returns goals as a record keeps them."""
    return [
        {"name": g.name, "asked": g.asked, "got": g.got, "met": g.met, "over": g.over}
        for g in goals
    ]


WORDS = {True: "met", False: "MISSED", None: "not measured"}


def goal_cells(goals: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Returns the rows of a table of what `told` recorded."""
    return [(goal["name"], goal["asked"], goal["got"], WORDS[goal["met"]]) for goal in goals]
