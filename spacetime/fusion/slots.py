"""From a template to its graph over slots, checked: what `fuse` and resident families build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.qualify import close, qualify
from spacetime.fusion.graph.export import Exported, export
from spacetime.fusion.graph.fold import simplify
from spacetime.fusion.graph.nodes import copied
from spacetime.fusion.lower import Lowered, lower
from spacetime.fusion.probes import ranges, rows_of
from spacetime.fusion.proof import doubt
from spacetime.fusion.rules.generic import generic
from spacetime.fusion.rules.table import rule_of
from spacetime.fusion.stacked_weights import Plain, extract
from spacetime.fusion.stacks import Stacks, empty
from spacetime.kernels.slots import run_of

CHECK_SLOTS = 3


@dataclass(frozen=True, slots=True)
class SlotGraph:
    """One architecture in three forms: as exported, as one tenant runs it, and over slots."""

    exported: Exported
    plain: Plain
    lowered: Lowered


def slot_graph(
    template: nn.Module | Exported,
    weights: Sequence[Mapping[str, Tensor]],
    *,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> SlotGraph:
    """Make the graph over slots of a template: `slot_graph(template, [state, ...])`.

    `template`: a model in eval mode, or what `export` made of one.
    `weights`: state dicts of tenants, at least one. All must fit; the first serves the check.
    `example_inputs`, `example_kwargs`: a call of the template.
    `fold`: whether batch-norm becomes part of the layer before it.

    The graph is compared with running samples one by one. Raises CannotExport where there is no
    graph of the template, CannotFuse (with the node's name) where it cannot be fused, and
    ValueError where a state dict does not fit.
    """
    if not weights:
        raise ValueError("weights: at least one state dict is needed")
    exported = template
    if not isinstance(exported, Exported):
        assert isinstance(template, nn.Module)
        exported = export(template, example_inputs, example_kwargs)
    for state in weights:
        exported.check(state)
    copy = fx.GraphModule(exported.module, copied(exported.module.graph))
    module = simplify(copy, frozenset(exported.weights), fold=fold)
    plain = extract(exported, module)
    lowered = lower(exported, plain, rule_of, generic)
    if (doubted := doubt(exported)) is not None:
        raise CannotFuse(doubted.operation, f"not proven that samples are apart: {doubted.reason}")
    _check(exported, plain, lowered, weights[0])
    return SlotGraph(exported, plain, lowered)


def _check(exported: Exported, plain: Plain, lowered: Lowered, state: Mapping[str, Tensor]) -> None:
    """Raise CannotFuse unless the graph over slots equals the plain graph, sample by sample.

    Tenants and samples are made up for it. Implementations that fail or disagree are dropped.
    """
    generator = torch.Generator().manual_seed(0)
    states = [_varied(exported, state, generator) for _ in range(CHECK_SLOTS)]
    stacks = empty(plain.weights).with_tenants(states)
    inputs = _inputs(exported, plain, [v[0] for v in stacks.values])
    rows = torch.tensor([2, 0, 1])  # no run: that would be served by a view, without gathering
    try:
        qualify(lowered.module, (rows, run_of(rows), *stacks.values, *inputs))
    except CannotFuse as error:
        node = next(n for n, names in lowered.operations.items() if error.node in names)
        raise CannotFuse(node, error.reason) from error
    with torch.no_grad():
        fused = lowered.module(rows, run_of(rows), *stacks.values, *inputs)
        for slot, row in enumerate(rows.tolist()):
            sample = [x[slot : slot + 1] for x in inputs]
            alone = plain.module(*(stack[row] for stack in stacks.values), *sample)
            for name, batch, expected in zip(_output_names(plain), fused, alone, strict=True):
                if not close(batch[slot : slot + 1], expected):
                    raise CannotFuse(name, "a sample's result depends on the others in its batch")
    _check_apart(plain, lowered, stacks, inputs, fused)


def _check_apart(
    plain: Plain,
    lowered: Lowered,
    stacks: Stacks,
    inputs: Sequence[Tensor],
    expected: Sequence[Tensor],
) -> None:
    """Raise CannotFuse unless the others' answers stay the same when one tenant's weights are NaN.

    NaN shows what equal numbers hide: a kernel that multiplies a foreign weight by zero.
    """
    spoilt = [v.clone() for v in stacks.values]
    for value in spoilt:
        if value.is_floating_point():
            value[0] = float("nan")
    rows = torch.tensor([2, 0, 1])  # only slot 1 uses row 0, the spoilt one
    with torch.no_grad():
        beside_nan = lowered.module(rows, run_of(rows), *spoilt, *inputs)
    for name, output, before in zip(_output_names(plain), beside_nan, expected, strict=True):
        if not (close(output[:1], before[:1]) and close(output[2:], before[2:])):
            raise CannotFuse(name, "a tenant's answer depends on another's weights")


def _output_names(plain: Plain) -> list[str]:
    """The names of the nodes that the graph returns, in order."""
    output = next(n for n in plain.module.graph.nodes if n.op == "output")
    values: Any = output.args[0]  # with repeats, which all_input_nodes leaves out
    return [n.name for n in values]


def _varied(
    exported: Exported, state: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """A state dict near the given one, in which no two weights and no two tenants are equal."""

    def vary(weight: Tensor) -> Tensor:
        # The noise is at least 0, so what has to be positive, such as a variance, stays so.
        noise = torch.rand(weight.shape, generator=generator).to(weight.dtype)
        return torch.nan_to_num(weight.detach()) * (1 + noise / 5) + noise / 100

    return {key: vary(state[key]) for key in exported.shapes}


def _inputs(exported: Exported, plain: Plain, weights: Sequence[Tensor]) -> list[Tensor]:
    """Inputs of CHECK_SLOTS samples that differ from each other.

    Where the model takes no made-up numbers, the inputs hold numbers of the example only, and where
    it takes no made-up values at all, the example's own sample is repeated.
    """
    shown = ranges(exported.example, exported)
    for within in (shown, shown.narrowed()):
        samples = rows_of(exported.example, within, CHECK_SLOTS, seed=0)
        with torch.no_grad(), suppress(Exception):  # whatever a model raises on such values
            plain.module.forward(*weights, *samples)
            return samples
    return exported.samples(CHECK_SLOTS)
