"""A model as a functional ATen graph over a symbolic number of slots.

`export` calls torch.export and sorts the graph's inputs by who owns them: *weights* (floating
point, in the state dict: every tenant has its own), *shared* tensors (everything else that the
model holds) and the caller's tensors. The result keeps no weight of the model alive.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument
from torch.utils import _pytree as pytree

from spacetime.errors import CannotExport
from spacetime.fusion.graph.confine import confined, shell
from spacetime.fusion.graph.training import part_in_training
from spacetime.fusion.indexes.table import ASSERT, base_name
from spacetime.fusion.watched import raising
from spacetime.kernels.tracing import tracing, unprinted


@dataclass(frozen=True, slots=True)
class Exported:
    """A model's graph, from (*weights, *inputs) to a flat tuple of output tensors.

    Placeholders come in order: first `weights`, then `inputs`. Shared tensors are attributes of
    `module`. `own_bytes` counts a tenant's whole state dict, `shared_bytes` the shared tensors.
    """

    module: fx.GraphModule
    weights: dict[str, str]  # placeholder -> key in the state dict
    aliases: dict[str, tuple[str, ...]]  # key -> other keys of the same tensor (tied weights)
    shared: dict[str, Tensor]  # attribute -> tensor
    shared_keys: dict[str, str]  # attribute -> key in the state dict, for those that have one
    inputs: tuple[str, ...]
    leaves: tuple[Any, ...]  # flat inputs: a Ref to one of `inputs`, or the constant itself
    in_spec: pytree.TreeSpec
    results: tuple[Any, ...]  # flat outputs: a Ref to an output, or the constant itself
    out_spec: pytree.TreeSpec
    symbol: Any  # the number of slots, a symbol of sympy
    own_bytes: int
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]  # key -> shape and dtype of a weight
    example: tuple[Tensor, ...]  # one sample of every input

    @property
    def shared_bytes(self) -> int:
        """Bytes of the tensors that all tenants share."""
        return sum(tensor.nbytes for tensor in self.shared.values())

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The input tensors of a call, in the graph's order.

        Raises TypeError where the call has another structure than the example, ValueError where a
        tensor has another shape or type, or a constant another value.
        """
        leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if spec != self.in_spec:
            raise TypeError(f"inputs: expected the structure {self.in_spec}, got {spec}")
        tensors = []
        for position, (leaf, was) in enumerate(zip(leaves, self.leaves, strict=True)):
            if isinstance(was, Ref):
                tensors.append(_like(leaf, self.example[was.position], position))
            elif leaf is not was and leaf != was:
                raise ValueError(f"inputs: leaf {position} was exported as {was!r}, got {leaf!r}")
        return tensors

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise ValueError, naming the tensor, unless a state dict fits this graph."""
        for key, (shape, dtype) in self.shapes.items():
            if key not in state:
                raise ValueError(f"weights: '{key}' is missing")
            weight = state[key]
            if tuple(weight.shape) != shape or weight.dtype != dtype:
                given = f"{tuple(weight.shape)} {weight.dtype}"
                raise ValueError(f"weights: '{key}' is {given}, expected {shape} {dtype}")
            for other in self.aliases.get(key, ()):
                # The same memory is the same weight, also where it holds a NaN, unequal to itself.
                tied = state[other].data_ptr() == weight.data_ptr()
                if not (tied or torch.equal(state[other], weight)):
                    raise ValueError(f"weights: '{other}' and '{key}' are tied but differ")
        for attribute, key in self.shared_keys.items():
            if key not in state or not torch.equal(state[key], self.shared[attribute]):
                raise ValueError(f"weights: buffer '{key}' differs from the family's")

    def samples(self, slots: int) -> list[Tensor]:
        """Example inputs for `slots` slots: the example's sample repeated."""
        return [t.expand(slots, *t.shape[1:]).contiguous() for t in self.example]

    def unflatten(self, outputs: Sequence[Tensor]) -> Any:
        """What the model returns, made of the graph's flat outputs."""
        leaves = [outputs[r.position] if isinstance(r, Ref) else r for r in self.results]
        return pytree.tree_unflatten(leaves, self.out_spec)


def _like(leaf: Any, example: Tensor, position: int) -> Tensor:
    """The leaf, where it is a tensor that differs from the example in its batch size at most.

    Raises ValueError where it does not.
    """
    sizes = ", ".join(map(str, ["S", *example.shape[1:]]))
    expected = f"inputs: leaf {position} must be a {example.dtype} tensor [{sizes}]"
    if not isinstance(leaf, Tensor):
        raise ValueError(f"{expected}, got {type(leaf).__name__}")  # noqa: TRY004 - as below
    if leaf.shape[1:] != example.shape[1:] or leaf.dtype != example.dtype or leaf.dim() == 0:
        raise ValueError(f"{expected}, got {leaf.dtype} {list(leaf.shape)}")
    return leaf


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor among flat values, by its position."""

    position: int


def export(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None = None,
) -> Exported:
    """Make the graph of a model over a dynamic leading dimension: `export(model, (x,))`.

    `model`: in eval mode.
    `example_inputs`, `example_kwargs`: a call; every tensor has the same leading (batch) size.

    The graph is torch.export's, made functional, at torch.export's own level of operators. Raises
    CannotExport, with one line, where there is no graph of the model that serves any batch size.
    """
    training = part_in_training(model)
    if training is not None:
        raise CannotExport(f"module '{training}' is in training mode: call model.eval()")
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise CannotExport(f"module '{name}' is TorchScript already")
    args, kwargs = widen((tuple(example_inputs), dict(example_kwargs or {})))
    program = _program(model, args, kwargs)
    mutated = [*program.graph_signature.buffers_to_mutate.values()]
    if mutated:
        raise CannotExport(f"the model writes to its buffer '{mutated[0]}'")
    written = [*program.graph_signature.parameters_to_mutate.values()]
    if written:
        raise CannotExport(f"the model writes to its parameter '{written[0]}'")
    if program.graph_signature.user_inputs_to_mutate:
        raise CannotExport("the model writes to its input")
    leaves = pytree.tree_leaves((args, kwargs))
    example = tuple(t[:1].detach().clone() for t in leaves if isinstance(t, Tensor))
    for node in program.graph.nodes:
        if node.op == "get_attr":
            raise CannotExport(f"its graph holds another, '{node.target}', as torch.cond's does")
    exported = _sort(program, example)
    _check_sizes(exported)
    _check_errors(exported, model, args, kwargs)
    return exported


def _check_sizes(exported: Exported) -> None:
    """Raise CannotExport where a size follows from values, not from the number of slots."""
    for node in exported.module.graph.nodes:
        value = node.meta.get("val")
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            for size in tensor.shape if isinstance(tensor, Tensor) else ():
                symbols: set[Any] = (
                    size.node.expr.free_symbols if isinstance(size, torch.SymInt) else set()
                )
                if symbols - {exported.symbol}:
                    raise CannotExport(f"the size of '{node.name}' depends on values")


def _check_errors(exported: Exported, model: nn.Module, args: Any, kwargs: Any) -> None:
    """Raise CannotExport unless the graph makes every check of values that its module makes,
    such as a look-up's.
    """
    state = model.state_dict()
    weights = [state[key].detach() for key in exported.weights.values()]
    with torch.no_grad():
        if not (checks := raising(lambda: model(*args, **kwargs))):
            return
        inputs = exported.flatten(args, kwargs)
        kept = raising(lambda: exported.module.forward(*weights, *inputs))
    if kept < checks:
        raise CannotExport(
            "the model looks something up and does not use it: a graph would not raise its error"
        )
    if any(base_name(node.target) == ASSERT for node in exported.module.graph.nodes):
        raise CannotExport("the model asserts something about values: compiled code would not")


def widen(inputs: Any) -> Any:
    """The same inputs with at least two samples: torch.export would take one sample as a fixed
    size.

    Raises CannotExport where the tensors differ in their batch size or have none.
    """
    leaves = [t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor)]
    sizes = {t.shape[0] if t.dim() else 0 for t in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise CannotExport(
            "example_inputs: every tensor needs the same leading batch size of at least 1"
        )
    if sizes != {1}:
        return inputs
    return pytree.tree_map(lambda v: torch.cat([v, v]) if isinstance(v, Tensor) else v, inputs)


def _program(model: nn.Module, args: Any, kwargs: Any) -> ExportedProgram:
    """torch.export's program for a call with a dynamic batch size, made functional."""
    own = shell(model)
    slots = Dim("slots", min=1)
    dynamic = pytree.tree_map(lambda v: {0: slots} if isinstance(v, Tensor) else None, args)
    named = pytree.tree_map(lambda v: {0: slots} if isinstance(v, Tensor) else None, kwargs)
    try:
        with tracing(), unprinted(), confined():
            shapes = _by_parameter(model, dynamic, named)
            program = torch.export.export(own, args, kwargs, dynamic_shapes=shapes, strict=False)
            functional: ExportedProgram = program.run_decompositions({})
            return functional
    except Exception as error:
        # torch.export raises whatever the model or the tracer raises: all mean "no graph".
        raise CannotExport(_reason(error)) from error


def _by_parameter(model: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """Dynamic sizes by parameter of forward, the one form that also covers *args."""
    return dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)


def _reason(error: BaseException) -> str:
    """The first line of an exporter's message that says something, after the kind of error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    if first.startswith("Constraints violated"):  # a later line says which
        first = next((line for line in lines if line.startswith("- ")), first).removeprefix("- ")
    return f"{type(error).__name__}: {first[:300]}"


def _sort(program: ExportedProgram, example: tuple[Tensor, ...]) -> Exported:
    """The graph with its placeholders sorted by owner; shared tensors become attributes."""
    graph = copy.deepcopy(program.graph)
    nodes = [n for n in graph.nodes if n.op == "placeholder"]
    state = program.state_dict
    weights: dict[str, str] = {}
    shared: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    leaves: list[Any] = []
    inputs: list[str] = []
    # By position, for a copied graph renames what clashes with a name of Python, such as "input".
    for spec, node in zip(program.graph_signature.input_specs, nodes, strict=True):
        name = node.name
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(spec.arg, TensorArgument):
                leaves.append(Ref(len(inputs)))
                inputs.append(name)
            else:
                leaves.append(getattr(spec.arg, "value", None))
                _drop(graph, node)
            continue
        target = str(spec.target)
        tensor = state[target] if target in state else program.constants[target]
        if not node.users:
            graph.erase_node(node)
        elif target in state and tensor.is_floating_point():
            weights[name] = target
        else:
            attribute = f"shared_{len(shared)}"
            shared[attribute] = tensor.detach().clone()
            if target in state:
                keys[attribute] = target
            _to_attribute(graph, node, attribute)
    root = nn.Module()
    for attribute, tensor in shared.items():
        root.register_buffer(attribute, tensor)
    weights, aliases = _tied(graph, weights, state)
    results = _outputs(program, graph)
    module = fx.GraphModule(root, graph)
    call = program.module_call_graph[0].signature
    return Exported(
        module=module,
        weights=weights,
        aliases=aliases,
        shared=shared,
        shared_keys=keys,
        inputs=tuple(inputs),
        leaves=tuple(leaves),
        in_spec=call.in_spec,
        results=results,
        out_spec=call.out_spec,
        symbol=_symbol(graph, inputs),
        own_bytes=own_bytes(state),
        shapes={k: (tuple(state[k].shape), state[k].dtype) for k in weights.values()},
        example=example,
    )


def own_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of one tenant's state dict, tied tensors counted once."""
    unique = {(t.data_ptr(), t.numel()): t for t in state.values()}
    return sum(tensor.nbytes for tensor in unique.values())


def _drop(graph: fx.Graph, node: fx.Node) -> None:
    """Remove the placeholder of an input that is a constant."""
    if node.users:
        raise CannotExport(f"the graph computes with the constant input '{node.name}'")
    graph.erase_node(node)


def _to_attribute(graph: fx.Graph, node: fx.Node, attribute: str) -> None:
    """Put an attribute of the module in the place of a placeholder."""
    with graph.inserting_before(node):
        constant = graph.get_attr(attribute)
    constant.meta.update(node.meta)
    node.replace_all_uses_with(constant)
    graph.erase_node(node)


def _tied(
    graph: fx.Graph, weights: dict[str, str], state: Mapping[str, Tensor]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """One placeholder for each distinct tensor, and which other keys name the same tensor."""
    first: dict[Any, str] = {}
    nodes = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    kept: dict[str, str] = {}
    for name, key in weights.items():
        tensor = state[key]
        place = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
        if place == name or tensor.numel() == 0:
            kept[name] = key
        else:
            nodes[name].replace_all_uses_with(nodes[place])
            graph.erase_node(nodes[name])
    aliases: dict[str, tuple[str, ...]] = {}
    for key in kept.values():
        t = state[key]
        others = tuple(
            k
            for k, u in state.items()
            if k != key and u.data_ptr() == t.data_ptr() and u.shape == t.shape and t.numel()
        )
        if others:
            aliases[key] = others
    return kept, aliases


def _outputs(program: ExportedProgram, graph: fx.Graph) -> tuple[Any, ...]:
    """Replace the graph's output by its tensors; say where each returned leaf comes from."""
    output = next(n for n in graph.nodes if n.op == "output")
    tensors: list[fx.Node] = []
    results: list[Any] = []
    values = output.args[0]
    assert isinstance(values, (list, tuple))
    for spec, value in zip(program.graph_signature.output_specs, values, strict=True):
        if isinstance(spec.arg, ConstantArgument) or not isinstance(value, fx.Node):
            results.append(getattr(spec.arg, "value", value))
        elif not isinstance(value.meta["val"], Tensor):
            raise CannotExport(f"output '{value.name}' is a size, not a tensor")
        else:
            results.append(Ref(len(tensors)))
            tensors.append(value)
    output.args = (tuple(tensors),)
    return tuple(results)


def _symbol(graph: fx.Graph, inputs: Sequence[str]) -> Any:
    """The symbol of the batch size. Raises CannotExport where the model fixes the size."""
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            size = node.meta["val"].shape[0]
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                return size.node.expr
    raise CannotExport("the model fixes its batch size")
