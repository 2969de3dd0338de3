"""A session: an opened device, its lanes, and the tenants that share them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from spacetime.devices.device import Device, Units, chosen, open_device
from spacetime.errors import InvalidInput, ModelError, SpacetimeError
from spacetime.kernels.tracing import undisturbed
from spacetime.models.backend import Family, FamilyOptions
from spacetime.models.modules import served
from spacetime.models.signature import signature_of
from spacetime.models.snapshot import Mould, copied
from spacetime.policy import Policy
from spacetime.reports.counters import Counters, counters
from spacetime.reports.recording import Recording
from spacetime.reports.report import session_report
from spacetime.reports.timeline import chrome_events
from spacetime.session import audit as audits
from spacetime.session.apart import Alone, add_audits, alone_of, take_apart, with_audits
from spacetime.session.arguments import (
    TenantOptions,
    free_name,
    policy_of,
    tenant_options,
)
from spacetime.session.backends import backend_of
from spacetime.session.executor import Executor
from spacetime.session.explain import explain
from spacetime.session.lanes import OpenLanes
from spacetime.session.layout import FreeLayout, SessionLayout, check_given
from spacetime.session.registry import Registry
from spacetime.session.tenant import Tenant
from spacetime.session.update import Updates


class Session:
    """Owns a device's lanes and the tenants that share them. Use it with `with`, or close() it.

    device: "cpu", "cuda:0", "fake:h200" (simulated), "auto", or what device.open_device returned.
    policy: a preset's name, such as "space-time", or a Policy.
    lanes: how many disjoint partitions; or the unit ids of each, which may overlap; None is the
    policy's own layout.
    sizes: instead of lanes, the cores or SMs of each partition, rounded up to whole units.
    priorities: of each lane's streams on a CUDA device, larger first where lanes overlap.
    max_batch: the largest number of samples that one launch may hold.
    timeline, record: keep what happened, for timeline() and recording().
    isolation: "process" gives each lane of cores a process of its own (docs/isolation.md).
    audit: the part of each tenant's answers, from 0 to 1, that are compared with its module run
    alone; a copy of every module is held for it.
    audit_stop: a difference takes its family apart: from then on the modules themselves answer, one
    request a launch (docs/serving.md).
    layout: decides lanes, routes and batch sizes instead of lanes, sizes, priorities and max_batch;
    None is the `FreeLayout` that these describe.
    `backend` is what holds the models and runs them. Any thread may call any method.
    Raises InvalidInput, UnsupportedError, DriverError, LaneLost.

    >>> with Session("cpu") as session:
    ...     tenant = session.add(model, example_inputs=(x,), slo_ms=50)
    ...     y = tenant(x)
    """

    def __init__(
        self,
        device: str | Device = "auto",
        *,
        policy: str | Policy = "space-time",
        lanes: int | Sequence[Sequence[int]] | None = None,
        sizes: Sequence[int] | None = None,
        priorities: Sequence[int] | None = None,
        max_batch: int = 16,
        timeline: bool = False,
        record: bool = False,
        isolation: str = "thread",
        audit: float = 0.0,
        audit_stop: bool = False,
        layout: SessionLayout | None = None,
    ) -> None:
        self.policy = policy_of(policy)
        self.policy_name = policy if isinstance(policy, str) else "custom"
        self.device = device if isinstance(device, Device) else open_device(device)
        if layout is not None:
            check_given(layout, lanes=lanes, sizes=sizes, priorities=priorities)
        self.layout = layout or FreeLayout(
            self.device,
            lanes=lanes,
            sizes=sizes,
            priorities=priorities,
            max_batch=max_batch,
            one=self.policy_name == "time-only",
        )
        self.partitions: list[Units] = []  # of the lanes, by their numbers
        self.tenants: dict[str, Tenant] = {}
        self._changing = threading.RLock()  # tenants, families and lanes
        self.auditor = audits.opened(audit, stop=audit_stop, differed=self._take_apart)
        # Before the executor, so that without a close() the processes end after its last launch.
        self.backend = backend_of(isolation, self.device, self.partitions, fuses=self.fuses)
        self._executor = Executor(
            self.policy,
            timeline=timeline,
            record=record,
            device=self.device.native,
            noted=audits.note_launches if self.auditor is not None else None,
        )
        self._registry = Registry(self._executor, self.backend)
        self._updates = Updates(
            self._changing, self._executor, self.backend, self._registry, self.tenants
        )
        self._open_lanes()

    @property
    def families(self) -> list[Family]:
        """Tenants that may share launches, each family once."""
        return self._registry.families

    @property
    def fuses(self) -> bool:
        """Whether the policy lets requests of different tenants share a launch."""
        return self.policy.batch != "one"

    @property
    def lane_pids(self) -> list[int | None]:
        """The process of each lane, None while it is down; none at all where lanes are threads."""
        return self.backend.pids

    def add(
        self,
        model: nn.Module | ExportedProgram,
        *,
        example_inputs: Sequence[Any],
        example_kwargs: Mapping[str, Any] | None = None,
        slo_ms: float | None = None,
        name: str | None = None,
        rate_rps: float = 1.0,
        priority: int = 0,
        weight: float = 1.0,
        queue_limit: int = 1024,
        memory_limit_mib: float | None = None,
        batchable: bool | None = None,
    ) -> Tenant:
        """Makes `model` a tenant; others keep running meanwhile. It is measured briefly.

        The tenant is a snapshot: weights, buffers and attributes are copied as they are now, and
        what is done to the module later changes no answer. `update` gives it other weights.

        example_inputs: one call's positional inputs: tensors `[n, ...]`, or tuples, lists and dicts
        of them, with a leading batch dimension.
        example_kwargs: the call's keywords, likewise.
        slo_ms: latency objective in ms; a request that has not started by then is dropped; None
        never drops.
        rate_rps: expected requests a second, for placing.
        priority: larger goes first (a request's own wins).
        weight: share under order `fair` and inside a fused batch.
        queue_limit: how many requests may wait; the next submit raises QueueFull.
        memory_limit_mib: of device memory for its weights, on a device with memory of its own.
        batchable: whether its requests may share a launch, with each other and with its family's:
        None leaves it to the proof of docs/answers.md, False never, True on its owner's word.
        Raises InvalidInput, ModelError, OutOfMemory, DriverError, ClosedError; the other tenants
        are not disturbed.
        """
        self._executor.check_open()
        with self._changing:
            if not self.partitions:
                raise InvalidInput("-", "lanes", "at least one when the session opens", "none")
            options = tenant_options(
                free_name(name, self.tenants),
                slo_ms=slo_ms,
                rate_rps=rate_rps,
                priority=priority,
                weight=weight,
                queue_limit=queue_limit,
                memory_limit_mib=memory_limit_mib,
                batchable=batchable,
            )
            return self._admitted(model, options, example_inputs, example_kwargs or {})

    def remove(self, tenant: Tenant) -> None:
        """Takes a tenant out: what waits gets ClosedError, what runs finishes, weights go."""
        with self._changing:
            if self.tenants.get(tenant.name) is not tenant:
                raise InvalidInput(tenant.name, "tenant", "one of this session's", "a stranger")
            del self.tenants[tenant.name]
            tenant.removed = True
        # Without the lock: the requests it waits for may have callbacks that want it.
        self._executor.remove(tenant.number, tenant.name, then=partial(self._leave, tenant))

    def update(self, tenant: Tenant, state_dict: Mapping[str, Any]) -> None:
        """Gives a tenant new weights while it is served. See Tenant.update."""
        self._updates.update(tenant, state_dict)

    def move_lane(self, lane: int, cores: Sequence[int]) -> None:
        """Moves a lane that has a process of its own to other cores. A new process takes the models
        beside the old one, then the lane's launches, then the old one ends. Raises InvalidInput for
        a lane without such a process, and LaneLost."""
        moved = chosen(self.device, [cores])[0]
        if not 0 <= lane < len(self.partitions):
            raise InvalidInput("-", "lane", f"below {len(self.partitions)}", str(lane))
        self.backend.move(lane, moved)
        self.partitions[lane] = moved

    def report(self) -> dict[str, Any]:
        """What happened since the session opened, in the format spacetime.report/1."""
        tenants = self.tenants.copy()
        numbers = {name: tenant.number for name, tenant in tenants.items()}
        report = session_report(self._executor.observed(), numbers, self.partitions)
        add_audits(report, tenants)
        return report

    def counters(self) -> Counters:
        """The sums behind report(), which only grow."""
        tenants = self.tenants.copy()
        numbers = {name: tenant.number for name, tenant in tenants.items()}
        sizes = [lane.size for lane in self._executor.lanes]
        return with_audits(counters(self._executor.native.stats(), numbers, sizes), tenants)

    def timeline(self) -> list[dict[str, Any]]:
        """Chrome trace events since the last call, one track a lane; needs timeline=True."""
        names = {tenant.number: tenant.name for tenant in self.tenants.values()}
        lanes = [f"lane {n} on cores {list(cores)}" for n, cores in enumerate(self.partitions)]
        return chrome_events(self._executor.native.timeline(), names, lanes)

    def recording(self) -> Recording:
        """Every event that the scheduler got, and every decision, since the session opened; needs
        record=True."""
        data = self._executor.native.recording()
        if not data:
            raise InvalidInput("-", "record", "True when the session opens", "False")
        return Recording(data)

    def explain(self) -> str:
        """Partitions, lanes, families, buckets and runners as text, and why they are so."""
        lanes = zip(self.partitions, self.backend.granted(self._executor.lanes), strict=True)
        return explain(
            device=self.device,
            name=self.policy_name,
            policy=self.policy,
            lanes=lanes,
            families=self.families,
            tenants=[*self.tenants.values()],
            audit=self.auditor.lines() if self.auditor is not None else [],
        )

    def close(self, *, drain: bool = True) -> None:
        """Ends the session: drain finishes what was accepted, else what waits gets ClosedError.

        Running launches always finish; afterwards every future is resolved. Idempotent.
        """
        self._executor.close(drain=drain)
        self.backend.close()
        if self.auditor is not None:
            self.auditor.close(drain=drain)

    def _open_lanes(self) -> None:
        lanes = OpenLanes(
            self.device,
            self._executor,
            self.backend,
            lock=self._changing,
            partitions=self.partitions,
            tenants=self.tenants,
        )
        try:
            self.layout.open(lanes)
        except BaseException:
            self.close(drain=False)
            raise

    def _admitted(
        self,
        model: nn.Module | ExportedProgram,
        options: TenantOptions,
        example_inputs: Sequence[Any],
        example_kwargs: Mapping[str, Any],
    ) -> Tenant:
        name, module = options.name, served(options.name, model)
        signature = signature_of(name, example_inputs, example_kwargs, also=self.backend.inputs)
        example: list[Tensor] = pytree.tree_leaves(copied((example_inputs, example_kwargs)))
        mould = Mould(name, module)
        kept = FamilyOptions(
            buckets=self.layout.buckets if self.fuses else [1],
            slo_ns=self.layout.bound_ns(options.slo_ms),
            batchable=options.batchable,
            memory_limit=options.memory_limit,
        )
        with undisturbed(), _in_a_line(name):
            family, member = self._registry.join(module, signature, example, kept)
        try:
            lane, shares = self.layout.route(name, family)
        except SpacetimeError:
            self._registry.leave(family, member)
            raise
        number = self._executor.native.add_tenant(
            family=family.number,
            priority=options.priority,
            weight=options.weight,
            queue_limit=options.queue_limit,
            lane=lane,
            lane_weights=shares,
        )
        tenant = Tenant(
            name,
            options.slo_ms,
            options.rate_rps,
            family,
            member,
            number,
            lane,
            signature,
            self._executor,
            mould,
            options.memory_limit,
            self._updates.update,
            options.priority,
        )
        self._audit(tenant, module, example)
        self.tenants[name] = tenant
        self.layout.joined()
        return tenant

    def _leave(self, tenant: Tenant) -> None:
        """Gives a removed tenant's memory back; called after its last launch."""
        with self._changing:
            self._registry.leave(tenant.family, tenant.member)
            if self.auditor is not None and tenant.watch is not None:
                self.auditor.forget(tenant.watch)

    def _audit(self, tenant: Tenant, model: nn.Module, example: Sequence[Tensor]) -> None:
        if self.auditor is None:
            return
        watch = self.auditor.watch(
            model,
            tenant._signature,
            example,
            family=tenant.family,
            member=tenant.member,
            least=self.backend.tolerance,
        )
        tenant.watch = watch
        if (alone := alone_of(tenant.family)) is not None:
            alone.watches[tenant.member] = watch

    def _take_apart(self, watch: audits.Watch, why: str) -> None:
        """What `audit_stop` does with the family of a tenant that was answered wrongly."""
        family = next((f for f in [*self.families] if f is watch.family), None)
        if family is not None and self.auditor is not None and alone_of(family) is None:
            alone = Alone(f"tenant {watch.tenant}: {why}", self.auditor.members(family))
            take_apart(family, alone, self._executor, self.layout.lanes_of(family))
            alone.watches.update(self.auditor.members(family))  # and who came meanwhile

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(drain=kind is None)


@contextmanager
def _in_a_line(tenant: str) -> Iterator[None]:
    """Whatever a model makes PyTorch raise while it is taken in is an error of this library."""
    try:
        yield
    except SpacetimeError:
        raise
    except Exception as error:
        raise ModelError(tenant, error) from error
