"""From one tenant's graph to the graph over slots.

A node that touches a weight is rewritten by the rule for its operation; where there is none, by the
generic rule. All other nodes are copied: they work on the slot dimension as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.operation import Implementation, SlotOperation
from spacetime.fusion.graph.export import Exported
from spacetime.fusion.graph.layout import Layout, Layouts
from spacetime.fusion.graph.nodes import NodeKind, kinds, operation_name
from spacetime.fusion.indexes.guards import GUARDS, guarded
from spacetime.fusion.report import FusionRow
from spacetime.fusion.stacked_weights import Plain
from spacetime.kernels.slots import spread


class NoRule(Exception):
    """Raised by a rule that does not cover a case. Its message becomes the reason in the report."""


Rule = Callable[["Lowering", fx.Node], fx.Node]


@dataclass(slots=True)
class Lowering:
    """The graph over slots while it is written: rules read the old node and write new ones here.

    `graph`, `root`: the new graph, and the module that holds its slot operations and constants.
    `layouts`, `kind`: where the slots are in each old node's value, and whose value it is.
    `symbol`: the number of slots, a symbol of sympy.
    `rows`, `run`: the new graph's first two placeholders, as every kernel takes them.
    `rewritten`: the new node for each old one.
    `spreads`: rows and run for slots spread over their samples, by (outer, inner).
    `count`: how many slot operations have been made.
    """

    graph: fx.Graph
    root: nn.Module
    layouts: Layouts
    kind: Mapping[fx.Node, NodeKind]
    symbol: Any
    rows: fx.Node
    run: fx.Node
    rewritten: dict[fx.Node, fx.Node] = field(default_factory=dict)
    spreads: dict[tuple[int, int], tuple[fx.Node, fx.Node]] = field(default_factory=dict)
    count: int = 0

    def new(self, value: Any) -> Any:
        """The same value with new nodes in place of old ones; other values stay."""
        return fx.map_arg(value, lambda n: self.rewritten[n])

    def is_weight(self, value: Any) -> bool:
        """Whether a value is an old node whose value is a tenant's own."""
        return isinstance(value, fx.Node) and self.kind[value] is NodeKind.WEIGHT

    def layout(self, node: fx.Node) -> Layout:
        """Where the slots are in the value of an old node. Raises NoRule where it has none."""
        layout = self.layouts[node]
        if layout is None:
            raise NoRule(f"'{node.name}' has no slot dimension")
        return layout

    def slots(self, outer: int = 1, inner: int = 1) -> tuple[fx.Node, fx.Node]:
        """The new nodes of `rows` and `run`, spread over `outer * S * inner` samples."""
        if (outer, inner) == (1, 1):
            return self.rows, self.run
        if (outer, inner) not in self.spreads:
            if not hasattr(self.root, "no_run"):
                self.root.register_buffer("no_run", torch.tensor(-1))
            rows = self.graph.call_function(_spread, (self.rows, outer, inner))
            self.spreads[outer, inner] = rows, self.graph.get_attr("no_run")
        return self.spreads[outer, inner]

    def operation(
        self,
        name: str,
        implementations: Mapping[str, Implementation],
        slots: tuple[fx.Node, fx.Node],
        *operands: Any,
    ) -> fx.Node:
        """Write a call of a new slot operation and return its node.

        `name`: what is computed, the operation's `key`; its part before '(' names the module.
        `implementations`: the candidates, in order of preference.
        `slots`: the nodes of rows and run, from `slots`.
        `operands`: new nodes and constants.
        """
        attribute = f"slots_{self.count}_{name.partition('(')[0]}"
        self.count += 1
        self.root.add_module(attribute, SlotOperation(name, implementations))
        return self.graph.call_module(attribute, (*slots, *operands))


@dataclass(frozen=True, slots=True)
class Lowered:
    """The graph over slots: from (rows, run, *stacks, *inputs) to a tuple of outputs.

    `rows` is the report of each rewritten node. `operations` names the slot operations that a
    reported node became.
    """

    module: fx.GraphModule
    rows: tuple[FusionRow, ...]
    operations: dict[str, tuple[str, ...]]  # reported node -> names of its slot operations

    def operation(self, name: str) -> SlotOperation:
        """The slot operation of this name."""
        operation = self.module.get_submodule(name)
        assert isinstance(operation, SlotOperation)
        return operation


def lower(
    exported: Exported, plain: Plain, rule_of: Callable[[Any], Rule | None], generic: Rule
) -> Lowered:
    """Write the graph over slots.

    `exported`: the template's graph, for its inputs and its symbol.
    `plain`: the graph to rewrite.
    `rule_of`: the rule for a node's target, None where there is none.
    `generic`: the rule for all others.

    Raises CannotFuse with the name of the node that prevents it.
    """
    source = guarded(plain.module, exported.inputs)
    names = {weight.name for weight in plain.weights}
    graph = fx.Graph()
    rows, run = graph.placeholder("slot_rows"), graph.placeholder("slot_run")
    context = Lowering(
        graph=graph,
        root=source,
        layouts=Layouts(source.graph, exported.symbol),
        kind=kinds(source.graph, names),
        symbol=exported.symbol,
        rows=rows,
        run=run,
    )
    report: list[FusionRow] = []
    operations: dict[str, tuple[str, ...]] = {}
    for node in source.graph.nodes:
        before = context.count
        if node.op == "output":
            _check_outputs(context, node)
        elif node.op in {"call_function", "call_module"}:
            _check_independent(context, node)
        if not any(context.is_weight(n) for n in node.all_input_nodes):
            context.rewritten[node] = graph.node_copy(node, lambda n: context.rewritten[n])
            if node.target in GUARDS:
                context.rewritten[node].meta["layout"] = context.layouts[node]
            continue
        context.rewritten[node], row = _rewrite(context, node, rule_of, generic)
        report.append(row)
        operations[node.name] = tuple(
            n.target for n in graph.nodes if n.op == "call_module" and _number(n) >= before
        )
    module = fx.GraphModule(source, graph)
    return Lowered(module, tuple(report), operations)


def _spread(rows: Tensor, outer: int, inner: int) -> Tensor:
    """`spread` as a function of Python: a graph cannot name a compiled one."""
    return spread(rows, outer, inner)


def _number(node: fx.Node) -> int:
    """Which slot operation a call names, counted in the order of making; -1 for other modules."""
    parts = str(node.target).split("_")
    return int(parts[1]) if parts[0] == "slots" else -1


def _rewrite(
    context: Lowering, node: fx.Node, rule_of: Callable[[Any], Rule | None], generic: Rule
) -> tuple[fx.Node, FusionRow]:
    """A node by its rule, or by the generic one, and its row in the report."""
    name = operation_name(node) if node.op == "call_function" else "expression"
    rule = rule_of(node.target)
    reason = node.meta.get("why", f"no rule for {name}")
    if rule is not None:
        try:
            return rule(context, node), FusionRow(node.name, name, "fused")
        except NoRule as refusal:
            reason = str(refusal)
    try:
        return generic(context, node), FusionRow(node.name, name, "fell back", reason=reason)
    except NoRule as refusal:
        raise CannotFuse(node.name, f"{name}: {reason}; {refusal}") from None


def _check_outputs(context: Lowering, node: fx.Node) -> None:
    """Raise CannotFuse unless every output holds one sample a slot in its first dimension."""
    for value in node.all_input_nodes:
        layout = context.layouts[value]
        if context.is_weight(value) or layout is None or not layout.plain:
            raise CannotFuse(value.name, "an output needs the batch as its first dimension")


def _check_independent(context: Lowering, node: fx.Node) -> None:
    """Raise CannotFuse where a value is made of samples and has no slot dimension.

    Such a value depends on the whole batch.
    """
    if context.kind[node] is not NodeKind.SLOT or context.layouts[node] is not None:
        return
    value = node.meta.get("val")
    if isinstance(value, Tensor) and any(
        isinstance(n.meta.get("val"), (Tensor, list, tuple)) and context.kind[n] is NodeKind.SLOT
        for n in node.all_input_nodes
    ):
        raise CannotFuse(node.name, "its value depends on the whole batch, not on one sample")
