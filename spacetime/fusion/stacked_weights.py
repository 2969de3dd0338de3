"""What is stacked: the weights as the graph uses them, each computed once for a tenant.

A stacked weight is a weight of the state dict, or an expression over weights alone, such as a
folded batch-norm or a slice of a position table. An expression is evaluated when a tenant joins,
never in a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.fusion.graph.export import Exported
from spacetime.fusion.graph.nodes import NodeKind, kinds

SPARE_FRAC = 0.03  # how much larger than the weights themselves their expressions may be


@dataclass(frozen=True, slots=True)
class StackedWeight:
    """One weight as the graph takes it: a placeholder, and how its value follows from a state dict.

    `name`: of the placeholder.
    `keys`: of the state dict's tensors that it is computed from.
    `expression`: from those tensors to the value; None where the value is the one tensor itself.
    `shape`, `dtype`: of the value, one tenant's.
    `channels_last`: how a weight [O, C, H, W] lies in memory; a CPU's convolutions take it so
        without reordering it in every call.
    """

    name: str
    keys: tuple[str, ...]
    expression: fx.GraphModule | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of one tenant's value."""
        return self.dtype.itemsize * int(torch.Size(self.shape).numel())

    def compute(self, state: Mapping[str, Tensor]) -> Tensor:
        """The value for a tenant with this state dict."""
        sources = [state[key].detach() for key in self.keys]
        if self.expression is None:
            return sources[0]
        with torch.no_grad():
            value: Tensor = self.expression(*sources)
        return value


@dataclass(frozen=True, slots=True)
class Plain:
    """The model as one tenant runs it: from (*weights, *inputs) to a tuple of outputs."""

    module: fx.GraphModule
    weights: tuple[StackedWeight, ...]

    def answers(self, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The flat outputs of a tenant with this state dict."""
        with torch.no_grad():
            weights = [weight.compute(state) for weight in self.weights]
            # Not the module's own call: that prints the generated code when an operation fails.
            outputs: Sequence[Tensor] = self.module.forward(*weights, *inputs)
        return outputs


def extract(exported: Exported, module: fx.GraphModule) -> Plain:
    """Move arithmetic on weights out of a graph; what it computes becomes a stacked weight.

    Expressions that would take more memory than SPARE_FRAC allows stay in the graph, joined with
    the nodes that use them. `module` is changed in place.
    """
    graph = module.graph
    kind = kinds(graph, exported.weights.keys())
    _fold_shared(module, kind)
    kind = kinds(graph, exported.weights.keys())
    frontier = [n for n in graph.nodes if kind[n] is NodeKind.WEIGHT and _leaves(n, kind)]
    kept = _affordable(frontier, exported)
    _defer(module, set(frontier) - set(kept), kind)
    weights = {n: _stacked(module, n, exported) for n in kept if n.op != "placeholder"}
    for node, weight in weights.items():
        with graph.inserting_before(next(iter(graph.nodes))):
            place = graph.placeholder(weight.name)
        place.meta.update(node.meta)
        node.replace_all_uses_with(place)
    graph.eliminate_dead_code()
    computed = {weight.name: weight for weight in weights.values()}
    ordered = []
    for node in list(graph.nodes):
        if node.op != "placeholder" or node.name in exported.inputs:
            continue
        if node.name in computed:
            ordered.append(computed[node.name])
        elif node.users:
            ordered.append(_stacked(module, node, exported))
        else:
            graph.erase_node(node)
    module.recompile()
    return Plain(module, tuple(ordered))


def _stacked(module: fx.GraphModule, node: fx.Node, exported: Exported) -> StackedWeight:
    """The stacked weight for a node that depends on weights alone."""
    ends = sorted(_sources(node), key=lambda n: n.name)
    keys = tuple(exported.weights[n.name] for n in ends)
    value = node.meta["val"]
    shape, dtype = tuple(int(n) for n in value.shape), value.dtype
    if node.op == "placeholder":
        return StackedWeight(node.name, keys, None, shape, dtype, _channels_last(node))
    expression = _subgraph(module, _needed([node]), ends)
    name = f"computed_{node.name}"
    return StackedWeight(name, keys, expression, shape, dtype, _channels_last(node))


def _channels_last(node: fx.Node) -> bool:
    """Whether a weight is used as the kernel of plain two-dimensional convolutions and nowhere
    else.
    """
    convolution = torch.ops.aten.conv2d.default
    users = [u for u in node.users if u.target is convolution and u.args[1] is node]
    return bool(users) and len(users) == len(node.users)


def _defer(module: fx.GraphModule, dropped: set[fx.Node], kind: dict[fx.Node, NodeKind]) -> None:
    """Join each node that uses a dropped expression with it: one node, on weights as they are."""
    graph = module.graph
    expressions = {n for n in dropped if n.op != "placeholder"}
    for node in list(graph.nodes):
        used = [n for n in node.all_input_nodes if n in expressions]
        if not used or kind[node] is NodeKind.WEIGHT or node.op == "output":
            continue
        inside = [*_needed(used), node]
        ends = [*{n: None for i in inside for n in i.all_input_nodes if n not in inside}]
        name = f"deferred_{node.name}"
        module.add_submodule(name, _subgraph(module, inside, ends))
        with graph.inserting_before(node):
            joined = graph.call_module(name, tuple(ends))
        joined.meta.update(node.meta)
        joined.meta["why"] = "computes on weights: keeping the result would take too much memory"
        node.replace_all_uses_with(joined)
        graph.erase_node(node)


def _leaves(node: fx.Node, kind: dict[fx.Node, NodeKind]) -> bool:
    """Whether a weight is used by anything but arithmetic on weights."""
    return any(kind[user] is not NodeKind.WEIGHT for user in node.users)


def _nbytes(node: fx.Node) -> int:
    """Bytes of a node's value."""
    value = node.meta["val"]
    return int(value.numel()) * int(value.element_size())


def _fold_shared(module: fx.GraphModule, kind: dict[fx.Node, NodeKind]) -> None:
    """Replace what depends on no weight and no input by its value, computed now."""
    graph = module.graph
    constants: dict[fx.Node, Any] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            constants[node] = getattr(module, str(node.target))
        elif node.op == "call_function" and kind[node] is NodeKind.SHARED:
            if isinstance(node.target, torch._ops.OpOverload) and (
                torch.Tag.nondeterministic_seeded in node.target.tags
            ):
                continue
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: constants[n])
            with torch.no_grad():
                constants[node] = node.target(*args, **kwargs)
    for node, value in constants.items():
        if node.op == "get_attr" or not isinstance(value, Tensor):
            continue
        name = f"folded_{node.name}"
        module.register_buffer(name, value)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta.update(node.meta)
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()


def _affordable(frontier: list[fx.Node], exported: Exported) -> list[fx.Node]:
    """The largest part of `frontier` whose values fit into the memory that a tenant may take.

    The largest expression is dropped first. What is dropped counts through the weights it reads,
    which are then stacked themselves.
    """
    limit = int(exported.own_bytes * (1 + SPARE_FRAC))
    kept = list(frontier)
    while True:
        dropped = [n for n in frontier if n not in kept]
        extra = {p for n in dropped for p in _sources(n)} - set(kept)
        if sum(map(_nbytes, [*kept, *extra])) <= limit:
            return kept
        kept.remove(max((n for n in kept if n.op != "placeholder"), key=_nbytes))


def _sources(node: fx.Node) -> set[fx.Node]:
    """The weight placeholders that an expression reads."""
    if node.op == "placeholder":
        return {node}
    return {p for n in node.all_input_nodes for p in _sources(n)}


def _subgraph(module: fx.GraphModule, nodes: list[fx.Node], ends: list[fx.Node]) -> fx.GraphModule:
    """The part of a graph that computes `nodes[-1]`, as a module that takes the values of
    `ends`.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    root = nn.Module()
    for end in ends:
        copies[end] = graph.placeholder(end.name)
        copies[end].meta.update(end.meta)
    for node in nodes:
        if node.op == "get_attr":
            root.register_buffer(str(node.target), getattr(module, str(node.target)))
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(root, graph)


def _needed(nodes: list[fx.Node]) -> list[fx.Node]:
    """The nodes that these expressions consist of, in order, without their placeholders."""
    order: dict[fx.Node, None] = {}

    def visit(needed: fx.Node) -> None:
        if needed.op == "placeholder" or needed in order:
            return
        for source in needed.all_input_nodes:
            visit(source)
        order[needed] = None

    for node in nodes:
        visit(node)
    return list(order)
