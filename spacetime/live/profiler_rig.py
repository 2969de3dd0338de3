"""A model on a partition of an opened device, as a session runs it, ready to be timed.

The family is admitted by a session, so what is timed is what will serve: the program that was
chosen, the super-kernel where several tenants fuse, captured graphs on a device. Launches of
several processes run side by side, each on a lane of its own over the same units.
"""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.devices.device import Device
from spacetime.devices.facts import DEVICES, MIB_PER_GIB, cpu
from spacetime.models.backend import Launch
from spacetime.models.flat import spread
from spacetime.models.request import Work
from spacetime.session.session import Session
from spacetime.units import MS

BUDGET_NS = 50 * MS  # of a round: for the launches of a process, after one that is not counted
FEWEST, MOST = 3, 2000  # launches that a round counts
MIB = 2**20


class ProfilerRig:
    """`tenants` members of one family on up to `procs` lanes over the same units of a device.

    With `tenants` above one a batch holds inputs of all of them. Raises what Session.add raises.
    """

    def __init__(
        self,
        device: Device,
        units: Sequence[int],
        model: nn.Module,
        example_inputs: Sequence[Any],
        *,
        tenants: int,
        procs: int,
        largest: int,
    ) -> None:
        self._device, self._units = device, tuple(units)
        self._example: list[Tensor] = pytree.tree_leaves(tuple(example_inputs))
        free = _free(device)
        # One tenant never fuses: then its program of its own is timed, not a stack's view.
        self._session = Session(device, lanes=[self._units] * procs, max_batch=largest)
        try:
            self._members = [
                self._session.add(_like(model, number), example_inputs=example_inputs)
                for number in range(tenants)
            ]
        except BaseException:
            self._session.close(drain=False)
            raise
        self._family = self._members[0].family
        state = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        taken = (free - _free(device)) / procs  # graphs and activations of every batch too
        self._bytes = max(taken, state * tenants)

    @property
    def kind(self) -> str:
        """Of the partition."""
        return self._device.kind

    @property
    def granted(self) -> int:
        """Cores or SMs of the partition."""
        return self._device.size(self._units)

    @property
    def memory_mib(self) -> float:
        """What a process holds: weights, and on a device what else admitting the model took."""
        return self._bytes / MIB

    @property
    def how(self) -> str:
        """What runs it, in words."""
        return self._family.how()

    @property
    def fuses(self) -> bool:
        """Whether all tenants became one family, so that a launch can hold them all."""
        return all(tenant.family is self._family for tenant in self._members)

    def time(self, batch: int, procs: int) -> list[int]:
        """Nanoseconds of each launch of a batch, `procs` lanes making them side by side."""
        if procs == 1:
            return self._on_lane(0, batch, lambda: None)
        together = threading.Barrier(procs)
        boxes: list[list[int] | BaseException] = [[] for _ in range(procs)]

        def body(lane: int) -> None:
            try:
                boxes[lane] = self._on_lane(lane, batch, together.wait)
            except BaseException as error:
                together.abort()
                boxes[lane] = error

        threads = [threading.Thread(target=body, args=(lane,)) for lane in range(procs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return _all(boxes)

    def close(self) -> None:
        """Ends the session and gives its memory back."""
        self._session.close()

    def __enter__(self) -> ProfilerRig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_lane(self, lane: int, batch: int, ready: Callable[[], object]) -> list[int]:
        repeat = partial(_repeated, ready=ready)
        return self._session.backend.time(self._family, lane, self._works(batch), repeat)

    def _works(self, batch: int) -> list[Work]:
        """A batch's requests: one a tenant, of as nearly equal samples as it divides into."""
        leaves, works, at = spread(self._example, batch), [], 0
        for number, tenant in enumerate(self._members):
            rows = batch // len(self._members) + (number < batch % len(self._members))
            if rows:
                works.append(Work(tenant.member, [x[at : at + rows] for x in leaves], rows))
            at += rows
        return works


def facts_name(device: Device) -> str:
    """What profiles call the device: `cpu-<cores>`, a name of `devices`, or the driver's own."""
    if device.native is None:
        return cpu(len(device.units)).name
    gib = device.native.memory()[1] / MIB / MIB_PER_GIB
    return known_as(device.native.name, sum(device.sizes), gib)


def known_as(name: str, sms: int, memory_gib: float) -> str:
    """The name in `devices` of what the driver calls `name`; its own words where there is none.

    A variant with other SMs (an H100 for PCIe) is another device.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    words += [a + between + b for a, b in pairwise(words) for between in ("", "-")]  # "2080 Ti"
    alike = [
        facts
        for facts in DEVICES.values()
        if facts.sms == sms and re.sub(r"^rtx-|-\d+gb$", "", facts.name) in words
    ]
    if alike:
        return min(alike, key=lambda facts: abs(facts.memory_gib - memory_gib)).name
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _repeated(launch: Launch, ready: Callable[[], object]) -> list[int]:
    """One launch that is not counted, then as many as the budget holds."""
    launch()
    ready()
    taken: list[int] = []
    end = time.perf_counter_ns() + BUDGET_NS
    while len(taken) < FEWEST or (len(taken) < MOST and time.perf_counter_ns() < end):
        taken.append(launch())
    return taken


def _all(boxes: Sequence[list[int] | BaseException]) -> list[int]:
    """Every lane's times; the error that broke the others' barrier, where there is one."""
    errors = [box for box in boxes if isinstance(box, BaseException)]
    if errors:
        first = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
        raise (first or errors)[0]
    return [ns for box in boxes if isinstance(box, list) for ns in box]


def _like(model: nn.Module, number: int) -> nn.Module:
    """Another tenant's model: the same architecture over weights of its own, slightly different."""
    if number == 0:
        return model
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.parameters():
            if value.is_floating_point():
                value.mul_(1 + number / 64)
    return other


def _free(device: Device) -> int:
    """Free bytes of a device's own memory; 0 on a CPU, which shares the host's."""
    return device.native.memory()[0] if device.native is not None else 0
