"""A tenant: a wrapped model with a latency objective, called like the model itself."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from spacetime.errors import ClosedError, InvalidInput
from spacetime.executor import Executor
from spacetime.family import Family
from spacetime.proc.family import ProcessFamily
from spacetime.report import tenant_report
from spacetime.resident import ResidentFamily
from spacetime.signature import Signature
from spacetime.units import ns_from_ms

AnyFamily = Family | ResidentFamily | ProcessFamily
MOST_PRIORITY = 2**31 - 1


def check_priority(tenant: str, priority: int) -> None:
    """Raises InvalidInput for what is no priority of a tenant or of a request."""
    whole = isinstance(priority, int) and not isinstance(priority, bool)
    if not whole or abs(priority) > MOST_PRIORITY:
        expected = f"a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}"
        raise InvalidInput(tenant, "priority", expected, repr(priority))


@dataclass(eq=False)
class Tenant:
    """Made by Session.add(). Callable from any thread and, through infer(), from asyncio."""

    name: str
    slo_ms: float | None
    rate_rps: float
    family: AnyFamily
    member: int  # its number in the family
    number: int  # its number in the executor
    lane: int  # where a pinned route queues it
    _signature: Signature
    _executor: Executor
    priority: int = 0
    removed: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns for these inputs; blocks. Raises what submit's future would."""
        return self.submit(*args, **kwargs).result()

    def submit(
        self,
        *args: Any,
        deadline_ms: float | None = None,
        priority: int | None = None,
        **kwargs: Any,
    ) -> Future[Any]:
        """A future of the model's answer; inputs must stay unchanged until it is resolved.

        deadline_ms: from now; the request is dropped at that instant unless it has started
        (default: the tenant's slo_ms). priority: its own, larger goes first (default: the
        tenant's).
        Raises InvalidInput, QueueFull, ClosedError; the future raises DeadlineExceeded,
        ModelError, ClosedError or is cancelled.
        """
        leaves, samples = self._signature.check(args, kwargs)
        limit = self.slo_ms if deadline_ms is None else self._deadline(deadline_ms)
        if self.removed:
            raise ClosedError(f"tenant {self.name}: removed from the session")
        if priority is not None:
            check_priority(self.name, priority)
        entry = self.family.entry(self.name, self.member, leaves, samples)
        deadline_ns = None if limit is None else ns_from_ms(limit)
        return self._executor.submit(self.number, entry, deadline_ns, priority)

    async def infer(
        self,
        *args: Any,
        deadline_ms: float | None = None,
        priority: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the model returns, awaited; cancelling the task withdraws the request."""
        future = self.submit(*args, deadline_ms=deadline_ms, priority=priority, **kwargs)
        return await asyncio.wrap_future(future)

    def report(self) -> dict[str, Any]:
        """This tenant's part of Session.report()."""
        return tenant_report(self._executor.observed(), self.number)

    def _deadline(self, deadline_ms: float) -> float:
        if not (math.isfinite(deadline_ms) and deadline_ms > 0):
            raise InvalidInput(self.name, "deadline_ms", "a positive number", str(deadline_ms))
        return deadline_ms
