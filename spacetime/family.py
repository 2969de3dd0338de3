"""Tenants that may share a launch: who they are, and by which programs they are run.

A family starts with one member and that member's own program. When a second tenant of the same
fingerprint joins, the family measures both ways of holding the weights — one stack for all with
the fused super-kernel, or a program of its own for each — and keeps only the better one, so the
weights are never held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import exp, log
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.fusion import CannotExport, CannotFuse, Fused, fingerprint, fuse
from spacetime.measure import bucket_ns, elapsed_ns
from spacetime.program import Program, close, program_of, spread
from spacetime.runner import Entry, Runner
from spacetime.signature import Signature
from spacetime.units import ms_from_ns

Measured = Callable[[Callable[[], Any]], Any]  # runs a measurement on a lane's cores


@dataclass(slots=True)
class Family:
    """Members of one architecture and the runner that serves any mixture of them."""

    signature: Signature
    example: Sequence[Tensor]
    program: Program
    runner: Runner
    refused: str | None  # why torch.export did not take the model
    on_lane: Measured
    first: nn.Module | None  # the first member's module, until it is stacked or a second one joins
    fused: Fused | None = None
    why: str = "one member"  # why it is fused or not
    native: int = -1  # its number in the executor
    next_member: int = 0
    members: set[int] = field(default_factory=set)

    def join(self, model: nn.Module) -> int:
        """The member number of `model`, which has this family's fingerprint, or is its first."""
        if self.fused is not None:
            return self._append(model)
        if self.first is not None and self.members:
            self._try_to_fuse(self.first, model)
            self.first = None
            if self.fused is not None:
                return self._admit(1)
        number = self.next_member
        if number:
            rows = sorted({1, self.runner.buckets[-1]})
            made = partial(program_of, model, self.signature, self.example)
            program = self.on_lane(partial(made, refused=self.refused, rows=rows))
            self.runner.alone[number] = program.call
        return self._admit(number)

    def leave(self, number: int) -> None:
        """Forgets a member; its weights are released."""
        self.members.discard(number)
        del self.runner.alone[number]
        if self.fused is not None:
            self.fused.remove(number)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes it is prepared for."""
        return self.runner.buckets

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch of that bucket, as measured; lanes of cores are alike."""
        return self.runner.predicted_ns(bucket)

    def entry(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> Entry:
        """A request as the executor takes it."""
        return Entry(tenant, member, self.runner, leaves, samples)

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
        alone = "the stack's views" if self.fused is not None else self.program.how
        return f"super-kernel over slots, or {alone}" if self.fused is not None else alone

    def reasons(self) -> list[str]:
        """Why it runs so: what was measured, and what stood in the way of something faster."""
        return [reason for reason in (self.program.why, self.why) if reason]

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
        if not any(t.is_floating_point() for t in first.state_dict().values()):
            self.why = "not fused: the model has no weights to stack"
            return
        args, kwargs = pytree.tree_unflatten(list(self.example), self.signature.spec)
        try:
            fused = fuse(
                first,
                [first.state_dict(), second.state_dict()],
                example_inputs=args,
                example_kwargs=kwargs,
            )
        except CannotFuse as reason:
            self.why = f"not fused: {reason}"
            return
        if not self._answers_agree(fused):
            self.why = "not fused: the super-kernel's answers differ from the model's"
            return
        self.on_lane(lambda: self._measure(fused))

    def _answers_agree(self, fused: Fused) -> bool:
        inputs = spread(self.example, 2)
        together = fused.alone(0)(*inputs)
        return close(together, self.program.call(*inputs), tolerance=1e-3)

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


def family_of(
    model: nn.Module,
    signature: Signature,
    example: Sequence[Tensor],
    known: dict[str, Family],
    *,
    buckets: Sequence[int],
    slo_ns: int | None,
    on_lane: Measured,
) -> tuple[Family, str | None]:
    """The known family that `model` belongs to, or a new one, and its fingerprint if it has one."""
    args, kwargs = pytree.tree_unflatten(list(example), signature.spec)
    print_, refused = _fingerprint(model, args, kwargs)
    if print_ is not None and print_ in known:
        return known[print_], print_
    rows = sorted({1, buckets[-1]})
    made = partial(program_of, model, signature, example, refused=refused, rows=rows)
    program = on_lane(made)
    usable = tuple(buckets) if program.batches else (1,)
    measured = on_lane(partial(_measured, program, example, usable))
    fitting = tuple(b for b in usable if b == 1 or slo_ns is None or 2 * measured[b] <= slo_ns)
    runner = Runner(program.outputs, fitting, {0: program.call}, shares=program.batches)
    runner.alone_ns = {b: measured[b] for b in fitting}
    family = Family(signature, example, program, runner, refused, on_lane, model)
    return family, print_ if program.batches else None


def _measured(
    program: Program, example: Sequence[Tensor], buckets: Sequence[int]
) -> dict[int, int]:
    if program.batches:
        return bucket_ns(program.call, example, buckets)
    # It may take no batch but its example's.
    return {1: min(elapsed_ns(program.call, example) for _ in range(3))}


def _fingerprint(model: nn.Module, args: Any, kwargs: Any) -> tuple[str | None, str | None]:
    """The architecture's fingerprint, or the reason it has none."""
    try:
        return fingerprint(model, args, kwargs), None
    except CannotExport as reason:
        return None, str(reason)
