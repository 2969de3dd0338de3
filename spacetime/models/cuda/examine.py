"""What a model does on a device, found out before anything of it is captured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spacetime.errors import InvalidInput, ModelError, OutOfMemory, SpacetimeError
from spacetime.fusion import (
    CannotFuse,
    Exported,
    Ranges,
    SlotGraph,
    draws_random,
    raises_otherwise,
    ranges,
    slot_graph,
)
from spacetime.models.cuda.family import CudaLanes, tensors_of
from spacetime.models.flat import Flat, Outputs, outputs_of
from spacetime.models.modules import copied
from spacetime.models.signature import Signature
from spacetime.models.trial import tried, why_alone


def on_device(model: nn.Module, signature: Signature, lanes: CudaLanes) -> Flat:
    """A copy of the model where its graphs will run; OutOfMemory where it does not fit."""
    try:
        return Flat(copied(signature.tenant, model), signature).to(lanes.capturer.device)
    except torch.OutOfMemoryError as error:
        needed = sum(tensor.nbytes for tensor in tensors_of(model))
        free, _ = lanes.native.memory()
        raise OutOfMemory(signature.tenant, needed, free, "the device") from error


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found out about a model before anything of it was captured.

    outputs: how its flat outputs become what it returns. tails: the shape and type of a row of each
    output, without the batch dimension. mixed: why its samples may depend on each other; empty if
    they do not. within: the values that its inputs may hold.
    """

    outputs: Outputs
    tails: tuple[tuple[torch.Size, torch.dtype], ...]
    mixed: str
    within: Ranges


def examined(
    reference: Flat,
    signature: Signature,
    example: Sequence[Tensor],
    exported: Exported | str,
    *,
    buckets: Sequence[int],
    batchable: bool | None,
) -> Examined:
    """Runs the model where its graphs will run: on its example, and on samples that would show a
    dependence between them. Raises ModelError, and InvalidInput where `batchable=True` is refuted.
    """
    device = next((t.device for t in tensors_of(reference)), torch.device("cpu"))
    graph = exported if isinstance(exported, Exported) else None
    within = ranges(example, graph)

    def there(*leaves: Tensor) -> list[Tensor]:
        return [y.cpu() for y in reference(*(x.to(device, copy=True) for x in leaves))]

    try:
        # On copies: a model may write to its inputs.
        outputs = outputs_of(
            reference.model,
            signature,
            [x.to(device, copy=True) for x in example],
            within if graph is not None else None,
        )
        with torch.no_grad():
            sample = there(*example)
        mixed = "" if graph is None else why_alone(graph, batchable)
        if graph is not None and not mixed and not outputs.why_not:
            trial = tried(there, [x.cpu() for x in example], within, max(*buckets, 3))
            mixed = trial.fault(there, buckets)
    except SpacetimeError:
        raise
    except Exception as cause:
        raise ModelError(signature.tenant, cause) from cause
    if mixed and batchable:
        raise InvalidInput(signature.tenant, "batchable", "False or None", f"True, but {mixed}")
    return Examined(outputs, tuple((y.shape[1:], y.dtype) for y in sample), mixed, within)


def graph_of(
    model: nn.Module, exported: Exported | str, *, share: bool
) -> tuple[SlotGraph | None, bool, str]:
    """The model's graph over slots, or None; whether a captured graph may hold the model at all;
    and why not, for whichever is refused.

    share: whether tenants may share launches.
    """
    if isinstance(exported, str):
        return None, False, f"not exported: {exported}"
    if any(draws_random(node) for node in exported.module.graph.nodes):
        return None, False, "it draws random numbers, which a captured graph would repeat"
    if name := raises_otherwise(exported.module):
        return None, False, f"{name} raises by the values it is given: a captured graph must not"
    if not share:
        return None, True, "the policy never lets tenants share a launch"
    try:
        return slot_graph(exported, [model.state_dict()]), True, ""
    except CannotFuse as reason:
        return None, True, f"not fused: {reason}"
