"""How a model becomes a family on a device: its graph over slots, its weights, its captures.

Everything is tried before it is trusted: each captured graph answers an example as the model does,
and is timed, before any request reaches it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import spacetime._native as _native
from spacetime.errors import (
    DriverError,
    ModelError,
    OutOfMemory,
    SpacetimeError,
    UnsupportedError,
)
from spacetime.fusion import (
    CannotFuse,
    Exported,
    Ranges,
    SlotGraph,
    guards_of,
    placed,
    placed_alone,
    rows_of,
)
from spacetime.models.cuda.capture import view
from spacetime.models.cuda.compiling import compile_ahead
from spacetime.models.cuda.examine import examined, graph_of, on_device
from spacetime.models.cuda.family import CudaFamily, CudaLanes, bound, tensors_of
from spacetime.models.cuda.weights import OUT_OF_MEMORY, Weights, slabs
from spacetime.models.flat import Flat
from spacetime.models.request import Work
from spacetime.models.signature import Signature
from spacetime.models.timing import elapsed_ns
from spacetime.models.trial import same_rows

NO_RUN = torch.tensor(-1)  # on the host: rows are never looked at there
SPIN_NS = 50_000  # how long a lane looks for its launch's end before it sleeps
INVALID_CLUSTER_SIZE = 912  # CUDA_ERROR_INVALID_CLUSTER_SIZE
_TIMINGS = 3

Program = Callable[..., Sequence[Tensor]]  # (rows, *inputs) -> flat outputs


class CannotCapture(Exception):
    """A captured graph did not work out for a model; the message says why. `prepare` tries the next
    way to run it."""


def prepare(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    lanes: CudaLanes,
    exported: Exported | str,
    *,
    buckets: Sequence[int],
    share: bool,
    limit: int | None,
    batchable: bool | None = None,
) -> CudaFamily:
    """A family with `model` as its first member, captured and measured on every lane.

    example: the leaves of one call, each `[n, ...]`. exported: the model's graph, or why it has
    none. buckets: the batch sizes to capture. share: whether tenants may share launches. limit:
    bytes of the device's memory that a member's weights may take. batchable: the owner's word.
    Three ways are tried in turn: super-kernels over slots, the model alone in a graph, the model
    eagerly. explain() says why the way before was not taken. Raises ModelError, InvalidInput,
    UnsupportedError, OutOfMemory, DriverError; nothing stays behind.
    """
    reference = on_device(model, signature, lanes)
    facts = examined(reference, signature, example, exported, buckets=buckets, batchable=batchable)
    graph, captured, why = graph_of(model, exported, share=share)
    if captured and (facts.mixed or facts.outputs.why_not):
        captured, why = False, f"requests run alone: {facts.mixed or facts.outputs.why_not}"
    # The fastest first. Each way has weights of its own: one that fails leaves nothing behind.
    ways: list[tuple[SlotGraph | None, bool]] = [(None, True)] if captured else []
    if captured and graph is not None:
        ways.insert(0, (graph, True))
    for over_slots, in_graph in [*ways, (None, False)]:
        family = CudaFamily(
            lanes=lanes,
            signature=signature,
            outputs=facts.outputs,
            tails=facts.tails,
            graph=over_slots,
            weights=_weights(lanes, model, over_slots),
            example=example,
            module=None,
            why=why,
        )
        first = FirstMember(model, reference, example, facts.within, limit, exported)
        try:
            return _first_member(family, first, buckets if in_graph else ())
        except CannotCapture as reason:
            why = str(reason)
    raise AssertionError("the last way raises what prevents it")


@dataclass(frozen=True, slots=True)
class FirstMember:
    """A family's first member, as it is captured.

    reference: the model on the device, run eagerly, which says what has to be answered. example:
    the leaves of one call. within: the values that inputs may hold. limit: bytes of the device's
    memory that the member's weights may take.
    """

    model: nn.Module
    reference: Flat
    example: Sequence[Tensor]
    within: Ranges
    limit: int | None
    exported: Exported | str


def _first_member(family: CudaFamily, first: FirstMember, buckets: Sequence[int]) -> CudaFamily:
    """The family with its first member: captured at these batch sizes, eager where there are none.

    Raises CannotCapture where another way to run the model may work; nothing stays behind.
    """
    family.join(family.signature.tenant, first.model, first.limit)
    try:
        if family.graph is None:
            family.module = bound(first.model, family.signature, family.weights.of(0))
        if buckets:
            _capture(family, first, buckets)
        else:
            _time_eagerly(family, first.example)
    except BaseException as error:
        # Before the family leaves: the message says how much memory was free when it failed.
        for_caller = _as_callers_error(error, family, captured=bool(buckets))
        with contextlib.suppress(DriverError):  # a lost device takes nothing back
            family.leave(0)
        if for_caller is error:
            raise
        raise for_caller from error
    return family


def _as_callers_error(error: BaseException, family: CudaFamily, *, captured: bool) -> BaseException:
    """The error as the caller can act on it; a CannotCapture where the next way is to be tried.

    captured: whether a graph was being captured; else the model ran eagerly.
    """
    tenant, sizes = family.signature.tenant, [p.sms for p in family.lanes.partitions]
    code = error.code if isinstance(error, DriverError) else None
    if code == INVALID_CLUSTER_SIZE or "invalid cluster" in str(error).lower():
        return UnsupportedError(
            f"tenant {tenant}: one of its kernels launches clusters of blocks that a partition of "
            f"{min(sizes)} SMs cannot hold; give its lanes more SMs"
        )
    if code == OUT_OF_MEMORY or isinstance(error, torch.OutOfMemoryError):
        free, _ = family.lanes.native.memory()
        needed = family.weights.row_bytes + family.block_bytes
        return OutOfMemory(tenant, needed, free, "its graphs' buffers aside the device")
    ours = isinstance(error, (SpacetimeError, CannotCapture)) and not isinstance(error, CannotFuse)
    if ours or not isinstance(error, Exception):
        return error
    # Only now is it taken for the model's: what PyTorch raises may be the device's own end.
    try:
        family.lanes.native.synchronize()
    except DriverError as lost:
        return lost
    if not captured:
        return ModelError(tenant, error)
    return CannotCapture(f"not captured: {(str(error).strip() or repr(error)).splitlines()[0]}")


def _weights(lanes: CudaLanes, model: nn.Module, graph: SlotGraph | None) -> Weights:
    specs: list[tuple[tuple[int, ...], torch.dtype, bool]]
    if graph is None:
        specs = [(tuple(t.shape), t.dtype, False) for t in tensors_of(model)]
    else:
        specs = [(w.shape, w.dtype, w.channels_last) for w in graph.plain.weights]
    layout, row_bytes = slabs(specs)
    return Weights(lanes.native, lanes.capturer, layout, row_bytes)


def _program_of(
    family: CudaFamily, partition: _native.SmPartition, alone: Program | None
) -> tuple[Program, Callable[..., None]]:
    """What a launch computes, and what chooses its kernels before it is captured."""
    if alone is not None:
        return alone, (lambda *operands: None)
    assert family.graph is not None
    slots = placed(family.graph, family.lanes.capturer.device)
    stacks = family.weights.stacks
    tune = family.lanes.capturer.tune

    def run(rows: Tensor, *inputs: Tensor) -> Sequence[Tensor]:
        outputs: Sequence[Tensor] = slots.forward(rows, NO_RUN, *stacks, *inputs)
        return outputs

    def choose(rows: Tensor, *inputs: Tensor) -> None:
        tune(partition, slots, (rows, NO_RUN, *stacks, *inputs))

    return run, choose


def _guarded(family: CudaFamily, exported: Exported | str) -> Program | None:
    """What runs a family of one, None over slots; and the family's guards, from its graph.

    A model that indexes runs as its exported graph, where no index leaves its bounds.
    """
    if family.graph is not None:
        family.guards = guards_of(family.graph.lowered.module)
        return None
    module = family.module
    assert isinstance(module, Flat)
    assert isinstance(exported, Exported)
    graph, family.guards = placed_alone(exported, family.lanes.capturer.device)
    if not family.guards:
        return lambda rows, *inputs: module(*inputs)
    held = {
        **dict(module.model.named_parameters(remove_duplicate=False)),
        **dict(module.model.named_buffers(remove_duplicate=False)),
    }
    weights = [held[key].detach() for key in exported.weights.values()]
    return lambda rows, *inputs: graph.forward(rows, *weights, *inputs)


def _capture(family: CudaFamily, first: FirstMember, buckets: Sequence[int]) -> None:
    """Graphs for every lane and bucket, each checked against the model and timed."""
    family.buckets = tuple(buckets)
    family.lanes.capturer.notes.clear()  # of a way that did not work out
    alone = _guarded(family, first.exported)
    compile_ahead(family, buckets)
    with family.weights.distinct(1 if family.graph is None else max(buckets)) as rows:
        for lane, partition in enumerate(family.lanes.partitions):
            program = _program_of(family, partition, alone)
            _capture_lane(family, first, (lane, partition), program, rows)
    family.measured_rows = len(rows)
    family.notes = tuple(dict.fromkeys(family.lanes.capturer.notes))


def _capture_lane(
    family: CudaFamily,
    first: FirstMember,
    on: tuple[int, _native.SmPartition],
    steps: tuple[Program, Callable[..., None]],
    rows: Sequence[int],
) -> None:
    """rows: of tenants with weights of their own: those of one would be read once for all slots."""
    (lane, partition), (program, choose) = on, steps
    inputs = [(x.shape[1:], x.dtype) for x in first.example]
    runner = _native.Runner(
        family.lanes.native,
        partition,
        inputs=[_bytes(*spec) for spec in inputs],
        outputs=[_bytes(*spec) for spec in family.written],
        buckets=list(family.buckets),
        spin_ns=SPIN_NS,
    )
    family.runners.append(runner)
    for bucket in sorted(family.buckets, reverse=True):  # the largest sizes the pool for others
        sources, bound = _over_blocks(family, runner, program, bucket, inputs)
        mixture = [rows[slot % len(rows)] for slot in range(bucket)]
        samples = rows_of(first.example, first.within, bucket, seed=bucket)
        for source, value in zip(sources, [torch.tensor(mixture), *samples], strict=True):
            source.copy_(value)
        choose(*sources)  # the fastest kernels for this partition, which the graph then holds
        runner.add(bucket, family.lanes.capturer.capture(partition, bound))
        _check_and_time(family, first, (lane, bucket), mixture, samples)


def _over_blocks(
    family: CudaFamily,
    runner: _native.Runner,
    program: Program,
    bucket: int,
    inputs: Sequence[tuple[torch.Size, torch.dtype]],
) -> tuple[list[Tensor], Callable[[], None]]:
    """The static inputs of a bucket, and the program between them and the static outputs."""
    specs: list[tuple[Sequence[int], torch.dtype]] = [((), torch.int64), *inputs]

    def views(block: _native.Memory, offsets: Sequence[int], of: Sequence[Any]) -> list[Tensor]:
        host = family.lanes.host_memory
        return [
            view(block, at, (bucket, *tail), dtype, host=host)
            for at, (tail, dtype) in zip(offsets, of, strict=True)
        ]

    sources = views(runner.input_block, runner.input_offsets(bucket), specs)
    results = views(runner.output_block, runner.output_offsets(bucket), family.written)

    def run() -> None:
        for result, value in zip(results, program(*sources), strict=True):
            result.copy_(value)

    return sources, run


def _check_and_time(
    family: CudaFamily,
    first: FirstMember,
    at: tuple[int, int],
    mixture: Sequence[int],
    samples: Sequence[Tensor],
) -> None:
    """One request of each slot's tenant, in one launch that finds the L2 cold; at: lane, bucket."""
    (lane, bucket), times = at, []
    one_each = [[x[slot : slot + 1] for x in samples] for slot in range(bucket)]
    asked = [family.payload(row, x, 1) for row, x in zip(mixture, one_each, strict=True)]
    for _ in range(_TIMINGS):
        family.lanes.capturer.flush(family.lanes.partitions[lane])
        times.append(family.runners[lane].time([payload for payload, _, _ in asked]))
    family.latency_ns[at] = min(wall for wall, _ in times)
    family.device_ns[at] = min(device for _, device in times)
    device = family.lanes.capturer.device
    with torch.no_grad():
        # The device's own arithmetic is what a graph has to repeat, not the CPU's.
        expected = [y.cpu() for y in first.reference(*[x.to(device) for x in samples])]
    written = [torch.cat(parts) for parts in zip(*(w for _, w, _ in asked), strict=True)]
    if not same_rows(family.answered(written), expected, _tolerance(expected)):
        raise CannotCapture(f"its graph for bucket {bucket} on lane {lane} answered differently")


def _tolerance(expected: Sequence[Tensor]) -> float:
    """Between one order of summation and another, at the precision the device computes in."""
    exact = not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    if all(y.dtype in {torch.float32, torch.float64} for y in expected) and exact:
        return 1e-3
    return 5e-2


def _time_eagerly(family: CudaFamily, example: Sequence[Tensor]) -> None:
    work = Work(0, list(example), len(example[0]))
    for lane, partition in enumerate(family.lanes.partitions):
        with family.lanes.capturer.lane(partition):
            times = [elapsed_ns(family.run, [[work]]) for _ in range(_TIMINGS)]
        family.latency_ns[lane, 1] = min(times)


def _bytes(tail: Sequence[int], dtype: torch.dtype) -> int:
    return dtype.itemsize * torch.Size(tail).numel()
