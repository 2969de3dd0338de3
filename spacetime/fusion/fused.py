"""`fuse`: many models of one architecture as one module over slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spacetime.fusion.choice.qualify import tune
from spacetime.fusion.graph.export import Exported
from spacetime.fusion.lower import Lowered
from spacetime.fusion.numbers import numbers_of
from spacetime.fusion.report import FusionReport, FusionRow
from spacetime.fusion.script import dispatch, trace_mixed, trace_plain, without_weights
from spacetime.fusion.slots import slot_graph
from spacetime.fusion.stacked_weights import Plain
from spacetime.fusion.stacks import Stacks, empty
from spacetime.kernels.slots import locate, run_of

TUNE_BUDGET_MS = 500.0

CompiledGraph = Callable[..., list[Tensor]]


class Fused:
    """R models of one architecture, called on a batch whose slots each name a tenant.

    `fused(*inputs, index=numbers)` takes what the template takes, with S samples, and S numbers of
    tenants; it returns what the template returns, row s computed with the weights of index[s]. What
    a tenant's own module raises for its row, such as IndexError for an id beyond its table, is
    raised here; so do the functions of `script` and `alone`.

    *Thread safety*: calls, `append`, `update` and `remove` may run at the same time from any
    threads. A call sees the tenants and weights that were there when it began.
    """

    def __init__(self, exported: Exported, plain: Plain, lowered: Lowered, stacks: Stacks) -> None:
        self._exported = exported
        self._plain = plain
        self._lowered = lowered
        self._stacks = stacks
        self._changes = threading.Lock()
        self._compiling = threading.Lock()
        self._plain_compiled: dict[int, CompiledGraph] = {}
        self._compiled: dict[int, CompiledGraph] = {}

    @property
    def tenants(self) -> int:
        """How many tenants there are."""
        return len(self._stacks.numbers)

    @property
    def stacks(self) -> Stacks:
        """The present snapshot of all weights."""
        return self._stacks

    @property
    def exported(self) -> Exported:
        """The template's graph; its `flatten` and `unflatten` serve callers of `script`."""
        return self._exported

    @property
    def plain(self) -> Plain:
        """The graph as one tenant runs it."""
        return self._plain

    @property
    def report(self) -> FusionReport:
        """What was fused and how, with the implementations chosen so far."""
        own = tuple(self._with_choice(row) for row in self._lowered.rows)
        shared = tuple(
            FusionRow(
                name, "constant", "shared", reason=self._exported.shared_keys.get(name, "literal")
            )
            for name in self._exported.shared
        )
        return FusionReport(
            rows=own + shared,
            bytes_per_tenant=sum(weight.nbytes for weight in self._plain.weights),
            own_bytes_per_tenant=self._exported.own_bytes,
            template_bytes=self._exported.shared_bytes,
        )

    def __call__(self, *args: Any, index: Tensor | Sequence[int], **kwargs: Any) -> Any:
        inputs = self._exported.flatten(args, kwargs)
        stacks = self._stacks
        numbers = numbers_of(index, inputs, stacks)
        rows = locate(stacks.table, numbers)
        with torch.no_grad(), suppress(Exception):
            # Not the module's own call: that prints the generated code when an operation fails.
            outputs = self._lowered.module.forward(rows, run_of(rows), *stacks.values, *inputs)
            return self._exported.unflatten(outputs)
        return self._exported.unflatten(self._one_by_one(stacks, numbers, inputs))

    def append(self, state: Mapping[str, Tensor]) -> int:
        """append(state): add a tenant; its number. ValueError when its state dict does not fit."""
        self._exported.check(state)
        with self._changes:
            stacks = self._stacks.with_tenants([state])
            self._stacks = stacks
            return len(stacks.table) - 1

    def update(self, number: int, state: Mapping[str, Tensor]) -> None:
        """update(number, state): gives a tenant other weights. ValueError when they do not fit.

        A call that began before computes with the old ones, all of them.
        """
        self._exported.check(state)
        with self._changes:
            self._stacks = self._stacks.with_state(number, state)

    def remove(self, number: int) -> None:
        """remove(number): drop a tenant and its memory; other numbers stay. IndexError if absent.

        The storage before goes when the last call that began with it ends.
        """
        with self._changes:
            self._stacks = self._stacks.without(number)

    def tune(self, slots: int, *, budget_ms: float = TUNE_BUDGET_MS) -> None:
        """tune(slots): choose implementations for that many slots by timing them."""
        rows, weights = _mixture(slots, self._stacks)
        operands = (rows, run_of(rows), *weights, *self._exported.samples(slots))
        tune(self._lowered.module, operands, budget_ms)

    def script(self) -> Callable[..., tuple[Tensor, ...]]:
        """script(): script(index, *flat_inputs) -> flat outputs, without the interpreter lock.

        The first call with a new number of slots tunes and compiles for it.
        """

        def call(index: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            stacks = self._stacks
            if not _fits(index, inputs):
                index = numbers_of(index, inputs, stacks)
            slots = index.shape[0]
            if slots == 1:
                return self._plainly(stacks.views(int(index)), inputs)
            compiled = self._compiled.get(slots) or self._compile(slots)
            with suppress(Exception):
                return tuple(compiled(index, stacks.table, stacks.values, inputs))
            return tuple(self._one_by_one(stacks, index, inputs))

        return call

    def alone(self, number: int) -> Callable[..., tuple[Tensor, ...]]:
        """alone(number): alone(*flat_inputs) -> flat outputs of one tenant, any batch size.

        Runs the plain graph on views of the stacks. IndexError, at the call too, when the tenant
        is not there.
        """
        self._stacks.row(number)

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            return self._plainly(self._stacks.views(number), inputs)

        return call

    def _plainly(self, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One tenant's samples by the compiled plain graph."""
        samples = inputs[0].shape[0]
        compiled = self._plain_compiled.get(samples) or self._compile_plain(samples)
        with suppress(Exception):
            return tuple(compiled(weights, inputs))
        # CompiledGraph code raises its own kind of error: the graph itself raises the module's.
        with torch.no_grad():
            return tuple(self._plain.module.forward(*weights, *inputs))

    def _one_by_one(
        self, stacks: Stacks, numbers: Tensor, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Slot after slot by its tenant's own graph, once the super-kernel has raised: raises what
        the module does for the first slot whose own values are the reason."""
        with torch.no_grad():
            rows = [
                self._plain.module.forward(*stacks.views(n), *(x[s : s + 1] for x in inputs))
                for s, n in enumerate(numbers.tolist())
            ]
        return [torch.cat(parts) for parts in zip(*rows, strict=True)]

    def _compile(self, slots: int) -> CompiledGraph:
        plain = self._compile_plain(slots)
        self.tune(slots)
        with self._compiling:
            if slots not in self._compiled:
                rows, weights = _mixture(slots, self._stacks)
                inputs = self._exported.samples(slots)
                if weights:
                    mixed = trace_mixed(self._lowered.module, rows, weights, inputs)
                    self._compiled[slots] = dispatch(plain, mixed)
                else:
                    self._compiled[slots] = without_weights(plain)
            return self._compiled[slots]

    def _compile_plain(self, samples: int) -> CompiledGraph:
        with self._compiling:
            if samples not in self._plain_compiled:
                weights = [v[0] for v in self._stacks.values]
                inputs = self._exported.samples(samples)
                traced = trace_plain(self._plain.module, weights, inputs)
                self._plain_compiled[samples] = traced
            return self._plain_compiled[samples]

    def _with_choice(self, row: FusionRow) -> FusionRow:
        names = self._lowered.operations[row.node]
        choices = [_choices(self._lowered, name) for name in names]
        return replace(row, implementation=", ".join(dict.fromkeys(choices)))


def fuse(
    template: nn.Module | Exported,
    weights: Sequence[Mapping[str, Tensor]],
    *,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> Fused:
    """fuse(template, [m.state_dict() for m in models], example_inputs=(x,)) -> Fused.

    `template` is an eval-mode model or what `export` made of one; its own weights are not used.
    Raises CannotExport, CannotFuse (naming the node) or ValueError (a state dict does not fit).
    The result is checked against running samples one by one before it is returned.
    """
    graph = slot_graph(
        template,
        weights,
        example_inputs=example_inputs,
        example_kwargs=example_kwargs,
        fold=fold,
    )
    stacks = empty(graph.plain.weights).with_tenants(weights)
    return Fused(graph.exported, graph.plain, graph.lowered, stacks)


def _mixture(slots: int, stacks: Stacks) -> tuple[Tensor, list[Tensor]]:
    """Rows that are no run, and weights: what a mixture of tenants looks like, even of one."""
    tenants, weights = stacks.used_rows, stacks.values
    if tenants < 2:
        tenants, weights = 2, [v[:1].expand(2, *v.shape[1:]) for v in weights]
    return torch.arange(slots).flip(0) % tenants, weights


def _fits(index: Any, inputs: Sequence[Tensor]) -> bool:
    """Whether an index is one int64 for each sample: what launches give, known without looking."""
    numbers = isinstance(index, Tensor) and index.dtype is torch.int64
    return numbers and index.shape == inputs[0].shape[:1] and index.shape[0] > 0


def _choices(lowered: Lowered, name: str) -> str:
    """'grouped', or '2: unfolded, 8: grouped' when it depends on the number of slots."""
    operation = lowered.operation(name)
    if len(set(operation.chosen.values())) > 1:
        return ", ".join(f"{n}: {c}" for n, c in sorted(operation.chosen.items()))
    return next(iter(operation.chosen.values()), operation.choice(0))
