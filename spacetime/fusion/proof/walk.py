"""From a graph to the proof that its samples are apart, or to the first operation that spoils it.

For every operation a rule says where the samples are in its result, given where they are in its
operands. An operation without a rule proves nothing, and neither does one whose rule does not cover
the case at hand. What a rule claims is compared with how the shapes grow with the batch.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.export import Exported
from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.graph.nodes import bind, draws_random, operation_name
from spacetime.fusion.proof.computing import RULES as COMPUTING
from spacetime.fusion.proof.indexing import RULES as INDEXING
from spacetime.fusion.proof.layers import RULES as LAYERS
from spacetime.fusion.proof.shapes import RULES as SHAPES
from spacetime.fusion.proof.shapes import TAKE_SIZES
from spacetime.fusion.proof.values import (
    BatchSize,
    Call,
    Mixed,
    ProofRule,
    SampleNumbers,
    batch_dims,
    elementwise,
    tensors,
)

RULES: dict[str, ProofRule] = {**COMPUTING, **LAYERS, **INDEXING, **SHAPES}
_SIZES = {"sym_size", "sym_numel", "sym_stride"}
_WRAPPERS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}  # position of their graph


@dataclass(frozen=True, slots=True)
class Doubt:
    """The operation at which the proof ended, where in the model it stands, and why it ended."""

    operation: str
    where: str
    reason: str

    def __str__(self) -> str:
        place = f" in {self.where}" if self.where else ""
        return f"{self.operation}{place}: {self.reason}"


class _Ended(Exception):
    """Carries a doubt out of nested graphs."""

    def __init__(self, operation: str, where: str, reason: str) -> None:
        super().__init__(operation, where, reason)


def doubt(exported: Exported) -> Doubt | None:
    """Why the samples of a batch may depend on each other; None where the graph proves that they do
    not.

    Proven means: sample i of every output depends on sample i of the inputs alone. It depends
    neither on how many samples there are nor on its place among them. Rounding may differ, as it
    does between batch sizes.
    """
    values: dict[fx.Node, Any] = {}
    inputs = [n for n in exported.module.graph.nodes if n.op == "placeholder"]
    for node in inputs:
        values[node] = Layout(0) if node.name in exported.inputs else None
    try:
        returned = _walk(exported.module, values, exported.symbol)
    except _Ended as ended:
        return Doubt(*ended.args)
    for node, value in returned:
        if value != Layout(0):
            return Doubt(_name(node), _where(node), "an output has no sample in each row")
    return None


def _walk(
    module: fx.GraphModule, values: dict[fx.Node, Any], symbol: Any
) -> list[tuple[fx.Node, Any]]:
    """Fill in `values` for a graph; return each node that the graph returns, with where the
    samples are in it.
    """
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = None
        elif node.op == "call_function":
            try:
                values[node] = _value(module, node, values, symbol)
            except Mixed as why:
                raise _Ended(_name(node), _where(node), str(why)) from None
        elif node.op == "output":
            return [(n, values[n]) for n in tensors(node.args)]
    return []


def _value(
    module: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any], symbol: Any
) -> Any:
    """Where the samples are in what a call returns. Raises Mixed where nothing proves it."""
    name = _name(node)
    if node.target is operator.getitem:
        source, position = node.args
        value = values[source]  # type: ignore[index]
        return value[position] if isinstance(value, tuple) else value  # type: ignore[index]
    if name in _WRAPPERS:
        return _wrapped(module, node, values, symbol)
    sized = [values[n] for n in node.all_input_nodes if isinstance(values[n], BatchSize)]
    if name in _SIZES or (sized and len(sized) == len(node.all_input_nodes) and _scalar(node)):
        return BatchSize()
    if name == "_assert_tensor_metadata":
        return None
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        raise Mixed("no rule says that it keeps samples apart")
    if draws_random(node):
        raise Mixed("it draws random numbers")
    constant = not sized and all(values[n] is None for n in node.all_input_nodes)
    if _scalar(node):
        if not constant:
            raise Mixed("it looks at values of the whole batch")
        return None
    call = Call(node, bind(node), values, symbol)
    value = None if constant else _ruled(call, name, sized=bool(sized))
    _check(call, value)
    return value


def _ruled(call: Call, name: str, *, sized: bool) -> Any:
    """What the rule for a call says. Raises Mixed where there is none or it does not cover the
    call.
    """
    target = call.node.target
    assert isinstance(target, torch._ops.OpOverload)
    if sized and name not in TAKE_SIZES:
        raise Mixed("it computes with the size of the batch")
    if torch.Tag.pointwise in target.tags:
        return elementwise(call)
    if name not in RULES:
        raise Mixed("no rule says that it keeps samples apart")
    try:
        return RULES[name](call)
    except (KeyError, IndexError, TypeError, ValueError, AssertionError):
        # A rule is written for an operation's usual overload; another one has other arguments.
        raise Mixed("no rule covers this form of it") from None


def _wrapped(
    module: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any], symbol: Any
) -> Any:
    """What a block under torch.no_grad or autocast returns; export keeps it as a graph of its
    own.
    """
    at = _WRAPPERS[_name(node)]
    part = module.get_submodule(str(node.args[at].target))  # type: ignore[union-attr]
    assert isinstance(part, fx.GraphModule)
    places = [n for n in part.graph.nodes if n.op == "placeholder"]
    own = {
        place: values[given] if isinstance(given, fx.Node) else None
        for place, given in zip(places, node.args[at + 1 :], strict=True)
    }
    return tuple(value for _, value in _walk(part, own, symbol))


def _check(call: Call, value: Any) -> None:
    """Raise Mixed where a rule's claim disagrees with how the result's shape grows with the
    batch.
    """
    result = call.node.meta.get("val")
    shaped = [result] if isinstance(result, Tensor) else result
    claimed = value if isinstance(value, tuple) else [value] * len(shaped or [])
    if not isinstance(shaped, (list, tuple)) or len(claimed) != len(shaped):
        raise Mixed("no rule covers what it returns")
    for tensor, claim in zip(shaped, claimed, strict=True):
        if not isinstance(tensor, Tensor):
            raise Mixed("it returns what is no tensor")
        grows = batch_dims(tensor, call.symbol)
        if isinstance(claim, Layout):
            expected = [(claim.dim, claim.outer * claim.inner)]
        else:
            expected = [(claim.dim, 1)] if isinstance(claim, SampleNumbers) else []
        if grows != expected:
            raise Mixed("what it returns does not hold every sample once")


def _scalar(node: fx.Node) -> bool:
    """Whether a call returns no tensor but a number that is known only when the graph runs."""
    value = node.meta.get("val")
    return value is None or isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int))


def _name(node: fx.Node) -> str:
    """The operation's name without its namespace."""
    return operation_name(node).rpartition("::")[2]


def _where(node: fx.Node) -> str:
    """The module that holds a call: `'encoder.layer.0' (BertLayer)`."""
    stack = [*(node.meta.get("nn_module_stack") or {}).values()]
    if not stack:
        return ""
    path, kind = stack[-1]
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    return f"'{path}' ({name})" if path else f"the model ({name})"
