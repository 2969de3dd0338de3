"""Families on a CUDA device: weights resident once, one captured graph a lane and bucket.

A family that can be fused runs every batch, whichever tenants it mixes, as one graph over slots
whose rows name the tenants; so tenants join and leave without a new capture. A model that cannot is
captured alone; one whose work depends on values (no export, rows that depend on each other, random
numbers) runs eagerly on the lane's stream.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from spacetime import _native
from spacetime.capture import Capturer, view
from spacetime.errors import ModelError, SpacetimeError
from spacetime.fusion import (
    CannotExport,
    CannotFuse,
    SlotGraph,
    export,
    fingerprint,
    placed,
    slot_graph,
)
from spacetime.program import Flat, Outputs, close, outputs_of, rows_are_independent, spread
from spacetime.runner import Entry, Work
from spacetime.signature import Signature
from spacetime.units import ms_from_ns
from spacetime.weights import Slab, Weights, slabs

NO_RUN = torch.tensor(-1)  # on the host: rows are never looked at there
SPIN_NS = 50_000  # how long a lane looks for its launch's end before it sleeps
_TIMINGS = 3

Program = Callable[..., Sequence[Tensor]]  # (rows, *inputs) -> flat outputs


@dataclass(frozen=True, slots=True)
class Place:
    """Where families live: a device, how PyTorch reaches it, and the lanes' partitions."""

    native: _native.CudaDevice
    capturer: Capturer
    partitions: Sequence[_native.SmPartition]

    @property
    def host_memory(self) -> bool:
        """Whether the device's memory is the host's, as a fake's is."""
        return isinstance(self.native, _native.FakeCudaDevice)


@dataclass(slots=True)
class ResidentFamily:
    """Members of one architecture on a device; `runners` are empty where it runs eagerly."""

    place: Place
    signature: Signature
    outputs: Outputs
    tails: tuple[tuple[torch.Size, torch.dtype], ...]  # of each output, without the batch
    graph: SlotGraph | None  # over slots; None for a family of one
    weights: Weights
    module: nn.Module | None  # of a family of one, over its row of the weights
    why: str
    buckets: tuple[int, ...] = (1,)
    runners: list[_native.Runner] = field(default_factory=list)  # by lane
    latency_ns: dict[tuple[int, int], int] = field(default_factory=dict)  # by lane and bucket
    device_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    members: set[int] = field(default_factory=set)
    native: int = -1  # its number in the executor

    @property
    def captured(self) -> bool:
        """Whether graphs run it, without the interpreter."""
        return bool(self.runners)

    def join(self, tenant: str, model: nn.Module, limit: int | None) -> int:
        """The row of `model`, which has this family's fingerprint. Raises OutOfMemory."""
        row = self.weights.free_row()
        try:
            self.weights.add(tenant, row, self._values(model), limit)
        except SpacetimeError:
            if row in self.weights.rows:
                self.weights.remove(row)
            raise
        self.members.add(row)
        return row

    def leave(self, row: int) -> None:
        """Gives a member's memory back, and with the last one's that of the graphs."""
        self.members.discard(row)
        if not self.members:
            for runner in self.runners:
                runner.clear()
            self.module = None
        self.weights.remove(row)
        self.place.capturer.release()

    def keep_within(self, slo_ns: int | None) -> None:
        """Forgets batch sizes of which two in a row would not meet the objective on any lane."""
        lanes = range(len(self.place.partitions))
        fastest = {b: min(self.latency_ns[lane, b] for lane in lanes) for b in self.buckets}
        fits = [b for b in self.buckets if slo_ns is None or 2 * fastest[b] <= slo_ns]
        self.buckets = tuple(fits) or self.buckets[:1]

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch of that bucket, as measured."""
        return self.latency_ns[lane, bucket]

    def entry(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> Entry:
        """A request as the executor takes it."""
        if not self.captured:
            return Entry(tenant, member, self, leaves, samples)
        inputs = [x.contiguous() for x in leaves]
        payload, outputs, event = self.payload(member, inputs, samples)
        build, kept = self.outputs.build, (payload, event)
        return Entry(tenant, member, self, inputs, samples, payload.token, outputs, build, kept)

    def payload(
        self, member: int, inputs: Sequence[Tensor], samples: int
    ) -> tuple[_native.Payload, list[Tensor], torch.cuda.Event | None]:
        """What a native runner takes for a request, its outputs, and the event it waits for."""
        on = inputs[0].device
        outputs = [torch.empty((samples, *tail), dtype=t, device=on) for tail, t in self.tails]
        event = torch.cuda.current_stream(on).record_event() if on.type == "cuda" else None
        payload = _native.Payload(
            member,
            samples,
            [x.data_ptr() for x in inputs],
            [y.data_ptr() for y in outputs],
            on_device=event is not None,
            ready=event.cuda_event if event is not None else 0,
        )
        return payload, outputs, event

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Eagerly, each request as it was submitted, on the calling lane's stream."""
        module, device = self.module, self.place.capturer.device
        assert module is not None
        answers = []
        for work in batch:
            flat = module(*(x.to(device) for x in work.leaves))
            answers.append(self.outputs.build([y.to(work.leaves[0].device) for y in flat]))
        return answers

    def how(self) -> str:
        """What runs the family, in words."""
        if not self.captured:
            return "PyTorch, eagerly on the lane's stream"
        what = "super-kernels over slots" if self.graph is not None else "the model alone"
        return f"{what}, one captured graph a lane and bucket"

    def lines(self) -> list[str]:
        """For explain(): what runs it, why, its memory and its measured times."""
        size = self.weights.row_bytes / 2**20
        lines = [f"  runs as: {self.how()}"]
        lines += [f"  because: {self.why}"] if self.why else []
        lines.append(f"  weights: {size:.2f} MiB a tenant, resident once for all lanes")
        for (lane, bucket), ns in sorted(self.latency_ns.items()):
            device = ms_from_ns(self.device_ns.get((lane, bucket), 0))
            lines.append(
                f"  lane {lane} bucket {bucket:>3}: {ms_from_ns(ns):.3f} ms, "
                f"of which {device:.3f} ms on the device"
            )
        return lines

    def _values(self, model: nn.Module) -> list[Tensor]:
        if self.graph is None:
            return [t.detach() for t in _tensors(model)]
        return [entry.compute(model.state_dict()) for entry in self.graph.plain.entries]


def fingerprint_of(model: nn.Module, signature: Signature, example: Sequence[Tensor]) -> str | None:
    """What tenants of one family have in common; None for a model that has to stay alone."""
    args, kwargs = pytree.tree_unflatten(list(example), signature.spec)
    try:
        return fingerprint(model, args, kwargs)
    except CannotExport:
        return None


def resident_family(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    place: Place,
    *,
    buckets: Sequence[int],
    share: bool,
    limit: int | None,
) -> ResidentFamily:
    """A family with `model` as its first member, captured and measured on every lane.

    Raises ModelError, InvalidInput, OutOfMemory (nothing stays behind), DriverError.
    """
    flat = Flat(model, signature).eval()
    try:
        outputs = outputs_of(model, signature, example)
        with torch.no_grad():
            sample = flat(*[x[:1] for x in example])
        independent = rows_are_independent(flat, example)
    except SpacetimeError:
        raise
    except Exception as cause:
        raise ModelError(signature.tenant, cause) from cause
    graph, eager = _graph_of(model, signature, example, share=share)
    if eager is None and not independent:
        eager = "rows depend on each other, so requests never share a launch"
    if eager is not None:
        graph = None
    tails = tuple((y.shape[1:], y.dtype) for y in sample)
    weights = _weights(place, model, graph)
    family = ResidentFamily(place, signature, outputs, tails, graph, weights, None, eager or "")
    family.join(signature.tenant, model, limit)
    try:
        if graph is None:
            family.module = _bound(model, signature, weights.of(0), place)
        if eager is None:
            _capture(family, flat, example, buckets)
        else:
            _time_eagerly(family, example)
    except BaseException:
        family.leave(0)
        raise
    return family


def _graph_of(
    model: nn.Module, signature: Signature, example: Sequence[Tensor], *, share: bool
) -> tuple[SlotGraph | None, str | None]:
    """The graph over slots, or None; and why the model has to run eagerly, or None."""
    args, kwargs = pytree.tree_unflatten(list(example), signature.spec)
    try:
        exported = export(model, args, kwargs)
    except CannotExport as reason:
        return None, f"not exported: {reason}"
    if _draws_random(exported.module):
        return None, "it draws random numbers, which a captured graph would repeat"
    if not share:
        return None, None
    try:
        return slot_graph(exported, [model.state_dict()]), None
    except CannotFuse:
        return None, None


def _draws_random(module: fx.GraphModule) -> bool:
    return any(
        torch.Tag.nondeterministic_seeded in node.target.tags
        for node in module.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    )


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*model.parameters(), *model.buffers()]


def _weights(place: Place, model: nn.Module, graph: SlotGraph | None) -> Weights:
    specs: list[tuple[tuple[int, ...], torch.dtype, bool]]
    if graph is None:
        specs = [(tuple(t.shape), t.dtype, False) for t in _tensors(model)]
    else:
        specs = [(e.shape, e.dtype, e.channels_last) for e in graph.plain.entries]
    layout: list[Slab]
    layout, row_bytes = slabs(specs)
    return Weights(place.native, place.capturer, layout, row_bytes)


def _bound(
    model: nn.Module, signature: Signature, views: Sequence[Tensor], place: Place
) -> nn.Module:
    """The model over its weights on the device."""
    own = copy.deepcopy(model)
    for tensor, held in zip(_tensors(own), views, strict=True):
        tensor.data = held
    return Flat(own, signature).eval()


def _program_of(family: ResidentFamily, partition: _native.SmPartition) -> Program:
    if family.graph is None:
        module = family.module
        assert module is not None
        return lambda rows, *inputs: module(*inputs)
    slots = placed(family.graph, family.place.capturer.device)
    stacks = family.weights.stacks
    return lambda rows, *inputs: slots.forward(rows, NO_RUN, *stacks, *inputs)


def _capture(
    family: ResidentFamily, flat: Flat, example: Sequence[Tensor], buckets: Sequence[int]
) -> None:
    """Graphs for every lane and bucket, each checked against the model and timed."""
    inputs = [(x.shape[1:], x.dtype) for x in example]
    family.buckets = tuple(buckets)
    for lane, partition in enumerate(family.place.partitions):
        runner = _native.Runner(
            family.place.native,
            partition,
            inputs=[_bytes(*spec) for spec in inputs],
            outputs=[_bytes(*spec) for spec in family.tails],
            buckets=list(buckets),
            spin_ns=SPIN_NS,
        )
        family.runners.append(runner)
        program = _program_of(family, partition)
        for bucket in sorted(buckets, reverse=True):  # the largest sizes the pool for the others
            bound = _over_blocks(family, runner, program, bucket, inputs)
            runner.add(bucket, family.place.capturer.capture(partition, bound))
            _check_and_time(family, flat, example, lane, bucket)


def _over_blocks(
    family: ResidentFamily,
    runner: _native.Runner,
    program: Program,
    bucket: int,
    inputs: Sequence[tuple[torch.Size, torch.dtype]],
) -> Callable[[], None]:
    """The program between a runner's static input and output block."""
    host = family.place.host_memory
    specs: list[tuple[Sequence[int], torch.dtype]] = [((), torch.int64), *inputs]

    def views(block: _native.Memory, offsets: Sequence[int], of: Sequence[Any]) -> list[Tensor]:
        pairs = zip(offsets, of, strict=True)
        return [view(block, at, (bucket, *tail), dtype, host=host) for at, (tail, dtype) in pairs]

    sources = views(runner.input_block, runner.input_offsets(bucket), specs)
    results = views(runner.output_block, runner.output_offsets(bucket), family.tails)
    for source in sources:
        source.zero_()  # rows that are there, for the warm-up

    def run() -> None:
        for result, value in zip(results, program(*sources), strict=True):
            result.copy_(value)

    return run


def _check_and_time(
    family: ResidentFamily, flat: Flat, example: Sequence[Tensor], lane: int, bucket: int
) -> None:
    inputs = spread(example, bucket)
    payload, outputs, _ = family.payload(0, inputs, bucket)
    times = [family.runners[lane].time([payload]) for _ in range(_TIMINGS)]
    family.latency_ns[lane, bucket] = min(wall for wall, _ in times)
    family.device_ns[lane, bucket] = min(device for _, device in times)
    with torch.no_grad():
        expected = flat(*inputs)
    if not close(outputs, expected, tolerance=_tolerance(expected)):
        raise ModelError(
            family.signature.tenant,
            ArithmeticError(f"its graph for bucket {bucket} on lane {lane} answers differently"),
        )


def _tolerance(expected: Sequence[Tensor]) -> float:
    """Between one order of summation and another, at the precision the device computes in."""
    exact = not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    if all(y.dtype in {torch.float32, torch.float64} for y in expected) and exact:
        return 1e-3
    return 5e-2


def _time_eagerly(family: ResidentFamily, example: Sequence[Tensor]) -> None:
    work = Work(0, [x[:1] for x in example], 1)
    for lane, partition in enumerate(family.place.partitions):
        with family.place.capturer.lane(partition):
            times = [_elapsed_ns(lambda: family.run([work])) for _ in range(_TIMINGS)]
        family.latency_ns[lane, 1] = min(times)


def _elapsed_ns(call: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _bytes(tail: Sequence[int], dtype: torch.dtype) -> int:
    return dtype.itemsize * torch.Size(tail).numel()
