"""`fuse`: many models of one architecture become one module over slots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spacetime.fusion.choice.tune import tune
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
    """R models of one architecture, called on a batch in which each slot names its tenant.

    `fused(*inputs, index=numbers)` takes the inputs of the template, S samples in each, and S
    numbers of tenants. It returns what the template returns: sample s is computed with the weights
    of tenant index[s]. An error that a tenant's own module raises for its sample, such as
    IndexError for an id beyond its table, is raised here too. The functions that `script` and
    `alone` return do the same.

    *Thread safety*: calls, `append`, `update` and `remove` may run at the same time from any
    threads. A call computes with the tenants and the weights that were there when it began.
    """

    def __init__(self, exported: Exported, plain: Plain, lowered: Lowered, stacks: Stacks) -> None:
        self._exported = exported
        self._plain = plain
        self._lowered = lowered
        self._stacks = stacks
        # One change at a time: two that begin with one snapshot would fill the same spare rows.
        self._changes = threading.Lock()
        self._compiling = threading.Lock()
        self._plain_compiled: dict[int, CompiledGraph] = {}
        self._compiled: dict[int, CompiledGraph] = {}

    @property
    def tenants(self) -> int:
        """How many tenants there are now."""
        return len(self._stacks.numbers)

    @property
    def stacks(self) -> Stacks:
        """The snapshot of all weights that the next call computes with."""
        return self._stacks

    @property
    def exported(self) -> Exported:
        """The template's graph. Callers of `script` need its `flatten` and `unflatten`."""
        return self._exported

    @property
    def plain(self) -> Plain:
        """The graph as one tenant alone runs it."""
        return self._plain

    @property
    def report(self) -> FusionReport:
        """What was fused and how, with the implementations that have been chosen so far."""
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
        with torch.no_grad(), suppress(Exception):  # the module's own error is raised below
            # Not the module's own call: that prints the generated code when an operation fails.
            outputs = self._lowered.module.forward(rows, run_of(rows), *stacks.values, *inputs)
            return self._exported.unflatten(outputs)
        return self._exported.unflatten(self._one_by_one(stacks, numbers, inputs))

    def append(self, state: Mapping[str, Tensor]) -> int:
        """Add a tenant with these weights and return its number.

        Raises ValueError where the state dict does not fit the template.
        """
        self._exported.check(state)
        with self._changes:
            stacks = self._stacks.with_tenants([state])
            self._stacks = stacks
            return len(stacks.table) - 1

    def update(self, number: int, state: Mapping[str, Tensor]) -> None:
        """Give a tenant other weights.

        A call that began before computes with the old weights, all of them. Raises ValueError where
        the state dict does not fit, IndexError where there is no such tenant.
        """
        self._exported.check(state)
        with self._changes:
            self._stacks = self._stacks.with_state(number, state)

    def remove(self, number: int) -> None:
        """Remove a tenant and free its memory; the other tenants keep their numbers.

        The old storage is freed when the last call that began with it ends. Raises IndexError where
        there is no such tenant.
        """
        with self._changes:
            self._stacks = self._stacks.without(number)

    def tune(self, slots: int, *, budget_ms: float = TUNE_BUDGET_MS) -> None:
        """Time the implementations of every slot operation for `slots` slots and choose the
        fastest.

        It stops after about `budget_ms` milliseconds; operations that it did not reach keep their
        first implementation.
        """
        rows, weights = _mixture(slots, self._stacks)
        operands = (rows, run_of(rows), *weights, *self._exported.samples(slots))
        tune(self._lowered.module, operands, budget_ms)

    def script(self) -> Callable[..., tuple[Tensor, ...]]:
        """The function `call(index, *flat_inputs)`, compiled, which returns the flat outputs.

        `index` is int64 [S]. The compiled code runs without the interpreter lock. The first call
        with a new number of slots tunes and compiles for that number.
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
        """The function `call(*flat_inputs)`, compiled, which returns one tenant's flat outputs.

        It runs the plain graph on views of the stacks, for any batch size. Raises IndexError where
        there is no such tenant; so does the call, once the tenant has been removed.
        """
        self._stacks.row(number)

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            return self._plainly(self._stacks.views(number), inputs)

        return call

    def _plainly(self, weights: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Answer samples of one tenant by the compiled plain graph."""
        samples = inputs[0].shape[0]
        compiled = self._plain_compiled.get(samples) or self._compile_plain(samples)
        with suppress(Exception):
            return tuple(compiled(weights, inputs))
        # Compiled code raises its own kind of error; the graph itself raises the module's.
        with torch.no_grad():
            return tuple(self._plain.module.forward(*weights, *inputs))

    def _one_by_one(
        self, stacks: Stacks, numbers: Tensor, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Answer slot after slot by its tenant's own graph; called once the super-kernel has
        raised.

        It raises the module's own error for the first slot whose values cause one.
        """
        with torch.no_grad():
            rows = [
                self._plain.module.forward(*stacks.views(n), *(x[s : s + 1] for x in inputs))
                for s, n in enumerate(numbers.tolist())
            ]
        return [torch.cat(parts) for parts in zip(*rows, strict=True)]

    def _compile(self, slots: int) -> CompiledGraph:
        """The compiled function for a number of slots; made at the first call."""
        plain = self._compile_plain(slots)  # before the lock, which it takes itself
        self.tune(slots)  # before tracing, which keeps the implementations chosen by then
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
        """The compiled plain graph for a number of samples; made at the first call."""
        with self._compiling:
            if samples not in self._plain_compiled:
                weights = [v[0] for v in self._stacks.values]
                inputs = self._exported.samples(samples)
                traced = trace_plain(self._plain.module, weights, inputs)
                self._plain_compiled[samples] = traced
            return self._plain_compiled[samples]

    def _with_choice(self, row: FusionRow) -> FusionRow:
        """A row of the report with the names of the implementations that run."""
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
    """Fuse models of one architecture: `fuse(template, [m.state_dict() for m in models])`.

    `template`: a model in eval mode, or what `export` made of one. Its own weights are not used.
    `weights`: a state dict for each tenant; tenant i is the i-th.
    `example_inputs`, `example_kwargs`: a call of the template, with at least one sample.
    `fold`: whether batch-norm becomes part of the convolution or linear layer before it.

    Before it returns, the result is checked against running samples one by one. Raises CannotExport
    where no graph of the template can be made, CannotFuse where an operation cannot be fused (its
    node is named), and ValueError where a state dict does not fit.
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
    """Rows [slots] that are no run, and stacks for them: an example of a mixture of tenants.

    Where there is one tenant, it stands for two, so that what is traced is the path of a mixture.
    """
    tenants, weights = stacks.used_rows, stacks.values
    if tenants < 2:
        tenants, weights = 2, [v[:1].expand(2, *v.shape[1:]) for v in weights]
    return torch.arange(slots).flip(0) % tenants, weights


def _fits(index: Any, inputs: Sequence[Tensor]) -> bool:
    """Whether an index is an int64 tensor with a number for each sample, as launches give it.

    The numbers themselves are not looked at here: `locate` checks them when the compiled code runs.
    """
    numbers = isinstance(index, Tensor) and index.dtype is torch.int64
    return numbers and index.shape == inputs[0].shape[:1] and index.shape[0] > 0


def _choices(lowered: Lowered, name: str) -> str:
    """The implementation that runs: 'grouped', or '2: unfolded, 8: grouped' where it depends on the
    number of slots.
    """
    operation = lowered.operation(name)
    if len(set(operation.chosen.values())) > 1:
        return ", ".join(f"{n}: {c}" for n, c in sorted(operation.chosen.items()))
    return next(iter(operation.chosen.values()), operation.choice(0))
