"""What a profile is made of: every round of every point, kept so that measuring can resume.

`<name>.rounds.csv` beside the profile holds one row a round; the profile itself is derived from
it: the median of a point's rounds, smoothed. Both are replaced as a whole, so that whoever reads
them, or takes up the work after a kill, never sees half a row.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median

from spacetime.errors import ProfileError
from spacetime.profiles.monotone import smoothed
from spacetime.profiles.profile import Key, Point, Profiles
from spacetime.profiles.profile_file import read_profiles, write_profiles
from spacetime.table_file import Table


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one point: what a launch took, and the first and last decile of its launches."""

    model: str
    device: str
    kind: str
    units: int
    batch: int
    procs: int
    tenants: int
    latency_ms: float
    low_ms: float
    high_ms: float
    launches: int
    memory_mib: float
    source: str = "measured"

    @property
    def key(self) -> Key:
        """The key of the point it belongs to."""
        return (self.model, self.kind, self.units, self.batch, self.procs, self.tenants)


HEADER = [each.name for each in fields(Round)]


@dataclass
class Rounds:
    """The rounds known of one profile file; `enough` rounds make a point.

    Points that were in the file before, without rounds of their own, are kept as they are.
    """

    path: Path
    device: str
    source: str
    enough: int
    kept: dict[Key, Point] = field(default_factory=dict)
    rounds: dict[Key, list[Round]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def open(
        cls, path: Path, device: str, source: str, *, enough: int, fresh: bool = False
    ) -> Rounds:
        """What is there already, or nothing. Raises ProfileError for files of another device."""
        found = cls(path, device, source, enough)
        if fresh:
            return found
        if found.beside.exists():
            for one in read_rounds(found.beside):
                found._check(one.device, one.source, found.beside)
                found.rounds[one.key].append(one)
        if path.exists():
            before = read_profiles(path)
            for point in before:
                found._check(point.device, point.source, path)
            found.kept = {p.key: p for p in before if p.key not in found.rounds}
        return found

    @property
    def beside(self) -> Path:
        """Where the rounds are."""
        return self.path.with_suffix(".rounds.csv")

    def missing(self, key: Key) -> int:
        """How many rounds a point still needs."""
        return 0 if key in self.kept else max(0, self.enough - len(self.rounds.get(key, ())))

    def add(self, one: Round) -> None:
        """Keeps a round, on disk before this returns; with the last of a point the profile too."""
        self.rounds[one.key].append(one)
        _replace(self.beside, [one for rounds in self.rounds.values() for one in rounds])
        if not self.missing(one.key):
            self.write()

    def points(self) -> list[Point]:
        """The raw points: medians of the rounds of all that have enough, and what was kept."""
        done = [rounds for key, rounds in self.rounds.items() if rounds and not self.missing(key)]
        return [*self.kept.values(), *(_point(rounds) for rounds in done)]

    def profiles(self) -> Profiles:
        """The points smoothed as far as noise explains; see `monotone`."""
        made = smoothed(self.points(), self.noise())
        return Profiles(tuple(sorted(made, key=lambda p: p.key)))

    def noise(self) -> dict[Key, float]:
        """How far apart the rounds are of every point that has more than one."""
        return {key: self.spread(key) for key, rounds in self.rounds.items() if len(rounds) > 1}

    def write(self) -> None:
        """Replaces the profile file."""
        made = self.path.with_name(self.path.name + ".new")
        write_profiles(made, self.profiles())
        made.replace(self.path)

    def spread(self, key: Key) -> float:
        """How far apart a point's rounds are: (slowest - fastest) / median; 0 where unknown."""
        took = [one.latency_ms for one in self.rounds.get(key, ())]
        return (max(took) - min(took)) / median(took) if took else 0.0

    def _check(self, device: str, source: str, path: Path) -> None:
        if (device, source) != (self.device, self.source):
            raise ProfileError(
                "device", f"{path} is {source} on {device}, this is {self.source} on "
                f"{self.device}; give another --out, or --fresh to begin anew",
            )  # fmt: skip


def read_rounds(path: Path) -> list[Round]:
    """Every round of a file. Raises ProfileError naming file, row and field."""
    found = []
    table = Table(path, ProfileError)
    for row, values in table.rows(HEADER):
        one = Round(**table.typed(row, values, Round))
        try:
            _point([one])
        except ProfileError as error:
            raise ProfileError(error.field, error.problem, where=f"{path}:{row}: ") from error
        found.append(one)
    return found


def _point(rounds: list[Round]) -> Point:
    """The median: one round beside something else that ran does not move it."""
    one, took = rounds[0], median(each.latency_ms for each in rounds)
    return Point(
        one.model, one.device, one.kind, one.units, one.batch, one.procs, took,
        one.batch * one.procs / took * 1e3 if took > 0 else 0.0, one.source, one.tenants,
        max(each.memory_mib for each in rounds) or None,
    )  # fmt: skip


def _replace(path: Path, rounds: Iterable[Round]) -> None:
    made = path.with_name(path.name + ".new")
    with made.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        rows.writerows([getattr(one, name) for name in HEADER] for one in rounds)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
