"""What decides a session's lanes: a layout. Here the free one, of lanes that the owner chose.

The layout of a plan is `live/plan_layout.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from spacetime.devices.device import Device, laid_out
from spacetime.errors import InvalidInput
from spacetime.models.backend import Family
from spacetime.session.arguments import check_layout, priorities_of, whole
from spacetime.session.lanes import OpenLanes
from spacetime.units import ns_from_ms

BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@runtime_checkable
class SessionLayout(Protocol):
    """Which lanes a session has, which of them run a tenant, and what bounds a family's batches.

    Used under the session's lock once it is open.
    """

    @property
    def buckets(self) -> Sequence[int]:
        """The batch sizes that families are prepared for, ascending."""

    def open(self, lanes: OpenLanes) -> None:
        """Opens the session's first lanes. Raises LaneLost, DriverError."""

    def bound_ns(self, slo_ms: float | None) -> int | None:
        """The latency objective that bounds a tenant's batches; None: nothing has to."""

    def route(self, tenant: str, family: Family) -> tuple[int, list[float]]:
        """The lane that a new tenant is pinned to, and its share of each lane where routes are
        weighted. Tells the scheduler how long the family's launches take. Raises PlanError."""

    def joined(self) -> None:
        """Called once a new tenant is one of the session's."""

    def lanes_of(self, family: Family) -> Iterable[int]:
        """The lanes that run a family's launches."""


class FreeLayout:
    """Disjoint partitions, or those that the owner named; a new tenant goes where least is to do.

    lanes, sizes, priorities, max_batch: as Session's. one: a single lane where neither lanes nor
    sizes are given. Raises InvalidInput, UnsupportedError.
    """

    def __init__(
        self,
        device: Device,
        *,
        lanes: int | Sequence[Sequence[int]] | None,
        sizes: Sequence[int] | None,
        priorities: Sequence[int] | None,
        max_batch: int,
        one: bool,
    ) -> None:
        largest = whole("-", "max_batch", max_batch, 1, BUCKETS[-1])
        check_layout(lanes, sizes, priorities)
        self.buckets: Sequence[int] = [bucket for bucket in BUCKETS if bucket <= largest]
        self._partitions = laid_out(device, lanes, sizes, one=one)
        most = 0 if device.native is None else device.native.priorities
        self._priorities = priorities_of(priorities, len(self._partitions), most)

    def open(self, lanes: OpenLanes) -> None:
        """Opens a lane on each partition."""
        self._lanes = lanes
        lanes.open(self._partitions, priorities=self._priorities)

    def bound_ns(self, slo_ms: float | None) -> int | None:
        """A tenant's own objective."""
        return None if slo_ms is None else ns_from_ms(slo_ms)

    def route(self, tenant: str, family: Family) -> tuple[int, list[float]]:
        """The lane whose tenants expect the fewest requests a second; no weighted shares.

        The scheduler gets what was measured of the family for every lane, for a route may choose
        any of them.
        """
        numbers = range(len(self._lanes.partitions))
        for lane, bucket in itertools.product(numbers, family.buckets):
            ns = family.predicted_ns(lane, bucket)
            self._lanes.native.set_latency(family.number, lane, bucket, ns)
        rates_rps = [0.0 for _ in numbers]
        for other in self._lanes.tenants.values():
            rates_rps[other.lane] += other.rate_rps
        return rates_rps.index(min(rates_rps)), []

    def joined(self) -> None:
        """Nothing: no lane takes turns by a plan."""

    def lanes_of(self, family: Family) -> Iterable[int]:
        """Every lane: each may be lent to what waits on another."""
        return range(len(self._lanes.partitions))


def check_given(layout: SessionLayout, **instead: object) -> None:
    """Checks a layout that an owner gave, and the options that it stands in for (`instead`).

    Raises InvalidInput for what is no layout, and for an option that nothing would follow.
    """
    if not isinstance(layout, SessionLayout):
        expected = "what has the methods of spacetime.session.layout.SessionLayout"
        raise InvalidInput("-", "layout", expected, repr(layout))
    for name, value in instead.items():
        if value is not None:
            raise InvalidInput("-", name, "left out where a layout is given", repr(value))
