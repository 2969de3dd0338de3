"""An architecture as one short string: models with equal fingerprints can be fused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.fusion.graph.export import Exported, export
from spacetime.fusion.graph.layout import shape_at


def fingerprint(
    template: nn.Module | Exported,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """32 hexadecimal digits over a model's graph, arguments, shapes and structure.

    `template`: a model in eval mode, or what `export` made of one.
    `example_inputs`, `example_kwargs`: a call of the model; its batch size does not matter.

    The values of weights do not matter. The values of what tenants would share do: literals and
    integer buffers. Raises CannotExport where there is no graph of the model.
    """
    exported = template
    if not isinstance(exported, Exported):
        assert isinstance(template, nn.Module)
        exported = export(template, example_inputs, example_kwargs)
    digest = hashlib.sha256()
    for line in _lines(exported):
        digest.update(line.encode())
        digest.update(b"\n")
    for name in sorted(exported.shared):
        digest.update(_bytes(exported.shared[name]))
    return digest.hexdigest()[:32]


def _lines(exported: Exported) -> list[str]:
    """Everything that makes an architecture, as text that two exports of it share."""
    numbers = {node: i for i, node in enumerate(exported.module.graph.nodes)}
    lines = [str(exported.in_spec), str(exported.out_spec)]
    lines += [repr(exported.leaves), repr(exported.results)]
    for node in exported.module.graph.nodes:
        arguments = fx.map_arg((node.args, node.kwargs), lambda n: f"%{numbers[n]}")
        name = exported.weights.get(node.name, "")
        target = node.target if node.op == "call_function" else ""
        lines.append(f"{node.op} {target} {name} {arguments} {_value(exported, node)}")
    return lines


def _value(exported: Exported, node: fx.Node) -> str:
    """The shape of a node's value at two batch sizes, its type and its device."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ""
    shapes = [shape_at(value, exported.symbol, slots) for slots in (2, 3)]
    return f"{shapes} {value.dtype} {value.device}"


def _bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
