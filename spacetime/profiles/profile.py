"""Profiles: what was measured, or predicted, of a model at each (units, batch, procs). Pure.

`profile_file` reads and writes them as CSV; `profile_import` reads other projects' formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from spacetime.errors import ProfileError

KINDS = ("cores", "sm", "mps", "mig")
SOURCES = ("measured", "predicted")
LARGEST = 1e12  # of any number in a profile: more is a wrong unit, not a fast device
MOST_UNITS = 100_000
Key = tuple[str, str, int, int, int, int]  # model, kind, units, batch, procs, tenants


def _whole(field: str, value: object, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
        raise ProfileError(field, f"must be a whole number from 1 to {high}, got {value!r:.40}")


def _above_zero(field: str, value: object) -> None:
    # Every comparison with NaN is false, so it is refused with the rest.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value <= LARGEST):  # type: ignore[operator]
        raise ProfileError(
            field, f"must be a number above 0 and at most {LARGEST:g}, got {value!r:.40}"
        )


MOST_TEXT = 300


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of `model` on a partition of `device`.

    `procs` processes run side by side on the partition, each with batches of `batch` inputs that
    take `latency_ms`; `throughput_rps` is in inputs a second over all of them. `tenants`: how many
    tenants of the model's family, each with its own weights, share a launch (more than one: a
    super-kernel). `memory_mib`: device memory one process needs, weights and activations at this
    batch; None where unknown. Every value is checked; raises ProfileError naming the field.
    """

    model: str
    device: str
    kind: str
    units: int
    batch: int
    procs: int
    latency_ms: float
    throughput_rps: float
    source: str = "measured"
    tenants: int = 1
    memory_mib: float | None = None

    def __post_init__(self) -> None:
        for field, text in (("model", self.model), ("device", self.device)):
            if not isinstance(text, str) or not text.strip() or len(text) > MOST_TEXT:
                raise ProfileError(
                    field, f"must be a text of 1 to {MOST_TEXT} characters, got {text!r:.40}"
                )
        for field, text, allowed in (
            ("kind", self.kind, KINDS),
            ("source", self.source, SOURCES),
        ):
            if text not in allowed:
                raise ProfileError(field, f"must be one of {', '.join(allowed)}, got {text!r:.40}")
        _whole("units", self.units, MOST_UNITS)
        _whole("batch", self.batch, 2**31 - 1)
        _whole("procs", self.procs, 1000)
        _whole("tenants", self.tenants, self.batch)  # each has an input in the launch at least
        _above_zero("latency_ms", self.latency_ms)
        _above_zero("throughput_rps", self.throughput_rps)
        if self.memory_mib is not None:
            _above_zero("memory_mib", self.memory_mib)
        self._check_agreement()

    def _check_agreement(self) -> None:
        # A closed loop answers batch x procs inputs a latency. A rate far from that has the wrong
        # unit (seconds for milliseconds, batches for inputs, one process for all of them).
        expected = self.batch * self.procs / self.latency_ms * 1000
        if not expected / 5 <= self.throughput_rps <= expected * 5:
            raise ProfileError(
                "throughput_rps",
                f"{self.throughput_rps:g} is far from batch x procs / latency = {expected:g}; "
                "is a unit wrong (ms, inputs/s over all procs)?",
            )

    @property
    def key(self) -> Key:
        """What identifies a point of one device."""
        return (self.model, self.kind, self.units, self.batch, self.procs, self.tenants)


@dataclass(frozen=True)
class Profiles:
    """All points known of one device, immutable, indexed by model, partition and batch.

    Points of several tenants a launch are seen by `fused` and `at_fused`; every other query is
    about one tenant's own launches. Raises ProfileError for points of several devices, and for two
    of one key.

    >>> slow = Point("m", "a100-80gb", "mig", 1, 8, 1, latency_ms=40, throughput_rps=200)
    >>> fast = Point("m", "a100-80gb", "mig", 2, 8, 1, latency_ms=20, throughput_rps=400)
    >>> Profiles((slow, fast)).best("m", under_ms=30).units
    2
    """

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise ProfileError("profiles", "must hold at least one point")
        if len(devices := {point.device for point in self.points}) > 1:
            raise ProfileError("device", f"must be one device, got {', '.join(sorted(devices))}")
        if len(self._by_key) < len(self.points):
            keys = Counter(point.key for point in self.points)
            twice = next(key for key, times in keys.items() if times > 1)
            raise ProfileError("profiles", f"{' '.join(map(str, twice))} is given twice")

    @property
    def device(self) -> str:
        """The device every point was measured on."""
        return self.points[0].device

    @cached_property
    def _by_key(self) -> dict[Key, Point]:
        return {point.key: point for point in self.points}

    @cached_property
    def _by_model(self) -> dict[str, tuple[Point, ...]]:
        found: dict[str, list[Point]] = {}
        for point in sorted(self.points, key=lambda p: p.key):
            found.setdefault(point.model, []).extend([point] if point.tenants == 1 else [])
        return {model: tuple(points) for model, points in found.items()}

    @cached_property
    def _batches(self) -> dict[tuple[str, str, int, int], tuple[Point, ...]]:
        found: dict[tuple[str, str, int, int], list[Point]] = {}
        for point in (p for points in self._by_model.values() for p in points):
            found.setdefault((point.model, point.kind, point.units, point.procs), []).append(point)
        return {key: tuple(points) for key, points in found.items()}

    @cached_property
    def _fused(self) -> dict[str, tuple[Point, ...]]:
        found: dict[str, list[Point]] = {}
        for point in sorted(self.points, key=lambda p: (p.batch, p.tenants, p.key)):
            if point.tenants > 1:
                found.setdefault(point.model, []).append(point)
        return {model: tuple(points) for model, points in found.items()}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model there is a point of, in order of name."""
        return tuple(self._by_model)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of partition there are points of, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if any(p.kind == kind for p in self.points))

    @cached_property
    def states_memory(self) -> bool:
        """Whether any point says how much device memory it needs."""
        return any(point.memory_mib is not None for point in self.points)

    def of(
        self,
        model: str,
        *,
        kind: str | None = None,
        units: int | None = None,
        procs: int | None = None,
    ) -> tuple[Point, ...]:
        """A model's points, in order of (kind, units, batch, procs); empty for an unknown model."""
        return tuple(
            point
            for point in self._by_model.get(model, ())
            if (kind is None or point.kind == kind)
            and (units is None or point.units == units)
            and (procs is None or point.procs == procs)
        )

    def exact(self, model: str, kind: str, units: int, batch: int, procs: int = 1) -> Point | None:
        """The point of exactly this key, or None."""
        return self._by_key.get((model, kind, units, batch, procs, 1))

    def batches(self, model: str, kind: str, units: int, procs: int = 1) -> tuple[Point, ...]:
        """The points of one partition size by ascending batch; empty where none was measured."""
        return self._batches.get((model, kind, units, procs), ())

    def at(self, model: str, kind: str, units: int, batch: int, procs: int = 1) -> Point | None:
        """The point of the smallest measured batch that holds `batch` inputs (the rest is padding).

        None where no measured batch is that large.
        """
        measured = self.batches(model, kind, units, procs)
        return next((point for point in measured if point.batch >= batch), None)

    def fused(self, model: str) -> tuple[Point, ...]:
        """A model's points of several tenants a launch, in order of (batch, tenants)."""
        return self._fused.get(model, ())

    def at_fused(
        self, model: str, kind: str, units: int, batch: int, *, tenants: int, procs: int = 1
    ) -> Point | None:
        """The point a launch of `batch` inputs of up to `tenants` tenants is padded to.

        None where no measured batch is that large with that many tenants. One tenant, or one
        input, is a launch like any other.
        """
        if (mixed := min(tenants, batch)) == 1:
            return self.at(model, kind, units, batch, procs)
        return next(
            (
                point
                for point in self.fused(model)
                if (point.kind, point.units, point.procs) == (kind, units, procs)
                and point.batch >= batch
                and point.tenants >= mixed
            ),
            None,
        )

    def best(
        self,
        model: str,
        *,
        under_ms: float,
        kind: str | None = None,
        units: int | None = None,
        max_procs: int | None = None,
    ) -> Point | None:
        """The point of highest throughput whose latency is at most `under_ms`, or None.

        Ties go to fewer units, then the smaller batch, then fewer procs.
        """
        found = (
            point
            for point in self.of(model, kind=kind, units=units)
            if point.latency_ms <= under_ms and (max_procs is None or point.procs <= max_procs)
        )
        return max(
            found,
            key=lambda p: (p.throughput_rps, -p.units, -p.batch, -p.procs),
            default=None,
        )

    def only(self, *, kinds: Iterable[str]) -> Profiles:
        """These profiles, kept to points of some kinds. Raises ProfileError where none is left."""
        wanted = set(kinds)
        return Profiles(tuple(point for point in self.points if point.kind in wanted))

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)
