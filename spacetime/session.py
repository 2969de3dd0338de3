"""A session: an opened device, its lanes, and the tenants that share them."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.core import Policy
from spacetime.device import chosen, divided, open_device, whole
from spacetime.errors import InvalidInput
from spacetime.executor import Executor
from spacetime.explain import explain
from spacetime.family import Family, family_of
from spacetime.measure import on_cores
from spacetime.report import session_report
from spacetime.signature import Signature, signature_of
from spacetime.tenant import Tenant
from spacetime.timeline import chrome_events
from spacetime.units import ns_from_ms

_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Session:
    """Owns a device's lanes and the tenants that share them. Use it with `with`, or close() it.

    device: "cpu" or "auto". policy: a preset's name (design §5) or a core.Policy. lanes: how many
    disjoint partitions, or the core ids of each (they may overlap); None is the policy's own
    layout. max_batch: largest number of samples one launch may hold. Any thread may call any
    method.

    >>> with Session("cpu") as session:
    ...     tenant = session.add(model, example_inputs=(x,), slo_ms=50)
    ...     y = tenant(x)
    """

    def __init__(
        self,
        device: str = "auto",
        *,
        policy: str | Policy = "space-time",
        lanes: int | Sequence[Sequence[int]] | None = None,
        max_batch: int = 16,
        timeline: bool = False,
    ) -> None:
        if not 1 <= max_batch <= _BUCKETS[-1]:
            raise InvalidInput("-", "max_batch", f"from 1 to {_BUCKETS[-1]}", str(max_batch))
        self.policy = Policy.named(policy) if isinstance(policy, str) else policy
        self.policy_name = policy if isinstance(policy, str) else "custom"
        self.device = open_device(device)
        self.partitions = self._layout(lanes)
        self.tenants: dict[str, Tenant] = {}
        self.families: list[Family] = []
        self._known: dict[str, Family] = {}  # by fingerprint
        self._changing = threading.Lock()  # tenants and families
        self._buckets = [b for b in _BUCKETS if b <= max_batch]
        self._executor = Executor(self.policy, timeline=timeline)
        for cores in self.partitions:
            self._executor.add_lane(cores)

    @property
    def fuses(self) -> bool:
        """Whether the policy lets requests of different tenants share a launch."""
        return self.policy.batch != "one"

    def add(
        self,
        model: nn.Module,
        *,
        example_inputs: Sequence[Any],
        example_kwargs: Mapping[str, Any] | None = None,
        slo_ms: float | None = None,
        name: str | None = None,
        rate_rps: float = 1.0,
        priority: int = 0,
        weight: float = 1.0,
        queue_limit: int = 1024,
    ) -> Tenant:
        """Makes `model` a tenant; others keep running meanwhile. It is measured briefly.

        example_inputs: one call's positional inputs: tensors, or tuples, lists and dicts of them,
        with a leading batch dimension. slo_ms: latency objective; a request that has not started
        by then is dropped, None never drops. rate_rps: expected rate, for placing. priority:
        larger goes first under order `priority`. weight: share under order `fair` and inside a
        fused batch. queue_limit: waiting requests; the next submit raises QueueFull.
        Raises InvalidInput, ModelError, ClosedError.
        """
        self._executor.check_open()
        with self._changing:
            name = self._free_name(name)
            _check_options(name, slo_ms, rate_rps, weight, queue_limit)
            _check_model(name, model)
            signature = signature_of(name, example_inputs, example_kwargs or {})
            example: list[Tensor] = pytree.tree_leaves((example_inputs, example_kwargs or {}))
            family = self._family_for(model, signature, example, slo_ms)
            member = family.join(model)
            self._predict(family)
            lane = self._least_loaded()
            number = self._executor.native.add_tenant(
                family=family.native,
                priority=priority,
                weight=weight,
                queue_limit=queue_limit,
                lane=lane,
            )
            tenant = Tenant(
                name, slo_ms, rate_rps, family, member, number, lane, signature, self._executor
            )
            self.tenants[name] = tenant
            return tenant

    def remove(self, tenant: Tenant) -> None:
        """Takes a tenant out: what waits gets ClosedError, what runs finishes, weights go."""
        with self._changing:
            if self.tenants.get(tenant.name) is not tenant:
                raise InvalidInput(tenant.name, "tenant", "one of this session's", "a stranger")
            del self.tenants[tenant.name]
            tenant.removed = True
            leave = partial(tenant.family.leave, tenant.member)
            self._executor.remove(tenant.number, tenant.name, then=leave)

    def report(self) -> dict[str, Any]:
        """What happened since the session opened (design §9, format spacetime.report/1)."""
        numbers = {name: tenant.number for name, tenant in self.tenants.items()}
        return session_report(self._executor.observed(), numbers, self.partitions)

    def timeline(self) -> list[dict[str, Any]]:
        """Chrome trace events since the last call, one track a lane; needs timeline=True."""
        names = {tenant.number: tenant.name for tenant in self.tenants.values()}
        return chrome_events(self._executor.native.timeline(), names, self.partitions)

    def explain(self) -> str:
        """Partitions, lanes, families, buckets and runners as text, and why they are so."""
        granted = [lane.granted_cores for lane in self._executor.lanes]
        lanes = zip(self.partitions, granted, strict=True)
        return explain(
            device=self.device,
            name=self.policy_name,
            policy=self.policy,
            lanes=lanes,
            families=self.families,
            tenants=[*self.tenants.values()],
        )

    def close(self, *, drain: bool = True) -> None:
        """Ends the session: drain finishes what was accepted, else what waits gets ClosedError.

        Running launches always finish; afterwards every future is resolved. Idempotent.
        """
        self._executor.close(drain=drain)

    def _layout(self, lanes: int | Sequence[Sequence[int]] | None) -> list[tuple[int, ...]]:
        if isinstance(lanes, int):
            return divided(self.device, lanes)
        if lanes is not None:
            return chosen(self.device, lanes)
        return whole(self.device) if self.policy_name == "time-only" else divided(self.device)

    def _family_for(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        slo_ms: float | None,
    ) -> Family:
        family, fingerprint = family_of(
            model,
            signature,
            example,
            self._known if self.fuses else {},
            buckets=self._buckets if self.fuses else [1],
            slo_ns=None if slo_ms is None else ns_from_ms(slo_ms),
            on_lane=partial(on_cores, self.partitions[0]),
        )
        if family.native < 0:
            family.native = self._executor.native.add_family(list(family.runner.buckets))
            self.families.append(family)
            if fingerprint is not None and self.fuses:
                self._known[fingerprint] = family
        return family

    def _predict(self, family: Family) -> None:
        """Tells the scheduler what the runner measured, for every lane and bucket."""
        for lane, bucket in itertools.product(range(len(self.partitions)), family.runner.buckets):
            ns = family.runner.predicted_ns(bucket)
            self._executor.native.set_latency(family.native, lane, bucket, ns)

    def _least_loaded(self) -> int:
        load = [0.0] * len(self.partitions)
        for tenant in self.tenants.values():
            load[tenant.lane] += tenant.rate_rps
        return load.index(min(load))

    def _free_name(self, name: str | None) -> str:
        if name is None:
            return next(n for i in itertools.count() if (n := f"tenant-{i}") not in self.tenants)
        if not name:
            raise InvalidInput("-", "name", "a text that is not empty", repr(name))
        if name in self.tenants:
            raise InvalidInput(name, "name", "unique in its session", "one already in use")
        return name

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close(drain=kind is None)


def _check_options(
    name: str, slo_ms: float | None, rate_rps: float, weight: float, queue_limit: int
) -> None:
    positive: Callable[[float], bool] = lambda x: math.isfinite(x) and x > 0  # noqa: E731
    if slo_ms is not None and not positive(slo_ms):
        raise InvalidInput(name, "slo_ms", "a positive number or None", str(slo_ms))
    if not positive(rate_rps):
        raise InvalidInput(name, "rate_rps", "a positive number", str(rate_rps))
    if not positive(weight):
        raise InvalidInput(name, "weight", "a positive number", str(weight))
    if queue_limit < 1:
        raise InvalidInput(name, "queue_limit", "at least 1", str(queue_limit))


def _check_model(name: str, model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidInput(name, "model", "a torch.nn.Module", type(model).__name__)
    training = [path for path, part in model.named_modules() if part.training]
    if training:
        where = training[0] or "the model itself"
        expected = "in eval mode (call model.eval())"
        raise InvalidInput(name, "model", expected, f"training mode in {where}")
    for path, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.device.type != "cpu":
            raise InvalidInput(name, f"model.{path} device", "cpu", str(tensor.device))
