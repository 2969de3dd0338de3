"""Executes batches of one family: gathers requests, picks the fastest way, splits the answers.

A batch may mix the family's tenants. Two ways exist: one *fused* launch, in which each row names
its tenant, or the *loop*: each tenant's rows through its own program. The runner has measured both,
so it adds up the loop's cost for the mixture at hand and takes the cheaper. Batches are padded up
to a bucket, because oneDNN prepares a primitive for every new shape, which costs more than the
padding.

Thread safety: run() from any number of lanes at once; membership changes under the session's lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.models.flat import FlatCall, Outputs, own
from spacetime.models.request import Runs, Work


@dataclass(slots=True)
class Runner:
    """Runs any mixture of one family's members; a family of one has only the loop.

    alone: each member's own program, by its number. shares: whether requests may share a call; if
    not, each runs exactly as it was submitted. whole: whether a program returns the model's own
    answer, which is passed on as it is. fused: `(index: [S], *leaves: [S, ...]) -> [S, ...]` each,
    where the index names the member of each row. alone_ns, fused_ns: wall time of a call, by
    bucket. apart: members whose weights the fused call does not have. instead: what answers
    everything once the family was taken apart.
    """

    outputs: Outputs
    buckets: tuple[int, ...]
    alone: dict[int, FlatCall] = field(default_factory=dict)
    shares: bool = True
    whole: bool = False
    fused: FlatCall | None = None
    alone_ns: dict[int, int] = field(default_factory=dict)
    fused_ns: dict[int, int] = field(default_factory=dict)
    apart: frozenset[int] = frozenset()
    instead: Runs | None = None
    _buffers: threading.local = field(default_factory=threading.local)

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Answers in the order of `batch`, each in the model's own return structure."""
        if self.instead is not None:
            return self.instead.run(batch)
        if not self.shares:
            calls = [self.alone[w.member](*w.leaves) for w in batch]
            if self.whole:
                return [pytree.tree_map_only(Tensor, own, answer) for answer in calls]
            return [self.outputs.build(list(map(own, outputs))) for outputs in calls]
        # Sorted by member: the loop needs a member's rows together, and the super-kernel is faster
        # when they are.
        order = sorted(range(len(batch)), key=lambda i: batch[i].member)
        if apart := self.apart:
            order.sort(key=lambda i: batch[i].member in apart)
        answers: list[Any] = [None] * len(batch)
        ordered = [batch[i] for i in order]
        for i, answer in zip(order, self._run_sorted(ordered, apart), strict=True):
            answers[i] = answer
        return answers

    def prefers_fused(self, rows: Collection[int]) -> bool:
        """Whether one fused launch beats the loop, as measured; rows: how many each member has."""
        total = sum(rows)
        if total > self.buckets[-1] or not self.fused_ns:
            return False
        return self.fused_ns[self.bucket(total)] < sum(map(self.loop_ns, rows))

    def predicted_ns(self, rows: int) -> int:
        """Expected nanoseconds of a launch of `rows` rows, spread evenly over all members."""
        rows_of_each = [rows // len(self.alone)] * len(self.alone)
        for i in range(rows % len(self.alone)):
            rows_of_each[i] += 1
        loop = sum(self.loop_ns(n) for n in rows_of_each if n)
        fused = self.fused_ns.get(self.bucket(rows)) if rows <= self.buckets[-1] else None
        return min(loop, fused) if fused is not None else loop

    def loop_ns(self, rows: int) -> int:
        """Expected nanoseconds of `rows` rows of one member, in chunks of the largest bucket."""
        full, rest = divmod(rows, self.buckets[-1])
        tail = self.alone_ns[self.bucket(rest)] if rest else 0
        return full * self.alone_ns[self.buckets[-1]] + tail

    def bucket(self, rows: int) -> int:
        """The smallest prepared batch size that holds `rows`; `rows` itself above the largest."""
        at = bisect_left(self.buckets, rows)
        return self.buckets[at] if at < len(self.buckets) else rows

    def _run_sorted(self, batch: Sequence[Work], apart: frozenset[int]) -> list[Any]:
        """Answers to a batch that is sorted by member, with the members that are apart last."""
        parts = [list(same) for _, same in groupby(batch, key=lambda work: work.member)]
        answers: list[Any] = []
        if self.fused is not None:
            fusing = [part for part in parts if part[0].member not in apart]
            if fusing and self.prefers_fused([_rows(part) for part in fusing]):
                together = [work for part in fusing for work in part]
                index = torch.tensor([w.member for w in together for _ in range(w.samples)])
                answers = self._split(together, self._call(self.fused, together, index))
                parts = parts[len(fusing) :]
        for part in parts:
            answers += self._split(part, self._call(self.alone[part[0].member], part, None))
        return answers

    def _call(self, call: FlatCall, batch: Sequence[Work], index: Tensor | None) -> list[Tensor]:
        rows = _rows(batch)
        if rows > self.buckets[-1]:
            return self._in_chunks(call, batch, rows)
        inputs = self._gather(batch, rows)
        outputs = call(*inputs) if index is None else call(_padded(index, len(inputs[0])), *inputs)
        return [out[:rows] for out in outputs]

    def _in_chunks(self, call: FlatCall, batch: Sequence[Work], rows: int) -> list[Tensor]:
        whole = [torch.cat(parts) for parts in zip(*(work.leaves for work in batch), strict=True)]
        step = self.buckets[-1]
        parts = [call(*[x[at : at + step] for x in whole]) for at in range(0, rows, step)]
        return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    def _gather(self, batch: Sequence[Work], rows: int) -> Sequence[Tensor]:
        """Inputs padded to a bucket; a lone request that fills one is used where it lies."""
        bucket = self.bucket(rows)
        if len(batch) == 1 and rows == bucket:
            return batch[0].leaves
        buffers = self._buffers_for(bucket, batch[0].leaves)
        for position, buffer in enumerate(buffers):
            parts = [work.leaves[position] for work in batch]
            # Padding repeats the first row: always a value the model accepts.
            parts += [parts[0][:1]] * (bucket - rows)
            torch.cat(parts, out=buffer)
        return buffers

    def _buffers_for(self, bucket: int, like: Sequence[Tensor]) -> list[Tensor]:
        held: dict[int, list[Tensor]] = self._buffers.__dict__.setdefault("by_bucket", {})
        if bucket not in held:
            held[bucket] = [torch.empty((bucket, *x.shape[1:]), dtype=x.dtype) for x in like]
        return held[bucket]

    def _split(self, batch: Sequence[Work], outputs: list[Tensor]) -> list[Any]:
        """Each request's rows in memory of their own: no answer keeps or shows another's."""
        if len(batch) == 1:
            return [self.outputs.build(list(map(own, outputs)))]
        sizes = [work.samples for work in batch]
        parts = zip(*(_rows_apart(out, sizes) for out in outputs), strict=True)
        return [self.outputs.build(tensors) for tensors in parts]


_rows_apart: Any = torch.split_with_sizes_copy  # typed as if it returned nothing


def _rows(batch: Sequence[Work]) -> int:
    return sum(work.samples for work in batch)


def _padded(index: Tensor, rows: int) -> Tensor:
    missing = rows - len(index)
    return torch.cat([index, index[:1].expand(missing)]) if missing else index
