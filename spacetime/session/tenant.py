"""A tenant: a wrapped model with a latency objective, called like the model itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from spacetime.errors import ClosedError
from spacetime.models.backend import Family
from spacetime.models.signature import Signature
from spacetime.models.snapshot import Mould
from spacetime.reports.report import audited, tenant_report
from spacetime.session.arguments import MOST_MS, positive, priority_of
from spacetime.session.audit import Watch
from spacetime.session.executor import Executor, Superseded
from spacetime.units import ns_from_ms


@dataclass(eq=False)
class Tenant:
    """Made by Session.add(). Callable from any thread and, through infer(), from asyncio.

    member: the tenant's number in its family. number: its number in the executor. lane: the lane
    that a pinned route queues its requests on. mould: its model without the weights, for update().
    memory_limit: bytes of a device's memory that its weights may take. watch: its audit.
    """

    name: str
    slo_ms: float | None
    rate_rps: float
    family: Family
    member: int
    number: int
    lane: int
    _signature: Signature
    _executor: Executor
    mould: Mould
    memory_limit: int | None
    _update: Callable[[Tenant, Mapping[str, Any]], None]
    priority: int = 0
    removed: bool = False
    watch: Watch | None = None

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
        if priority is not None:
            priority = priority_of(self.name, priority)
        limit = self.slo_ms
        if deadline_ms is not None:
            limit = positive(self.name, "deadline_ms", deadline_ms, most=MOST_MS)
        if self.removed:
            raise ClosedError(f"tenant {self.name}: removed from the session")
        deadline_ns = None if limit is None else ns_from_ms(limit)
        while True:
            request = self.family.request(self.name, self.member, leaves, samples)
            if self.watch is not None and (sampled := self.watch.sampled(leaves)) is not None:
                request.future = sampled
            try:
                return self._executor.submit(self.number, request, deadline_ns, priority, self)
            except Superseded:  # an update came between: once more, with the new weights
                continue

    def update(self, state_dict: Mapping[str, Any]) -> None:
        """Gives the tenant new weights while it is served: a state dict of the model it was made
        of. It is copied, so the caller may go on training.

        Every answer is computed with the old weights or with the new ones, never with some of
        each; what is submitted after this has returned is answered with the new ones, and no
        request is lost. The whole state dict is checked first: what raises leaves the old weights
        in force. Any thread may call it; a few seconds may pass, while programs are prepared.
        Raises InvalidInput naming the key, ModelError, OutOfMemory, LaneLost, ClosedError.
        """
        self._update(self, state_dict)

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
        audit = {} if self.watch is None else audited(self.watch.counts)
        return tenant_report(self._executor.observed(), self.number) | audit
