"""New weights for a tenant that is served: made beside the old ones, then put into force at once.

Where a launch picks the weights up decides what "at once" is. On cores, in this process or in
others, that is the tenant's program, or the snapshot of its family's stack; on a device a row of
the weights, which each request names from its submission on, or the graphs that hold the only row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import RLock
from typing import Any

from torch import nn

from spacetime.errors import ClosedError, InvalidInput
from spacetime.kernels.tracing import undisturbed
from spacetime.models.backend import Backend
from spacetime.session.apart import alone_of
from spacetime.session.audit import updating
from spacetime.session.executor import Executor
from spacetime.session.registry import Registry
from spacetime.session.tenant import Tenant

Listener = Callable[[Tenant, nn.Module], None]  # the tenant, and its model with the new weights


class Updates:
    """Gives tenants of one session new weights, one at a time.

    changing: the session's lock over its tenants and families. tenants: the session's, by name.
    listeners: called, under the lock, for each tenant whose new weights are in force.
    """

    def __init__(
        self,
        changing: RLock,
        executor: Executor,
        backend: Backend[Any],
        registry: Registry,
        tenants: Mapping[str, Tenant],
    ) -> None:
        self.listeners: list[Listener] = []
        self._backend = backend
        self._registry = registry
        self._changing = changing
        self._executor = executor
        self._tenants = tenants

    def update(self, tenant: Tenant, state_dict: Mapping[str, Any]) -> None:
        """See Tenant.update."""
        with self._changing, undisturbed():
            self._executor.check_open()
            if tenant.removed:
                raise ClosedError(f"tenant {tenant.name}: removed from the session")
            if self._tenants.get(tenant.name) is not tenant:
                raise InvalidInput(tenant.name, "tenant", "one of this session's", "a stranger")
            model = tenant.mould.cast(state_dict)
            with updating(tenant.watch, model.state_dict()):
                old = tenant.member
                release = self._put(tenant, model)
            for listener in self.listeners:
                listener(tenant, model)
        # Without the lock: the requests it waits for may have callbacks that want it.
        if release is not None:
            self._executor.after(tenant.name, old, partial(self._release, release))

    def _put(self, tenant: Tenant, model: nn.Module) -> Callable[[], None] | None:
        """Puts the new weights into force; what gives the old ones' memory back, if anything has
        to once the requests that name them have ended."""
        family = tenant.family
        updated = self._backend.update(
            family, tenant.member, tenant.name, model, tenant.memory_limit
        )
        tenant.member = updated.member
        if updated.functions_changed:
            self._registry.bind(family)
        if tenant.watch is not None:
            tenant.watch.member = tenant.member
            if (alone := alone_of(family)) is not None:
                alone.watches[tenant.member] = tenant.watch
        return updated.release

    def _release(self, release: Callable[[], None]) -> None:
        with self._changing:
            release()
