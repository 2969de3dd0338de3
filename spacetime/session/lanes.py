"""The lanes of an open session, and who is on them: what a layout works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import spacetime._native as _native
from spacetime.devices.device import Device, Units
from spacetime.models.backend import Backend
from spacetime.session.executor import Executor
from spacetime.session.tenant import Tenant


class OpenLanes:
    """Opens lanes for a session, and tells its layout who is there.

    lock: the session's, over its tenants and lanes. partitions: the units of each lane, by its
    number; open() appends to it. tenants: the session's, by name.
    """

    def __init__(
        self,
        device: Device,
        executor: Executor,
        backend: Backend[Any],
        *,
        lock: RLock,
        partitions: list[Units],
        tenants: dict[str, Tenant],
    ) -> None:
        self.device = device
        self.backend = backend
        self.partitions = partitions
        self.tenants = tenants
        self._executor = executor
        self._lock = lock

    @property
    def native(self) -> _native.Executor:
        """The executor that runs the lanes; it takes routes, latencies and turns."""
        return self._executor.native

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Inside, no tenant comes or goes. Raises ClosedError where the session is closed."""
        with self._lock:
            self._executor.check_open()
            yield

    def open(
        self,
        partitions: Sequence[Units],
        *,
        priorities: Sequence[int] | None = None,
        pools: Sequence[int | None] | None = None,
    ) -> None:
        """Opens a lane on each partition; their numbers follow those of the lanes there are.

        priorities: of each lane's streams, larger first. pools: lanes of one number share what
        waits on any of them. Raises LaneLost, and then no lane is new.
        """
        self.backend.open(partitions)  # first: a lane's thread serves as soon as there is one
        unranked, apart = [0] * len(partitions), [None] * len(partitions)
        for units, priority, pool in zip(
            partitions, priorities or unranked, pools or apart, strict=True
        ):
            on = self.device.dispatched_on(units)
            self._executor.add_lane(on, self.backend.around, priority=priority, pool=pool)
            self.partitions.append(units)
