"""What a captured graph says of indexes beyond their bounds: a code for each slot, one more output.

Nothing in a captured graph may raise: on a CUDA device an error would end the process's use of it.
So each guard moves its index into the bounds, and notes its number for each slot whose index was
beyond.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse
from spacetime.fusion.graph.layout import Layout, slots_first
from spacetime.fusion.indexes.guards import GUARDS
from spacetime.kernels import bounds as kernel


def with_codes(module: fx.GraphModule) -> fx.GraphModule:
    """Turn the guards of a graph into clamps, and return one more output that tells which were
    beyond. The graph is changed in place.

    A graph without guards stays as it is. Raises CannotFuse where a guard's index has no slots.
    """
    graph = module.graph
    guards = [n for n in graph.nodes if n.target in GUARDS]
    if not guards:
        return module
    rows = next(iter(graph.nodes))
    with graph.inserting_before(guards[0]):
        codes = graph.call_function(torch.zeros_like, (rows,))
    for number, guard in enumerate(guards, 1):  # 0 is the code of a slot without a fault
        layout: Layout | None = guard.meta["layout"]
        if layout is None:
            raise CannotFuse(guard.name, "an index that is not each sample's own")
        with graph.inserting_before(guard):
            out = graph.call_function(_beyond, guard.args)
            within = graph.call_function(_clamped, (guard.args[0], out))
            place = (layout.dim, layout.outer, layout.inner)
            codes = graph.call_function(_noted, (codes, out, number, *place))
        within.meta.update(guard.meta)
        guard.replace_all_uses_with(within)
        graph.erase_node(guard)
    output = next(n for n in graph.nodes if n.op == "output")
    output.args = ((*output.args[0], codes),)
    module.recompile()
    return module


# Wrappers, because a graph's nodes can name functions of Python only, not compiled ones.


def _beyond(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """`bounds.beyond` as a function of Python."""
    return kernel.beyond(ids, low, high, also)


def _clamped(ids: Tensor, out: Tensor) -> Tensor:
    """`bounds.clamped` as a function of Python."""
    return kernel.clamped(ids, out)


def _noted(  # noqa: PLR0917 - a node's arguments
    codes: Tensor, out: Tensor, number: int, dim: int, outer: int, inner: int
) -> Tensor:
    """`bounds.noted` as a function of Python, for `out` with its slots in any dimension."""
    return kernel.noted(codes, slots_first(out, dim, outer, inner), number)
