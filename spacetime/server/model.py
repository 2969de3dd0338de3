"""One tenant as the protocol shows it: names, datatypes and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.errors import SpacetimeError
from spacetime.server.refusal import Refusal, RefusalKind, invalid, refusal_of
from spacetime.server.tensors import DATATYPES
from spacetime.session.arguments import MOST_PRIORITY
from spacetime.session.tenant import Tenant
from spacetime.workload import workload

VERSION = "1"  # every tenant has this one version
PLATFORM = "pytorch_spacetime"
# Level 1 is the protocol's highest; a request that names none is like one that names this.
DEFAULT_LEVEL = 2
MAX_LEVEL = 2**31 - 1
MAX_TIMEOUT_US = int(workload.MAX_MS * 1e3)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: its name, its datatype, and its shape behind the batch dimension."""

    name: str
    datatype: str
    tail: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """Returns the tensor as the protocol's metadata describes it; -1 is the batch dimension."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.tail]}

    def check(self, field: str, datatype: str, shape: Sequence[int]) -> None:
        """Raises Refusal naming `field` where a datatype or a shape is not this tensor's."""
        if datatype != self.datatype:
            raise invalid(f"{field}.datatype", f"must be {self.datatype}, got {datatype:.20}")
        if len(shape) != len(self.tail) + 1 or tuple(shape[1:]) != self.tail or shape[0] < 1:
            tail = "".join(f", {size}" for size in self.tail)
            raise invalid(f"{field}.shape", f"must be [batch{tail}], got {list(shape)}")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A tenant that is loaded, with the names of its tensors.

    inputs: by name, in the order of the model's positional arguments. outputs: in the order in
    which the model returns them.
    """

    tenant: Tenant
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[TensorSpec, ...]

    def submit(
        self, tensors: Mapping[str, Tensor], *, timeout_us: int = 0, priority: int = 0
    ) -> Future[Any]:
        """Submits one request and returns the tenant's future of its answer.

        tensors: every input by name, `[batch, ...]`.
        timeout_us: microseconds until the request's deadline, at most the tenant's own objective; 0
        takes that objective.
        priority: the protocol's level inside this model, 1 the highest; 0 takes the default level,
        which is the tenant's own priority.
        Raises Refusal for a request that the session refuses, and for a missing input.
        """
        missing = [name for name in self.inputs if name not in tensors]
        if missing:
            raise invalid("inputs", f"{missing[0]} is missing; add it")
        try:
            return self.tenant.submit(
                *(tensors[name] for name in self.inputs),
                deadline_ms=self._deadline_ms(timeout_us),
                priority=self._own_priority(priority),
            )
        except SpacetimeError as error:
            raise refusal_of(error) from error

    def _own_priority(self, level: int) -> int | None:
        """Returns the session's priority of a level of the protocol; None is the tenant's own.

        The protocol counts downwards (1 is the highest), the session upwards.
        """
        if level in {0, DEFAULT_LEVEL}:
            return None
        own = self.tenant.priority + DEFAULT_LEVEL - min(level, MAX_LEVEL)
        return max(-MOST_PRIORITY, min(own, MOST_PRIORITY))

    def select(self, answer: Any, wanted: Sequence[str]) -> list[tuple[TensorSpec, Tensor]]:
        """Returns the outputs named by `wanted`, in that order; all outputs where none is named.

        answer: what the model returned, in whatever containers.
        """
        if isinstance(answer, Tensor):  # the common case, without a tree walk
            leaves = [answer]
        else:
            leaves = [x for x in pytree.tree_leaves(answer) if isinstance(x, Tensor)]
        if not wanted:
            return list(zip(self.outputs, leaves, strict=True))
        places = {spec.name: place for place, spec in enumerate(self.outputs)}
        return [(self.outputs[places[name]], leaves[places[name]]) for name in wanted]

    def check_output(self, field: str, name: str) -> None:
        """Raises Refusal naming `field` where the model has no output called `name`."""
        if all(name != spec.name for spec in self.outputs):
            there = ", ".join(spec.name for spec in self.outputs)
            raise invalid(field, f"{name!r:.60} is no output; there are {there}")

    def input(self, field: str, name: str) -> TensorSpec:
        """Returns the input called `name`. Raises Refusal naming `field` where there is none."""
        spec = self.inputs.get(name)
        if spec is None:
            raise invalid(field, f"{name!r:.60} is no input; there are {', '.join(self.inputs)}")
        return spec

    def metadata(self) -> dict[str, Any]:
        """Returns the protocol's model metadata."""
        return {
            "name": self.tenant.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [spec.metadata() for spec in self.inputs.values()],
            "outputs": [spec.metadata() for spec in self.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Returns the parts of Triton's model configuration that its clients read."""
        return {
            "name": self.tenant.name,
            "platform": PLATFORM,
            "backend": "spacetime",
            "max_batch_size": max(self.tenant.family.buckets),
            "input": [_configured(spec) for spec in self.inputs.values()],
            "output": [_configured(spec) for spec in self.outputs],
            "dynamic_batching": {"default_priority_level": DEFAULT_LEVEL},
        }

    def _deadline_ms(self, timeout_us: int) -> float | None:
        if not timeout_us:
            return None
        own = self.tenant.slo_ms
        return min(timeout_us, MAX_TIMEOUT_US) / 1e3 if own is None else min(timeout_us / 1e3, own)


def served_model(
    tenant: Tenant, declared: workload.Tenant, example: Sequence[Tensor]
) -> ServedModel:
    """Returns how a tenant is served.

    The tenant answers one request with `example`, for the names and shapes of its outputs.
    """
    inputs = {}
    for place, (spec, x) in enumerate(zip(declared.example_inputs, example, strict=True)):
        name = spec.name or f"input_{place}"
        inputs[name] = TensorSpec(name, spec.datatype, tuple(x.shape[1:]))
    outputs = output_specs(tenant.submit(*example, deadline_ms=workload.MAX_MS).result())
    return ServedModel(tenant, inputs, outputs)


def output_specs(answer: Any) -> tuple[TensorSpec, ...]:
    """Returns the outputs of an answer in order.

    They are called by the keys of the dict they come in, else `output_0`, `output_1`, ...
    """
    pairs, _ = pytree.tree_flatten_with_path(answer)
    tensors = [(path, x) for path, x in pairs if isinstance(x, Tensor)]
    return tuple(
        TensorSpec(_name(path, place), DATATYPES[x.dtype], tuple(x.shape[1:]))
        for place, (path, x) in enumerate(tensors)
    )


def _name(path: Sequence[Any], place: int) -> str:
    keys = [key.key for key in path if isinstance(key, pytree.MappingKey)]
    if keys and len(keys) == len(path):
        return ".".join(map(str, keys))
    return f"output_{place}"


def _configured(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.tail)}


def unknown_model(name: str) -> Refusal:
    """Returns the refusal of a request for a model that is not loaded."""
    return Refusal(RefusalKind.UNKNOWN, f"model {name!r:.80} is not loaded or does not exist")
