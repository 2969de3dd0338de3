"""TorchScript of a fused graph: one compiled function for each number of slots.

A compiled function takes the weights as arguments, so that tenants join and leave without
compiling. Where all slots name the same tenant it runs that tenant's plain graph, else the graph
over slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.fusion.graph.nodes import copied
from spacetime.kernels import onednn
from spacetime.kernels.slots import locate, run_of
from spacetime.kernels.tracing import tracing

WARM_UPS, ROUNDS = 2, 4  # TorchScript optimises during its first calls


class _Mixed(nn.Module):
    """The graph over slots, or the plain graph where all slots name one tenant."""

    def __init__(self, plain: Any, mixed: Any) -> None:
        super().__init__()
        self.plain = plain
        self.mixed = mixed

    def forward(
        self, index: Tensor, table: Tensor, weights: list[Tensor], inputs: list[Tensor]
    ) -> list[Tensor]:
        rows = locate(table, index)
        first = rows[0]
        if bool((rows == first).all()):
            row = int(first)
            return self.plain([w[row] for w in weights], inputs)  # type: ignore[no-any-return]
        return self.mixed(rows, run_of(rows), weights, inputs)  # type: ignore[no-any-return]


def trace_plain(
    module: fx.GraphModule, weights: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Callable[..., list[Tensor]]:
    """Compile a plain graph to a function from (weights, inputs) to outputs, for one batch size.

    `module`: the graph, from (*weights, *inputs) to outputs.
    `weights`: those of one tenant, as an example.
    `inputs`: as an example; the function serves their batch size only.

    Linear layers run by oneDNN where that is faster, which is measured here.
    """
    example = (list(weights), list(inputs))

    def traced(graph: fx.GraphModule) -> Callable[..., list[Tensor]]:
        if not weights:  # TorchScript traces no empty list
            only = _trace(lambda inputs: list(graph(*inputs)), (list(inputs),))
            return lambda weights, inputs: only(list(inputs))

        def run(weights: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            return list(graph(*weights, *inputs))

        return _trace(run, example)

    ways = [traced(module)]
    if (other := _with_onednn(module)) is not None:
        ways.append(traced(other))
    return ways[0] if len(ways) == 1 else min(ways, key=lambda way: _best_ns(way, example))


def _with_onednn(module: fx.GraphModule) -> fx.GraphModule | None:
    """The graph with oneDNN's linear layers; None where there is nothing to change."""
    graph = copied(module.graph)
    layers = [n for n in graph.nodes if n.target is torch.ops.aten.linear.default]
    fits = all(n.args[0].meta["val"].dtype is torch.float32 for n in layers)
    if not (layers and fits and onednn.available):
        return None
    for layer in layers:
        layer.target = onednn.linear_of_one
    return fx.GraphModule(module, graph)


def _best_ns(call: Callable[..., list[Tensor]], example: tuple[Any, ...]) -> int:
    """The least time of a call over some rounds, in nanoseconds; the first rounds warm up."""

    def once() -> int:
        begin = time.perf_counter_ns()
        call(*example)
        return time.perf_counter_ns() - begin

    with torch.no_grad():
        return min(once() for _ in range(WARM_UPS + ROUNDS))


def trace_mixed(
    module: fx.GraphModule, rows: Tensor, weights: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Callable[..., list[Tensor]]:
    """Compile a graph over slots to a function from (rows, run, weights, inputs) to outputs.

    `module`: the graph, from (rows, run, *stacks, *inputs) to outputs.
    `rows`: int64 [S], no run, as an example; the function serves this number of slots only.
    `weights`, `inputs`: the stacks, and the inputs of S samples.
    """

    def run(rows: Tensor, run: Tensor, weights: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        return list(module(rows, run, *weights, *inputs))

    return _trace(run, (rows, run_of(rows), list(weights), list(inputs)))


def dispatch(plain: Any, mixed: Any) -> Callable[..., list[Tensor]]:
    """Compile both graphs into one function from (index, table, weights, inputs) to outputs."""
    with tracing():
        compiled: Callable[..., list[Tensor]] = torch.jit.script(_Mixed(plain, mixed))
    return compiled


def without_weights(plain: Any) -> Callable[..., list[Tensor]]:
    """The function that `dispatch` returns, for a graph that uses no tenant's weights."""

    def call(
        index: Tensor, table: Tensor, weights: list[Tensor], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        locate(table, index)
        return plain(weights, inputs)  # type: ignore[no-any-return]

    return call


def _trace(function: Callable[..., Any], example: tuple[Any, ...]) -> Callable[..., list[Tensor]]:
    """A function of tensors as TorchScript, traced on an example."""
    with tracing(), torch.no_grad():
        # The tracer warns that sizes become constants, which is what we want.
        tracer: Any = torch.jit.trace  # untyped in PyTorch
        traced: Callable[..., list[Tensor]] = tracer(
            function, example, check_trace=False, strict=False
        )
    return traced
