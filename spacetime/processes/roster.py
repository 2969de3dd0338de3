"""The tenants that every lane's process has: sent to all, and to each process that comes later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from spacetime.errors import LaneLost
from spacetime.processes.area import Area
from spacetime.processes.process import ChildProcess


@dataclass(frozen=True, slots=True)
class Packed:
    """A tenant as a process takes it: its model in shared memory, and how to hold it."""

    model: Area
    name: str
    fuse: bool
    buckets: Sequence[int]
    batchable: bool | None = None


class Roster:
    """The tenants that a process has to have. Used only while holding `changing`: whoever holds it
    may put a process into a lane, and that process then has every tenant."""

    def __init__(self) -> None:
        self.changing = threading.RLock()  # its holder may collect a session as garbage
        self._tenants: dict[int, Packed] = {}

    def add(
        self,
        first: ChildProcess,
        others: Sequence[ChildProcess],
        tenant: int,
        packed: Packed,
        slo_ns: int | None,
    ) -> dict[int, dict[str, Any]]:
        """Sends a model to `first`, then to the others at once. What each process found out about
        the model, by lane.

        Where one of the others dies, its lane's next process gets the tenant. slo_ns: the objective
        that bounds its buckets. Raises InvalidInput, ModelError, or LaneLost of `first`, and then
        no process has the tenant.
        """
        try:
            # Alone at first: a model that ends its process ends one, and the buckets that the first
            # one measures are those of all.
            replies = {first.lane: _send(first, tenant, packed, slo_ns)}
            fitting = replace(packed, buckets=replies[first.lane]["buckets"])
            replies |= _at_once(others, partial(_send, tenant=tenant, packed=fitting, slo_ns=None))
        except BaseException:
            _leave([first, *others], tenant)
            raise
        self._tenants[tenant] = fitting
        return replies

    def update(self, children: Sequence[ChildProcess], tenant: int, model: Area) -> None:
        """Sends a tenant's model with other weights to one process, then to the others at once.

        Where one of the others dies, its lane's next process gets the new weights. Raises
        InvalidInput, ModelError, or LaneLost of the first, and then every process has the old ones.
        """
        old = self._tenants[tenant]
        new = replace(old, model=model)
        try:
            for first in children[:1]:  # one that the new weights end is not followed by others
                _update(first, tenant, new)
            _at_once(children[1:], partial(_update, tenant=tenant, packed=new))
        except BaseException:
            _at_once(children, partial(_update, tenant=tenant, packed=old))
            raise
        self._tenants[tenant] = new
        old.model.close()

    def leave(self, children: Sequence[ChildProcess], tenant: int) -> None:
        """Takes a tenant from every process."""
        if (packed := self._tenants.pop(tenant, None)) is not None:
            _leave(children, tenant)
            packed.model.close()

    def replay(self, child: ChildProcess) -> None:
        """Sends every tenant there is to a new process."""
        for tenant, packed in self._tenants.items():
            _send(child, tenant, packed, None)

    def close(self) -> None:
        """Gives the models' memory back."""
        for packed in self._tenants.values():
            packed.model.close()
        self._tenants.clear()


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Calls each on a thread of its own, and waits for all."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(child: ChildProcess, tenant: int, packed: Packed, slo_ns: int | None) -> dict[str, Any]:
    return child.tell(
        "add",
        packed.model.fd,
        tenant=tenant,
        name=packed.name,
        buckets=list(packed.buckets),
        slo_ns=slo_ns,
        fuse=packed.fuse,
        batchable=packed.batchable,
    )


def _at_once(
    children: Sequence[ChildProcess], tell: Callable[[ChildProcess], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """What each process replied, by lane. Raises what one of them raised, once all have replied."""
    replies: dict[int, dict[str, Any]] = {}
    failed: list[Exception] = []

    def ask(child: ChildProcess) -> None:
        try:
            replies[child.lane] = tell(child)
        except LaneLost:
            pass  # its lane's next process gets the tenant
        except Exception as why:
            failed.append(why)

    at_once([partial(ask, child) for child in children])
    if failed:
        raise failed[0]
    return replies


def _update(child: ChildProcess, tenant: int, packed: Packed) -> dict[str, Any]:
    return child.tell("update", packed.model.fd, tenant=tenant, name=packed.name)


def _leave(children: Sequence[ChildProcess], tenant: int) -> None:
    for child in children:
        with suppress(LaneLost):
            child.tell("leave", tenant=tenant)
