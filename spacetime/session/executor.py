"""The threads between the native executor and Python: one for each lane, and one notifier.

A lane's thread waits for launches with the GIL released, runs them, and leaves each answer with
its request; the notifier resolves the callers' futures, so a slow callback of one caller holds up
no lane. Native code never calls into Python.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from torch import Tensor

import spacetime._native as _native
from spacetime.errors import (
    ClosedError,
    DeadlineExceeded,
    DriverError,
    LaneLost,
    ModelError,
    QueueFull,
    SpacetimeError,
)
from spacetime.models.compiled_error import as_raised
from spacetime.models.request import InFlight, Work
from spacetime.policy import Policy
from spacetime.reports import recording
from spacetime.reports.report import Observed, ended, total

_KEPT_HAPPENINGS = 1 << 20  # launches and drops held until timeline() fetches them

ENDED_POLL_S = 0.0005  # between two looks at a cancelled request that runs

# What a sticky error leaves: the driver serves this process no more (docs/cuda.md).
_FIX = "close the session and open one in a new process"

Noted = Callable[[Sequence[_native.Completion], Mapping[int, InFlight]], None]
_DROPPED: dict[str, Callable[[str], SpacetimeError]] = {
    "deadline": lambda name: DeadlineExceeded(f"tenant {name}: dropped at its deadline, unstarted"),
    "removed": lambda name: ClosedError(f"tenant {name}: removed while the request waited"),
    "closed": lambda name: ClosedError(f"tenant {name}: the session closed while it waited"),
}


class Holder(Protocol):
    """A tenant, as the executor sees it: its number in its family, which an update may change."""

    member: int


class Superseded(Exception):
    """An update replaced the request's weights before the request was accepted."""


class Executor:
    """A native executor whose launches are Python callables."""

    def __init__(
        self,
        policy: Policy,
        *,
        timeline: bool,
        record: bool = False,
        device: _native.CudaDevice | None = None,
        noted: Noted | None = None,
    ) -> None:
        """noted: sees every record of a request that has ended, before its future is resolved."""
        kept = _KEPT_HAPPENINGS if timeline else 0
        native = _native.Policy(**asdict(policy))
        record_bytes = recording.MOST_BYTES if record else 0
        self.native = _native.Executor(native, timeline=kept, record=record_bytes, device=device)
        self._device = device
        self.lanes: list[_native.Lane] = []
        self._first_ns: int | None = None  # when the first request came
        self._in_flight: dict[int, InFlight] = {}
        self._tokens = itertools.count(1)
        self._pid = os.getpid()
        self._closed = False
        notify = (self.native, self._in_flight, device, noted)
        self._threads = [_start("spacetime-notifier", _notify, *notify)]
        # An interpreter that exits with work in flight must not tear threads down in mid-launch.
        self._finalizer = weakref.finalize(self, _abandon, self.native, self._threads, self._pid)

    def add_lane(
        self,
        units: Sequence[int],
        around: Callable[[_native.Lane], AbstractContextManager[None]],
        *,
        priority: int = 0,
        pool: int | None = None,
    ) -> None:
        """Opens a lane on a partition of `units` and starts its dispatcher thread, which runs
        inside what `around` returns for the lane.

        priority: of its streams over those of lanes that share units with it; CUDA devices only.
        pool: lanes of one number share what waits on any of them.
        """
        lane = self.native.add_lane(list(units), priority=priority, pool=pool)
        name = f"spacetime-lane-{len(self.lanes)}"
        self.lanes.append(lane)
        self._threads.append(_start(name, _serve, lane, self._in_flight, around(lane)))

    def submit(
        self,
        number: int,
        request: InFlight,
        deadline_ns: int | None,
        priority: int | None,
        holder: Holder | None = None,
    ) -> Future[Any]:
        """A future of the request's answer. Raises QueueFull or ClosedError, accepting nothing.

        number: the tenant's number here. holder: the tenant. Raises Superseded where an update has
        given the tenant another member since the request was made: the old member's weights may
        have gone, so the request has to be made anew.
        """
        if self._device is not None and self._device.lost is not None:
            self.check_open()
        now_ns = time.monotonic_ns()
        if self._first_ns is None:
            self._first_ns = now_ns
        request.until_ns = None if deadline_ns is None else now_ns + deadline_ns
        token = next(self._tokens) if request.token is None else request.token
        # Before the look at the member: an update that comes now waits for this request, too.
        self._in_flight[token] = request
        if request.token is not None and holder is not None and holder.member != request.member:
            del self._in_flight[token]
            raise Superseded
        try:
            accepted = self.native.submit(
                number, token, samples=request.samples, deadline_ns=deadline_ns, priority=priority
            )
        except RuntimeError as refusal:
            del self._in_flight[token]
            self.check_open()
            raise self._refused(request.tenant, refusal) from None
        request.future.withdraw = partial(self.native.cancel, accepted)
        return request.future

    def remove(self, number: int, name: str, then: Callable[[], None]) -> None:
        """Takes a tenant out: requests that wait end as removed, those that run finish, and then
        `then` is called.

        A call from a request's callback does not wait for what runs: it would wait for itself.
        """
        self.native.remove_tenant(number)
        self.after(name, None, then)

    def after(self, tenant: str, member: int | None, then: Callable[[], None]) -> None:
        """Calls `then` once the tenant's requests that were accepted so far have ended: those of
        one member, or all where `member` is None.

        It waits for them. In a request's callback they could not end meanwhile; there another
        thread waits.
        """
        left = [
            (token, request)
            for token, request in self._in_flight.copy().items()
            if request.tenant == tenant and member in {None, request.member}
        ]

        def finish() -> None:
            wait([request.future for _, request in left])
            pause = threading.Event()
            # A future that was cancelled is done while its request may still run.
            while any(self._in_flight.get(token) is request for token, request in left):
                pause.wait(ENDED_POLL_S)
            then()

        if threading.current_thread() in self._threads:
            _start("spacetime-after", finish)
        else:
            finish()

    def observed(self) -> Observed:
        """Everything counted since the first request."""
        stats = self.native.stats()
        since = time.monotonic_ns() - self._first_ns if self._first_ns is not None else 0
        latency = _native.Histogram()
        for tenant in stats.tenants:
            latency.merge(tenant.latency)
        tenants = [
            ended(counts, refused=refused, failed=failed)
            for counts, refused, failed in zip(
                stats.tenants, stats.refused, stats.failed, strict=True
            )
        ]
        return Observed(since, total(tenants, latency), tenants, stats.lanes)

    @staticmethod
    def _refused(tenant: str, refusal: RuntimeError) -> SpacetimeError:
        if isinstance(refusal, _native.QueueFullError):
            return QueueFull(f"tenant {tenant}: queue_limit requests are waiting already")
        return ClosedError(f"tenant {tenant}: {refusal}")

    def check_open(self) -> None:
        """Raises ClosedError after close() and in a process forked from the owner's."""
        if self._pid != os.getpid():
            raise ClosedError("this session belongs to the parent process; open one after the fork")
        if self._closed:
            raise ClosedError("the session is closed")
        if self._device is not None and (lost := self._device.lost) is not None:
            raise DriverError(*lost, f"the device is lost: {lost[0]} failed with {lost[1]}; {_FIX}")

    def close(self, *, drain: bool) -> None:
        """Finishes (drain) or refuses what waits, ends the threads; every future is resolved."""
        if self._pid == os.getpid():
            self._closed = True
            self.native.close(drain=drain)
            for thread in self._threads:
                thread.join()


def _start(name: str, body: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=body, args=args, name=name, daemon=True)
    thread.start()
    return thread


def _abandon(native: _native.Executor, threads: list[threading.Thread], pid: int) -> None:
    if pid == os.getpid():
        native.close(drain=False)
        for thread in threads:
            thread.join()


def _serve(
    lane: _native.Lane,
    in_flight: dict[int, InFlight],
    around: AbstractContextManager[None],
) -> None:
    """Body of a lane's dispatcher thread: runs launches until the lane closes.

    Launches of native functions run inside take(), without the GIL.
    """
    with around:
        lane.enter()
        while (launch := lane.take()) is not None:
            batch = [in_flight[token] for token in launch.tokens]
            _run(batch)
            lane.finish(launch, [int(request.error is not None) for request in batch])
        lane.leave()


def _notify(
    native: _native.Executor,
    in_flight: dict[int, InFlight],
    device: _native.CudaDevice | None,
    noted: Noted | None,
) -> None:
    """Body of the notifier: resolves every request exactly once, until the executor is drained."""
    while (records := native.completions()) is not None:
        if noted is not None:
            noted(records, in_flight)
        for record in records:
            request = in_flight.pop(record.token)
            if request.token is not None and record.code and request.error is None:
                request.error = _driver_error(request.tenant, record.code, device)
            _resolve(request, record.outcome)


def _driver_error(
    tenant: str, code: int, device: _native.CudaDevice | None
) -> DriverError | ClosedError:
    if code == _native.LANE_FAILED:
        return ClosedError(f"tenant {tenant}: the lane's thread has gone")
    call, result = _native.driver_failure(code)
    lost = f"; the device is lost: {_FIX}" if device is not None and device.lost else ""
    return DriverError(call, result, f"tenant {tenant}: {call} failed with {result}{lost}")


def _run(batch: list[InFlight], *, again: bool = False) -> None:
    """Answers or errors for a whole batch; when it raises, only the guilty requests fail.

    A request whose lane's process died is tried once more, alone, if its deadline allows.
    """
    try:
        answers = batch[0].runner.run(
            [Work(e.member, e.leaves, e.samples, e.until_ns) for e in batch]
        )
    except LaneLost as lost:
        for request in batch:
            if again or (request.until_ns is not None and request.until_ns < time.monotonic_ns()):
                request.error = lost
            else:
                _run([request], again=True)
        return
    except BaseException as error:
        if len(batch) == 1:
            batch[0].error = ModelError(batch[0].tenant, as_raised(error))
            return
        for request in batch:
            _run([request], again=again)
        return
    for request, answer in zip(batch, answers, strict=True):
        request.answer = answer


def _resolve_built(request: InFlight, build: Callable[[Sequence[Tensor]], Any]) -> None:
    """The answer of what native code wrote, or the error that it stands for."""
    try:
        answer = build(request.outputs)
    except Exception as error:
        request.future.set_exception(ModelError(request.tenant, error))
    else:
        request.future.set_result(answer)


def _resolve(request: InFlight, status: str) -> None:
    future = request.future
    if not future.set_running_or_notify_cancel():
        return
    if status in _DROPPED:
        future.set_exception(_DROPPED[status](request.tenant))
    elif request.error is not None:
        future.set_exception(request.error)
    elif request.build is not None and request.answer is None:  # not answered by a Python runner
        _resolve_built(request, request.build)
    else:
        future.set_result(request.answer)
