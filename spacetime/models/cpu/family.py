"""Tenants on cores that may share a launch: who they are, and by which programs they are run.

A family starts with one member and that member's own program. When a second tenant of the same
fingerprint joins, the family measures both ways of holding the weights — one stack for all with
the fused super-kernel, or a program of its own for each — and keeps only the better one, so the
weights are never held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import exp, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import spacetime._native as _native
from spacetime.errors import InvalidInput
from spacetime.fusion import (
    CannotFuse,
    Exported,
    Fused,
    fuse,
    ranges,
)
from spacetime.models.cpu.program import Program, program_of
from spacetime.models.cpu.runner import Runner
from spacetime.models.flat import Flat, Outputs
from spacetime.models.request import InFlight, Runs
from spacetime.models.signature import Signature
from spacetime.models.timing import bucket_ns
from spacetime.models.trial import keeps_what_is_no_number, same_rows, tried
from spacetime.units import ms_from_ns

Measured = Callable[[Callable[[], Any]], Any]  # runs a measurement on a lane's cores


@dataclass(slots=True, eq=False)
class CpuFamily:
    """Members of one architecture and the runner that serves any mixture of them.

    exported: the architecture's graph, or why torch.export did not take the model. on_lane: runs a
    measurement on the cores of a lane. batchable: the owners' word. first: member 0's model, until
    it is stacked, the member leaves, or a second one joins. runs_as: what runs a member's model
    alone, in words. not_faster: why nothing faster does; empty where nothing faster is known.
    """

    signature: Signature
    example: Sequence[Tensor]
    runner: Runner
    exported: Exported | str
    on_lane: Measured
    batchable: bool | None
    first: nn.Module | None
    runs_as: str
    not_faster: str
    fused: Fused | None = None
    why: str = "one member"  # why it is fused or not
    number: int = -1
    next_member: int = 0
    members: set[int] = field(default_factory=set)

    def join(self, model: nn.Module, *, alone: bool = False) -> int:
        """The member number of `model`, which has this family's fingerprint, or is its first.

        The model is the family's from now on: nobody else may hold it. alone: no other member will
        join, and the family keeps no copy of the weights besides the program's.
        """
        if self.fused is not None:
            return self._append(model)
        if self.first is not None and self.members:
            self._try_to_fuse(self.first, model)
            self.first = None
            if self.fused is not None:
                return self._admit(1)
        if not self.members:
            self.first, self.next_member = model, 0
        number = self.next_member
        if number not in self.runner.alone:  # the one that opened the family has its program
            program = self._programmed(model, self.signature.tenant)
            if not program.batches:
                self.runner.shares = False
            self.runner.alone[number] = program.call
            if not number:
                self.runs_as, self.not_faster = program.how, program.why
        if alone:
            self.first = None
        return self._admit(number)

    def update(self, tenant: str, number: int, model: nn.Module) -> None:
        """Gives member `number`, a tenant, the weights of `model`, which is the family's now.

        What runs finishes with the old ones; every launch that starts later has the new ones.
        Raises ModelError, InvalidInput, and nothing has changed.
        """
        if self.fused is not None and self._restack(number, model):
            return
        program = self._programmed(model, tenant)
        same = self.runner.whole or self.runner.outputs == program.outputs
        if not same or self.runner.whole != program.whole:
            expected = "tensors, and values beside them that no weight changes"
            raise InvalidInput(tenant, "outputs", expected, "other values")
        if not program.batches:
            self.runner.shares = False  # before the program: the old one serves either way
        self.runner.alone[number] = program.call
        if self.fused is not None:
            self.runner.apart |= {number}
        if self.first is not None:
            self.first, self.runs_as, self.not_faster = model, program.how, program.why

    def leave(self, number: int) -> None:
        """Forgets a member; its weights are released."""
        self.members.discard(number)
        del self.runner.alone[number]
        self.runner.apart -= {number}
        if not self.members:
            self.first = None
        if self.fused is not None:
            self.fused.remove(number)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes it is prepared for, ascending."""
        return self.runner.buckets

    @property
    def outputs(self) -> Outputs:
        """How its flat output tensors become what the model returns."""
        return self.runner.outputs

    @property
    def functions(self) -> Sequence[_native.NativeFunction]:
        """None: Python runs its launches."""
        return ()

    @property
    def instead(self) -> Runs | None:
        """What answers all requests once the family was taken apart."""
        return self.runner.instead

    @instead.setter
    def instead(self, runs: Runs | None) -> None:
        self.runner.instead = runs

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch of `bucket` samples, in nanoseconds; lanes of cores are alike."""
        return self.runner.predicted_ns(bucket)

    def request(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> InFlight:
        """A request as the executor takes it."""
        return InFlight(tenant, member, self.runner, leaves, samples)

    def lines(self) -> list[str]:
        """For explain(): what runs it, why, and its measured times."""
        runner = self.runner
        lines = [f"  runs as: {self.how()}"]
        lines += [f"  because: {reason}" for reason in self.reasons()]
        if self.fused is not None:
            size = self.fused.report.bytes_per_tenant / 2**20
            lines.append(f"  weights: {size:.2f} MiB a tenant, in one stack")
        for bucket in runner.buckets:
            cost = f"  bucket {bucket:>3}: one tenant {ms_from_ns(runner.alone_ns[bucket]):.3f} ms"
            if bucket in runner.fused_ns:
                cost += f", mixed {ms_from_ns(runner.fused_ns[bucket]):.3f} ms"
            lines.append(cost)
        return lines

    def how(self) -> str:
        """What runs the family, in words."""
        if self.fused is not None:
            return "super-kernel over slots, or the stack's views"
        return self.runs_as

    def reasons(self) -> list[str]:
        """Why it runs so: what was measured, and what stood in the way of something faster."""
        return [reason for reason in (self.not_faster, self.why) if reason]

    def _programmed(self, model: nn.Module, tenant: str) -> Program:
        signature = replace(self.signature, tenant=tenant)
        choose = partial(program_of, model, signature, self.example, self.exported)
        program: Program = self.on_lane(
            partial(choose, batchable=self.batchable, buckets=self.runner.buckets)
        )
        return program

    def _restack(self, number: int, model: nn.Module) -> bool:
        """Puts the weights into the stack; False where something differs that its members share,
        such as a table of integers, or what a state dict brings that is no tensor."""
        assert self.fused is not None
        state, exported = model.state_dict(), self.fused.exported
        try:
            exported.check(state)
        except ValueError:
            return False
        flat = Flat(model, self.signature)
        trial = tried(flat, self.example, ranges(self.example, exported), 3)
        if not same_rows(self.fused.plain.answers(state, trial.inputs), trial.answers):
            return False
        self.fused.update(number, state)
        self.runner.apart -= {number}
        self.runner.alone[number] = self.fused.alone(number)
        return True

    def _admit(self, number: int) -> int:
        self.members.add(number)
        self.next_member = max(self.next_member, number + 1)
        return number

    def _append(self, model: nn.Module) -> int:
        assert self.fused is not None
        number = self.fused.append(model.state_dict())
        self.runner.alone[number] = self.fused.alone(number)
        return self._admit(number)

    def _try_to_fuse(self, first: nn.Module, second: nn.Module) -> None:
        state = first.state_dict().values()  # what is no tensor is a module's extra state
        if not any(isinstance(t, Tensor) and t.is_floating_point() for t in state):
            self.why = "not fused: the model has no weights to stack"
            return
        args, kwargs = pytree.tree_unflatten(list(self.example), self.signature.spec)
        template = first if isinstance(self.exported, str) else self.exported
        try:
            fused = fuse(
                template,
                [first.state_dict(), second.state_dict()],
                example_inputs=args,
                example_kwargs=kwargs,
            )
        except (CannotFuse, ValueError) as reason:  # an update may have changed what is shared
            self.why = f"not fused: {reason}"
            return
        if not all(self._answers_agree(fused, i, m) for i, m in enumerate((first, second))):
            self.why = "not fused: the super-kernel's answers differ from the model's"
            return
        self.on_lane(lambda: self._measure(fused))

    def _answers_agree(self, fused: Fused, number: int, model: nn.Module) -> bool:
        """Whether the stack answers as the member does, alone and in a mixture of both."""
        flat, buckets = Flat(model, self.signature), self.runner.buckets
        within = ranges(self.example, fused.exported)
        trial = tried(flat, self.example, within, max(buckets[-1], 3))
        alone, mixed = fused.alone(number), fused.script()
        inputs, _ = trial.rows(range(3))

        def as_every_second(*inputs: Tensor) -> list[Tensor]:
            rows = len(inputs[0])
            index = torch.arange(2 * rows) % 2  # the other member's rows are in between
            outputs = mixed(index, *(x.repeat_interleave(2, dim=0) for x in inputs))
            return [y[index == number] for y in outputs]

        return (
            not trial.fault(alone, buckets)
            and not trial.fault(as_every_second, [max(1, buckets[-1] // 2)])
            and keeps_what_is_no_number(flat, alone, inputs)
            and keeps_what_is_no_number(flat, as_every_second, inputs)
        )

    def _measure(self, fused: Fused) -> None:
        """Keeps the stack if mixtures and single tenants together run faster from it."""
        buckets, runner = self.runner.buckets, self.runner
        stacked = bucket_ns(fused.alone(0), self.example, buckets)
        mixed = bucket_ns(fused.script(), self.example, buckets, index=fused.tenants)
        own = runner.alone_ns
        gains = [own[1] * b / min(mixed[b], stacked[1] * b) for b in buckets]
        gains += [own[b] / stacked[b] for b in buckets]
        gain = exp(sum(log(g) for g in gains) / len(gains))
        self.why = f"stacked weights run ×{gain:.2f} as fast as programs of their own (measured)"
        if gain < 1:
            self.why = f"not fused: {self.why}"
            return
        self.fused = fused
        runner.alone_ns, runner.fused_ns = stacked, mixed
        runner.alone = {i: fused.alone(i) for i in range(2)}
        runner.fused = fused.script()
