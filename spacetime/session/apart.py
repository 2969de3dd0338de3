"""A family taken apart: every request of it is answered by its tenant's module alone, eagerly.

`audit_stop` does this with a family in which an audit has found a difference. The programs that
answered wrongly are used no more, on any lane; requests that were accepted are answered all the
same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.models.backend import Family
from spacetime.models.reference import owned
from spacetime.models.request import Work
from spacetime.reports.counters import Counters
from spacetime.reports.report import audited
from spacetime.session.audit import Watch
from spacetime.session.executor import Executor
from spacetime.session.tenant import Tenant

log = logging.getLogger("spacetime.audit")


@dataclass(eq=False)
class Alone:
    """Runs each request of a family by itself, as the copy that its tenant's audit holds does.

    It runs on the lane's thread in this process, on the CPU, also where the family's own launches
    ran in other processes or on a device. watches: the audits of the family's members, by number.
    """

    why: str
    watches: dict[int, Watch]

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Answers in the order of `batch`; raises what the module raises."""
        return [self._answer(work) for work in batch]

    def _answer(self, work: Work) -> Any:
        reference = self.watches[work.member].reference
        on = work.leaves[0].device
        if on.type == "cpu":
            return owned(reference.answer(work.leaves))
        torch.cuda.synchronize(on)  # the inputs may come from another stream
        answer = reference.answer([x.cpu() for x in work.leaves])
        moved = pytree.tree_map_only(Tensor, lambda x: x.to(on), answer)
        torch.cuda.synchronize(on)
        return moved


def alone_of(family: Family) -> Alone | None:
    """What runs a family that was taken apart; None where it was not."""
    return family.instead if isinstance(family.instead, Alone) else None


def take_apart(family: Family, alone: Alone, executor: Executor, lanes: Iterable[int]) -> None:
    """From now on `alone` answers, also what waits already; one request a launch on `lanes`."""
    functions = family.functions
    family.instead = alone  # first: what native code leaves to Python from then on finds it
    for lane in lanes:
        executor.native.set_batch(family.number, lane, 1)
    for lane in range(len(functions)):  # also where a later plan will send the family
        executor.native.set_native(family.number, None, lane=lane)
    names = [watch.tenant for watch in alone.watches.values()]
    fields = {"family": names, "why": alone.why}
    extra = {"event": "apart", "fields": fields}
    log.warning("family of %s taken apart: %s", ", ".join(names), alone.why, extra=extra)


def with_audits(counters: Counters, tenants: Mapping[str, Tenant]) -> Counters:
    """The counters with what the tenants' audits have found."""
    return replace(
        counters,
        tenants={
            name: replace(
                counted, audit=watch.counts, apart=alone_of(tenants[name].family) is not None
            )
            if (watch := tenants[name].watch) is not None
            else counted
            for name, counted in counters.tenants.items()
        },
    )


def add_audits(report: Mapping[str, Any], tenants: Mapping[str, Tenant]) -> None:
    """Writes into a report what the tenants' audits have found."""
    for name, row in report["tenants"].items():
        if (watch := tenants[name].watch) is not None:
            row.update(audited(watch.counts))


def lines_of(family: Family) -> list[str]:
    """For explain(): that a family was taken apart, and why; nothing where it was not."""
    alone = alone_of(family)
    if alone is None:
        return []
    return [f"  taken apart: each request runs alone, by the module itself, eagerly: {alone.why}"]
