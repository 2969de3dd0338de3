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

from spacetime.errors import ClosedError, InvalidInput, UnsupportedError
from spacetime.kernels.tracing import undisturbed
from spacetime.models.cuda.family import ResidentFamily
from spacetime.models.cuda.prepare import resident_family
from spacetime.models.exports import exported_of
from spacetime.session.apart import alone_of
from spacetime.session.audit import updating
from spacetime.session.executor import Executor
from spacetime.session.tenant import AnyFamily, Tenant

Listener = Callable[[Tenant, nn.Module], None]  # the tenant, and its model with the new weights


class Updates:
    """Gives tenants of one session new weights, one at a time.

    changing: the session's lock over its tenants and families. listeners: called, under it, for
    each tenant whose new weights are in force.
    """

    def __init__(self, changing: RLock, executor: Executor, tenants: Mapping[str, Tenant]) -> None:
        self.listeners: list[Listener] = []
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
                family, old = self._put(tenant, model)
            for listener in self.listeners:
                listener(tenant, model)
        # Without the lock: the requests it waits for may have callbacks that want it.
        if isinstance(family, ResidentFamily):
            self._executor.after(tenant.name, old, partial(self._leave, family, old))

    def _put(self, tenant: Tenant, model: nn.Module) -> tuple[AnyFamily, int]:
        """Puts the new weights into force; which family and member held the old ones."""
        family, old = tenant.family, tenant.member
        if not isinstance(family, ResidentFamily):
            family.update(tenant.name, old, model)
        elif family.captured and family.graph is None:
            family = self._recaptured(tenant, family, model)
        else:
            tenant.member = family.update(tenant.name, model, tenant.memory_limit)
        if tenant.watch is not None:
            tenant.watch.member = tenant.member
            if (alone := alone_of(tenant.family)) is not None:
                alone.watches[tenant.member] = tenant.watch
        return family, old

    def _recaptured(
        self, tenant: Tenant, family: ResidentFamily, model: nn.Module
    ) -> ResidentFamily:
        """Puts graphs over the new weights in the place of those that name the old ones. What the
        family was until now, whose memory has to be given back."""
        new = resident_family(
            model,
            family.signature,
            family.example,
            family.place,
            exported_of(model, family.signature, family.example),
            buckets=family.buckets,
            share=False,
            limit=tenant.memory_limit,
        )
        if not new.captured:
            new.leave(0)
            raise UnsupportedError(
                f"tenant {tenant.name}: no graph holds the model with these weights "
                f"({new.why}); remove the tenant and add it anew"
            )
        old = family.become(new)
        for lane, runner in enumerate(new.runners):
            self._executor.native.set_native(family.native, runner.function, lane=lane)
        return old

    def _leave(self, family: ResidentFamily, row: int) -> None:
        with self._changing:
            family.leave(row)
