"""Families on a CUDA device. Weights are copied to the device once; a graph is captured for each
lane and bucket.

A family that can be fused runs every batch, whichever tenants it mixes, as one graph over slots; a
tensor of rows names the tenant of each slot, so tenants join and leave without a new capture. A
model that cannot be fused is captured alone. A model that does other work for other values (no
export, rows that depend on each other, random numbers) runs eagerly on the lane's stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import spacetime._native as _native
from spacetime.errors import InvalidInput
from spacetime.fusion import Guard, SlotGraph, ranges, within_bounds
from spacetime.models.cuda.capture import Capturer
from spacetime.models.cuda.weights import Weights
from spacetime.models.flat import Flat, Outputs, own
from spacetime.models.modules import copied
from spacetime.models.request import InFlight, Runs, Work
from spacetime.models.signature import Signature
from spacetime.models.trial import same_rows, tried
from spacetime.units import ms_from_ns


@dataclass(frozen=True, slots=True)
class CudaLanes:
    """Where families live: a device, how PyTorch reaches it, and each lane's partition."""

    native: _native.CudaDevice
    capturer: Capturer
    partitions: Sequence[_native.SmPartition]

    @property
    def inputs(self) -> tuple[torch.device, ...]:
        """Where requests' tensors may lie besides the CPU's memory."""
        return () if self.host_memory else (self.capturer.device,)

    @property
    def host_memory(self) -> bool:
        """Whether the device's memory is the host's, as a fake's is."""
        return isinstance(self.native, _native.FakeCudaDevice)


@dataclass(slots=True, eq=False)
class CudaFamily:
    """Members of one architecture on a device, run by captured graphs or eagerly.

    tails: the shape and type of a row of each output. graph: the model over slots; None for a
    family of one. example: the leaves of one call, each `[n, ...]`. module: of a family of one, the
    model over its row of the weights. why: why it runs as it does. runners: by lane; empty where it
    runs eagerly. latency_ns, device_ns: of a launch, by lane and bucket: wall time, and time on the
    device. instead: what answers all requests once the family was taken apart. measured_rows: how
    many tenants' weights mixtures were timed with. kernels: what came of compiling them ahead.
    notes: what of its graphs is otherwise than asked, and why. guards: the index checks of its
    graphs, whose last output then is each row's code.
    """

    lanes: CudaLanes
    signature: Signature
    outputs: Outputs
    tails: tuple[tuple[torch.Size, torch.dtype], ...]
    graph: SlotGraph | None
    weights: Weights
    example: Sequence[Tensor]
    module: Flat | None
    why: str
    buckets: tuple[int, ...] = (1,)
    runners: list[_native.Runner] = field(default_factory=list)
    latency_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    device_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    members: set[int] = field(default_factory=set)
    number: int = -1
    instead: Runs | None = None
    measured_rows: int = 1
    kernels: str = ""
    notes: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()

    @property
    def written(self) -> tuple[tuple[torch.Size, torch.dtype], ...]:
        """Shape and type of a row of everything that its graphs write: the outputs, then the
        code."""
        return (*self.tails, (torch.Size(()), torch.int64)) if self.guards else self.tails

    def answered(self, written: Sequence[Tensor]) -> Sequence[Tensor]:
        """A request's outputs out of what the graphs wrote for it. Raises what the model's
        operation raises where an index in one of the request's rows was out of bounds."""
        if not self.guards:
            return written
        *outputs, codes = written
        code = int(codes.max())
        if code:
            raise self.guards[code - 1].raised()
        return outputs

    @property
    def block_bytes(self) -> int:
        """Device memory of the static inputs and outputs of all lanes, as far as they were made."""
        blocks = [r.input_block.nbytes + r.output_block.nbytes for r in self.runners]
        return sum(blocks) or 2 * sum(
            torch.Size(leaf.tail).numel() * leaf.dtype.itemsize for leaf in self.signature.leaves
        )

    @property
    def functions(self) -> Sequence[_native.NativeFunction]:
        """What runs its launches without Python, by lane: the runners of its graphs."""
        return () if self.instead is not None else [runner.function for runner in self.runners]

    @property
    def captured(self) -> bool:
        """Whether graphs run it, without the interpreter."""
        return bool(self.runners)

    def join(self, tenant: str, model: nn.Module, limit: int | None) -> int:
        """The row of `model`, which has this family's fingerprint. Raises OutOfMemory."""
        row = self.weights.free_row()
        try:
            self.weights.add(tenant, row, self._values(model), limit)
        except BaseException:  # also what PyTorch raises while it copies
            if row in self.weights.rows:
                self.weights.remove(row)
            raise
        self.members.add(row)
        return row

    def update(self, tenant: str, model: nn.Module, limit: int | None) -> int:
        """A new row with the weights of `model`. The caller gives the member's old row back once no
        request names it. Not for a family of one that is captured: its graphs name their only row.

        Raises OutOfMemory, or InvalidInput where the graphs would not answer as the model does.
        """
        if self.graph is not None:
            self._check(tenant, model, self.graph)
        row = self.join(tenant, model, limit)
        if self.graph is None:
            self.module = bound(model, self.signature, self.weights.of(row))
        return row

    def _check(self, tenant: str, model: nn.Module, graph: SlotGraph) -> None:
        state, within = model.state_dict(), ranges(self.example, graph.exported)
        why = "answers that its graphs do not give"
        try:
            graph.exported.check(state)
            trial = tried(Flat(model, self.signature), self.example, within, 3)
            if same_rows(graph.plain.answers(state, trial.inputs), trial.answers):
                return
        except ValueError as error:
            why = str(error)
        fix = "of the family's constants on this device (else remove the tenant and add it anew)"
        raise InvalidInput(tenant, "state_dict", fix, why)

    def become(self, other: CudaFamily) -> CudaFamily:
        """Takes the weights and graphs of `other`, a family of the same model, and what was
        measured of them; the number stays. Returns the family as it was until now."""
        before = replace(self, runners=self.runners, members=set(self.members))
        self.weights, self.module, self.runners = other.weights, other.module, other.runners
        self.latency_ns, self.device_ns = other.latency_ns, other.device_ns
        self.guards, self.kernels = other.guards, other.kernels
        self.measured_rows, self.notes = other.measured_rows, other.notes
        return before

    def leave(self, row: int) -> None:
        """Gives a member's memory back, and with the last one's that of the graphs."""
        self.members.discard(row)
        if not self.members:
            for runner in self.runners:
                runner.clear()
            self.module = None
        self.weights.remove(row)
        if not self.members:  # PyTorch holds what graphs used; giving it back waits for all lanes
            self.lanes.capturer.release()

    def keep_within(self, slo_ns: int | None) -> None:
        """Forgets the batch sizes at which two launches in a row meet the objective on no lane."""
        lanes = range(len(self.lanes.partitions))
        fastest = {b: min(self.latency_ns[lane, b] for lane in lanes) for b in self.buckets}
        fits = [b for b in self.buckets if slo_ns is None or 2 * fastest[b] <= slo_ns]
        self.buckets = tuple(fits) or self.buckets[:1]

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch of `bucket` samples on a lane, in nanoseconds, as measured."""
        return self.latency_ns[lane, bucket]

    def request(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> InFlight:
        """A request as the executor takes it."""
        if not self.captured or self.instead is not None:
            if leaves[0].device.type == "cuda":  # run() is on another stream
                torch.cuda.current_stream(leaves[0].device).synchronize()
            return InFlight(tenant, member, self, leaves, samples)
        # Native code reads bytes as they lie there, where a view may only be said to be negated.
        inputs = [x.resolve_conj().resolve_neg().contiguous() for x in leaves]
        payload, outputs, event = self.payload(member, inputs, samples)
        build, kept = self._built, (payload, event)
        return InFlight(tenant, member, self, inputs, samples, payload.token, outputs, build, kept)

    def _built(self, written: Sequence[Tensor]) -> Any:
        return self.outputs.build(self.answered(written))

    def payload(
        self, member: int, inputs: Sequence[Tensor], samples: int
    ) -> tuple[_native.Payload, list[Tensor], torch.cuda.Event | None]:
        """What a native runner takes for a request of inputs `[samples, ...]`; the tensors that it
        writes, of which `answered` makes the outputs; and the event that it waits for, None where
        the inputs are in the host's memory."""
        on = inputs[0].device
        outputs = [torch.empty((samples, *tail), dtype=t, device=on) for tail, t in self.written]
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
        """Answers in the order of `batch`, each request run eagerly as it was submitted, on the
        calling lane's stream."""
        if self.instead is not None:
            return self.instead.run(batch)
        module, device = self.module, self.lanes.capturer.device
        assert module is not None
        answers = []
        for work in batch:
            args, kwargs = pytree.tree_unflatten(
                [x.to(device, copy=True) for x in work.leaves], self.signature.spec
            )
            # The model's own answer, whatever stands in it beside tensors.
            there = _within(device, partial(module.model, *args, **kwargs))
            answers.append(_returned(there, work.leaves[0].device))
        self.lanes.capturer.settle()  # whoever gets an answer may be on another stream
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
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(
            f"  weights: {size:.2f} MiB a tenant, resident once for all lanes; room for "
            f"{self.weights.most} tenants"
        )
        if self.captured:
            few = self.graph is not None and self.measured_rows < max(self.buckets)
            why = ", for memory is short" if few else ""
            tenants = "its tenant" if self.measured_rows == 1 else f"{self.measured_rows} tenants"
            lines.append(f"  measured with the weights of {tenants}, from a cold L2{why}")
        lines += [f"  kernels: {self.kernels}"] if self.kernels else []
        for (lane, bucket), ns in sorted(self.latency_ns.items()):
            device = ms_from_ns(self.device_ns.get((lane, bucket), 0))
            lines.append(
                f"  lane {lane} bucket {bucket:>3}: {ms_from_ns(ns):.3f} ms, "
                f"of which {device:.3f} ms on the device"
            )
        return lines

    def _values(self, model: nn.Module) -> list[Tensor]:
        if self.graph is None:
            return [t.detach() for t in tensors_of(model)]
        return [weight.compute(model.state_dict()) for weight in self.graph.plain.weights]


def _returned(answer: Any, device: torch.device) -> Any:
    """An answer with tensors of its own on the caller's device."""
    return pytree.tree_map_only(Tensor, lambda y: own(y.to(device)), answer)


def _within(device: torch.device, call: Callable[[], Any]) -> Any:
    """An index beyond its bounds would end a real device; the caller gets its error instead."""
    return within_bounds(call, ()) if device.type == "cuda" else call()


def bound(model: nn.Module, signature: Signature, views: Sequence[Tensor]) -> Flat:
    """The model over its weights on the device."""
    there = copied(signature.tenant, model)
    for tensor, held in zip(tensors_of(there), views, strict=True):
        tensor.data = held
    return Flat(there, signature)


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*model.parameters(), *model.buffers()]
