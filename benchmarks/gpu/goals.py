"""What was set out to be reached on an H200, and whether a record reaches it. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacetime.benchmarks.gpu.ways import BOUND, BRANCHES, OURS, SPACE_ONLY, TIME_ONLY
from spacetime.benchmarks.record import geometric_mean

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """At least (or, `below`, at most) so much of a quantity; `got` None where not measured."""

    name: str
    asked: float
    got: float | None
    below: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.got is None:
            return None
        return self.got <= self.asked if self.below else self.got >= self.asked


def speedups(row: Row) -> dict[str, float]:
    """How many times the best of each kind of rival our way is, by the row's median times."""
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
    """The rival with the least time, the upper bound aside."""
    us: dict[str, float] = row["us"]
    return min((way for way in us if way not in {OURS, BOUND}), key=us.__getitem__)


def flops_goals(rows: Sequence[Row]) -> list[Goal]:
    """conv2_2 in fp32: geometric means over R >= 2 against D-STS's own factors and beyond."""
    wanted = [
        row
        for row in rows
        if (row["problem"], row["precision"]) == ("conv2_2", "fp32")
        and row["tenants"] >= 2
        and OURS in row["us"]
    ]
    asked = {"time-only": 7.73, "space-only": 3.23, "best rival": 1.2, BOUND: 0.9}
    return [
        Goal(
            f"conv2_2 fp32, over {kind}",
            factor,
            geometric_mean(row["speedup"][kind] for row in wanted),
        )
        for kind, factor in asked.items()
    ]


def models_goals(rows: Sequence[Row]) -> list[Goal]:
    """ResNet-50, 16 tenants, one image each: every precision has to reach each factor."""
    goals = []
    for row in rows:
        if row["tenants"] != 16 or row["precision"] not in {"bf16", "tf32"}:
            continue
        us, name = row["us"], f"{row['model']} {row['precision']}, 16 tenants"
        got = dict(row.get("speedup", {}))
        if OURS in us and BRANCHES in us:
            got[BRANCHES] = us[BRANCHES] / us[OURS]
        for kind, factor in {"time-only": 5.0, "space-only": 2.0, BRANCHES: 1.3}.items():
            goals.append(Goal(f"{name}, over {kind}", factor, got.get(kind)))
        tail = row.get("serving", {}).get("p99_over_p50")
        goals.append(Goal(f"{name}, p99 over p50 at 80 % load", 1.2, tail, below=True))
    return goals


def told(goals: Iterable[Goal]) -> list[dict[str, Any]]:
    """Goals for a record."""
    return [{"name": g.name, "asked": g.asked, "got": g.got, "met": g.met} for g in goals]


def goal_cells(goals: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Rows of a table of what `told` recorded."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [(goal["name"], goal["asked"], goal["got"], words[goal["met"]]) for goal in goals]
