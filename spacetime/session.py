"""A session: an opened device, its lanes, and the tenants that share them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from spacetime.admission import exported_of, resident_family
from spacetime.arguments import check_layout, name_of, options_of, policy_of, whole
from spacetime.capture import capturer_of
from spacetime.core import Policy
from spacetime.counters import Counters, counters
from spacetime.device import Device, chosen, laid_out, open_device
from spacetime.errors import InvalidInput, ModelError, SpacetimeError
from spacetime.executor import Executor, serving
from spacetime.explain import explain
from spacetime.family import Family, family_of
from spacetime.fusion import Exported, fingerprint
from spacetime.measure import on_cores
from spacetime.modules import served
from spacetime.proc.family import ProcessFamily, hosted
from spacetime.recording import Recording
from spacetime.report import session_report
from spacetime.resident import Place, ResidentFamily
from spacetime.signature import Signature, signature_of
from spacetime.tenant import AnyFamily, Tenant
from spacetime.timeline import chrome_events
from spacetime.tracing import undisturbed
from spacetime.units import ns_from_ms

_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Session:
    """Owns a device's lanes and the tenants that share them. Use it with `with`, or close() it.

    device: "cpu", "cuda:0", "fake:h200" (simulated), "auto", or what device.open_device returned.
    policy: a preset's name (design §5) or a core.Policy. lanes: how many disjoint partitions; or
    the unit ids of each (they may overlap); None is the policy's own layout. sizes: instead of
    lanes, the cores or SMs of each partition, rounded up to whole units. priorities: of each lane's
    streams on a CUDA device, larger first where lanes overlap. max_batch: largest number of samples
    one launch may hold. timeline, record: keep what happened, for timeline() and recording().
    isolation: "process" gives each lane of cores a process of its own (docs/isolation.md).
    Any thread may call any method.

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
    ) -> None:
        max_batch = whole("-", "max_batch", max_batch, 1, _BUCKETS[-1])
        check_layout(lanes, sizes, priorities)
        self.policy = policy_of(policy)
        self.policy_name = policy if isinstance(policy, str) else "custom"
        self.device = device if isinstance(device, Device) else open_device(device)
        self.partitions = laid_out(self.device, lanes, sizes, one=self.policy_name == "time-only")
        self.tenants: dict[str, Tenant] = {}
        self.families: list[AnyFamily] = []
        self._known: dict[str, Family | ResidentFamily] = {}  # by fingerprint
        self._changing = threading.Lock()  # tenants and families
        self._buckets = [b for b in _BUCKETS if b <= max_batch]
        native = self.device.native
        capturer = capturer_of(native, self.device.name) if native is not None else None
        # Before the executor, so that without a close() the processes end after its last launch.
        self._hosted = hosted(isolation, self.device, self.partitions)
        self._executor = Executor(self.policy, timeline=timeline, record=record, device=native)
        self._around = self._hosted.lanes.serving if self._hosted else partial(serving, capturer)
        for units, priority in zip(self.partitions, self._priorities(priorities), strict=True):
            on = self.device.dispatched_on(units)
            self._executor.add_lane(on, self._around, priority=priority)
        self._place: Place | None = None
        if native is not None and capturer is not None:
            self._place = Place(native, capturer, self._executor.sm_partitions())

    @property
    def fuses(self) -> bool:
        """Whether the policy lets requests of different tenants share a launch."""
        return self.policy.batch != "one"

    @property
    def lane_pids(self) -> list[int | None]:
        """The process of each lane, None while it is down; none at all where lanes are threads."""
        return self._hosted.lanes.pids if self._hosted is not None else []

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
    ) -> Tenant:
        """Makes `model` a tenant; others keep running meanwhile. It is measured briefly.

        example_inputs: one call's positional inputs: tensors, or tuples, lists and dicts of them,
        with a leading batch dimension. slo_ms: latency objective; a request that has not started
        by then is dropped, None never drops. rate_rps: expected rate, for placing. priority:
        larger goes first under order `priority`. weight: share under order `fair` and inside a
        fused batch. queue_limit: waiting requests; the next submit raises QueueFull.
        memory_limit_mib: of device memory for its weights, on a device with memory of its own.
        Raises InvalidInput, ModelError, OutOfMemory, DriverError, ClosedError; the other tenants
        are not disturbed.
        """
        self._executor.check_open()
        with self._changing:
            if not self.partitions:
                raise InvalidInput("-", "lanes", "at least one when the session opens", "none")
            name = self._free_name(name)
            told = options_of(
                name, slo_ms, rate_rps, priority, weight, queue_limit, memory_limit_mib
            )
            module = served(name, model)
            also = self._place.inputs if self._place is not None else ()
            signature = signature_of(name, example_inputs, example_kwargs or {}, also=also)
            example: list[Tensor] = pytree.tree_leaves((example_inputs, example_kwargs or {}))
            with undisturbed(), _in_a_line(name):
                family, member = self._joined(module, signature, example, told.slo_ms, told.limit)
            try:
                lane, shares = self._routed(name, family)
            except SpacetimeError:
                family.leave(member)
                raise
            number = self._executor.native.add_tenant(
                family=family.native,
                priority=told.priority,
                weight=told.weight,
                queue_limit=told.queue_limit,
                lane=lane,
                lane_weights=shares,
            )
            own = (number, lane, signature, self._executor)
            tenant = Tenant(name, told.slo_ms, told.rate_rps, family, member, *own)
            self.tenants[name] = tenant
            return tenant

    def remove(self, tenant: Tenant) -> None:
        """Takes a tenant out: what waits gets ClosedError, what runs finishes, weights go."""
        with self._changing:
            if self.tenants.get(tenant.name) is not tenant:
                raise InvalidInput(tenant.name, "tenant", "one of this session's", "a stranger")
            del self.tenants[tenant.name]
            tenant.removed = True
            self._executor.remove(tenant.number, tenant.name, then=partial(self._leave, tenant))

    def move_lane(self, lane: int, cores: Sequence[int]) -> None:
        """Moves a lane in a process to other cores: a new process takes its models beside the old
        one, then its launches, then the old one ends. Raises InvalidInput, LaneLost."""
        moved = chosen(self.device, [cores])[0]
        if self._hosted is None or self.device.environments:
            raise InvalidInput("-", "lane", "of cores, in a process of its own", f"lane {lane}")
        if not 0 <= lane < len(self.partitions):
            raise InvalidInput("-", "lane", f"below {len(self.partitions)}", str(lane))
        self._hosted.lanes.replace(lane, moved)
        self.partitions[lane] = moved

    def report(self) -> dict[str, Any]:
        """What happened since the session opened (design §9, format spacetime.report/1)."""
        numbers = {name: tenant.number for name, tenant in self.tenants.items()}
        return session_report(self._executor.observed(), numbers, self.partitions)

    def counters(self) -> Counters:
        """The sums behind report(), which only grow: for metrics."""
        numbers = {name: tenant.number for name, tenant in self.tenants.copy().items()}
        sizes = [lane.size for lane in self._executor.lanes]
        return counters(self._executor.native.stats(), numbers, sizes)

    def timeline(self) -> list[dict[str, Any]]:
        """Chrome trace events since the last call, one track a lane; needs timeline=True."""
        names = {tenant.number: tenant.name for tenant in self.tenants.values()}
        lanes = [f"lane {n} on cores {list(cores)}" for n, cores in enumerate(self.partitions)]
        return chrome_events(self._executor.native.timeline(), names, lanes)

    def recording(self) -> Recording:
        """What the scheduler was told and decided since the session opened; needs record=True."""
        data = self._executor.native.recording()
        if not data:
            raise InvalidInput("-", "record", "True when the session opens", "False")
        return Recording(data)

    def explain(self) -> str:
        """Partitions, lanes, families, buckets and runners as text, and why they are so."""
        granted = [lane.size for lane in self._executor.lanes]
        if self.device.environments and self._hosted is not None:
            granted = self._hosted.lanes.granted
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
        if self._hosted is not None:
            self._hosted.lanes.close()

    def _priorities(self, given: Sequence[int] | None) -> Sequence[int]:
        if given is None:
            return [0] * len(self.partitions)
        native = self.device.native
        most = 0 if native is None else native.priorities
        if len(given) != len(self.partitions) or not all(0 <= p <= most for p in given):
            expected = f"one for each of {len(self.partitions)} lanes, from 0 to {most}"
            raise InvalidInput("-", "priorities", expected, str(list(given)))
        return given

    def _joined(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        slo_ms: float | None,
        limit: int | None,
    ) -> tuple[AnyFamily, int]:
        """The family of `model` and its member number there, wherever its weights live."""
        if self._place is not None:
            return self._resident(model, signature, example, slo_ms, limit)
        if self._hosted is None:
            return self._on_cores(model, signature, example, slo_ms)
        buckets, bound = self._buckets if self.fuses else [1], self._bound_ns(slo_ms)
        return self._hosted.add(
            model, signature, example, buckets, bound, add_family=self._add_family
        )

    def _on_cores(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        slo_ms: float | None,
    ) -> tuple[Family, int]:
        """The family of `model` on cores, and its member number there."""
        known = {k: f for k, f in self._known.items() if isinstance(f, Family)}
        family, fingerprint = family_of(
            model,
            signature,
            example,
            known if self.fuses else {},
            buckets=self._buckets if self.fuses else [1],
            slo_ns=self._bound_ns(slo_ms),
            on_lane=partial(on_cores, self.partitions[0]),
        )
        if family.native < 0:
            self._add_family(family)
            if fingerprint is not None and self.fuses:
                self._known[fingerprint] = family
        return family, family.join(model)

    def _add_family(self, family: Family | ProcessFamily) -> None:
        family.native = self._executor.native.add_family(list(family.buckets))
        self.families.append(family)

    def _resident(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        slo_ms: float | None,
        limit: int | None,
    ) -> tuple[ResidentFamily, int]:
        """The family of `model` on a device with memory of its own, and its row there."""
        assert self._place is not None
        exported = exported_of(model, signature, example)
        print_ = None
        if self.fuses and isinstance(exported, Exported):
            print_ = fingerprint(exported)
        known = self._known.get(print_) if print_ is not None else None
        if isinstance(known, ResidentFamily) and known.graph is not None:
            return known, known.join(signature.tenant, model, limit)
        family = resident_family(
            model,
            signature,
            example,
            self._place,
            exported,
            buckets=[b for b in self._buckets if b & (b - 1) == 0] if self.fuses else [1],
            share=self.fuses,
            limit=limit,
        )
        family.keep_within(self._bound_ns(slo_ms))
        family.native = self._executor.native.add_family(list(family.buckets))
        for lane, runner in enumerate(family.runners):
            self._executor.native.set_native(family.native, runner.function, lane=lane)
        self.families.append(family)
        if print_ is not None:
            self._known[print_] = family
        return family, 0

    def _leave(self, tenant: Tenant) -> None:
        """After the last launch of a removed tenant: its memory goes."""
        family = tenant.family
        family.leave(tenant.member)
        if isinstance(family, ResidentFamily) and not family.members:
            self._known = {k: f for k, f in self._known.items() if f is not family}
            self.families = [f for f in self.families if f is not family]

    def _bound_ns(self, slo_ms: float | None) -> int | None:
        """The objective that bounds a family's batches."""
        return None if slo_ms is None else ns_from_ms(slo_ms)

    def _routed(self, name: str, family: AnyFamily) -> tuple[int, list[float]]:
        """A new tenant's own lane, and its share of each lane where routes are weighted.

        Tells the scheduler what was measured, for every lane and bucket.
        """
        for lane, bucket in itertools.product(range(len(self.partitions)), family.buckets):
            ns = family.predicted_ns(lane, bucket)
            self._executor.native.set_latency(family.native, lane, bucket, ns)
        load = [0.0] * len(self.partitions)
        for tenant in self.tenants.values():
            load[tenant.lane] += tenant.rate_rps
        return load.index(min(load)), []

    def _free_name(self, name: str | None) -> str:
        if name is None:
            return next(n for i in itertools.count() if (n := f"tenant-{i}") not in self.tenants)
        return name_of(name, self.tenants)

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
