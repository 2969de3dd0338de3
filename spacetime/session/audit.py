"""An audit in production: a part of the answers is compared with the module run alone.

Each tenant's first request is audited, and then that part of those that follow. A generator of the
tenant's own decides at submit, so that rare tenants are audited too. An audited request's inputs
are copied before it is queued, and its answer before its caller sees it; one thread computes the
module alone. Nothing waits for that thread: a sample that comes while its queue is full is skipped
and counted.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput, ModelError
from spacetime.models.reference import Judgement, Reference, owned, reference_of
from spacetime.models.request import Answer, InFlight
from spacetime.models.signature import Signature
from spacetime.models.timing import lane_threads
from spacetime.reports.report import AuditCounts

QUEUED = 64  # answers that may wait to be judged
QUEUED_BYTES = 64 * 2**20  # of their inputs and answers
CLOSE_S = 1.0  # how long close() still judges what waits
Differed = Callable[["Watch", str], None]  # called with a tenant's audit, and what differed
log = logging.getLogger("spacetime.audit")


class Sampled(Answer):
    """The future of a request that is audited."""

    def __init__(self, watch: Watch, reference: Reference, leaves: list[Tensor]) -> None:
        super().__init__()
        self.watch = watch
        self.reference = reference
        self.leaves = leaves
        self.answer: Any = None
        self.request = ""  # its id, of a server
        self.lane: int | None = None
        self.beside: tuple[str, ...] = ()  # the other tenants of its launch

    def set_result(self, result: Any) -> None:
        """Resolves it, once its answer is copied."""
        self._keep(result)
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Fails it; what a model raised is audited too."""
        if isinstance(exception, ModelError):
            self._keep(exception)
        super().set_exception(exception)

    def _keep(self, result: Any) -> None:
        try:
            self.watch.keep(self, result)
        except Exception:  # an audit fails no request
            log.exception("audit", extra=_line(self.watch.tenant, why="not copied"))


@dataclass(eq=False)
class Watch:
    """One tenant's audit: its reference, which of its requests are sampled, and what differed.

    why: why the tenant is not audited; empty where it is. part: of its requests that are sampled,
    from 0 to 1. A sample carries the reference of its time, and an update makes it void. While
    `paused` nothing is sampled and nothing counts.
    """

    tenant: str
    family: object
    member: int
    reference: Reference
    why: str
    part: float
    queue: Waiting
    counts: AuditCounts = field(default_factory=AuditCounts)
    paused: bool = False
    _left: int = 1  # requests until the next sample; callers may race for it, and nothing is lost
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.tenant)

    def sampled(self, leaves: Sequence[Tensor]) -> Sampled | None:
        """The future of a request with these inputs, if it is one to be audited."""
        self._left -= 1
        if self._left > 0:
            return None
        self._left = _gap(self.part, self._random)
        if self.why or self.paused:
            return None
        if self.queue.full:
            self.count(skipped=1)
            return None
        return Sampled(self, self.reference, [owned(x) for x in leaves])

    def keep(self, sample: Sampled, result: Any) -> None:
        """Queues a sample with a copy of its answer, where there is room."""
        if not self.queue.full:
            sample.answer = result if isinstance(result, BaseException) else owned(result)
            if self.queue.put(sample):
                return
        self.count(skipped=1)

    def judge(self, sample: Sampled) -> Judgement | None:
        """Compares one answer and counts it; None where the tenant was updated since."""
        if not self._holds(sample):
            return None
        judgement = sample.reference.judge(sample.leaves, sample.answer)
        with self._lock:
            if not self._holds(sample):
                return None
            self.counts = self.counts.with_one(
                judgement.worst, differs=judgement.differs, unsure=judgement.unsure
            )
        return judgement

    def count(self, *, skipped: int) -> None:
        """Counts samples that nobody compares."""
        with self._lock:
            self.counts = replace(self.counts, skipped=self.counts.skipped + skipped)

    @contextmanager
    def updating(self, state_dict: Mapping[str, Any]) -> Iterator[None]:
        """While the tenant's weights become these: what answers is changed inside the block.

        A request under way meanwhile may be answered by the old or the new weights, so what was
        sampled before is void, and nothing is sampled before the end. Where the block raises the
        old reference stays.
        """
        self.paused = True
        after = replace(self.reference)  # another version, whatever comes
        try:
            new = self.reference.updated(state_dict)
            yield
            after = new
        finally:
            self.reference = after
            self.paused = False

    def _holds(self, sample: Sampled) -> bool:
        return sample.reference is self.reference and not self.paused


class Waiting:
    """Samples whose answers wait to be judged, in a bounded queue."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.closed = False
        self.judging = False
        self._samples: deque[Sampled] = deque()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether a sample would be skipped now."""
        return len(self._samples) >= QUEUED or self._bytes >= QUEUED_BYTES or self.closed

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is judged."""
        return not self._samples and not self.judging

    def put(self, sample: Sampled) -> bool:
        """Whether there was room."""
        with self.changed:
            if self.full:
                return False
            self._samples.append(sample)
            self._bytes += _bytes_of(sample)
            self.changed.notify_all()
        return True

    def next(self) -> Sampled | None:
        """The oldest sample, waited for; None once closed and empty. Asking for the next one says
        that the one before has been judged."""
        with self.changed:
            self.judging = False
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._samples or self.closed)
            if not self._samples:
                return None
            sample = self._samples.popleft()
            self._bytes -= _bytes_of(sample)
            self.judging = True
            return sample

    def close(self, *, within_s: float) -> None:
        """Takes no more samples, and forgets those that are not judged within that time."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.idle, within_s)
            for sample in self._samples:
                sample.watch.count(skipped=1)
            self._samples.clear()
            self._bytes = 0


class Auditor:
    """Audits a `part` of every tenant's requests, from 0 to 1, on a thread of its own.

    A copy of each tenant's module is held in the CPU's memory: as much again as its weights take.
    `differed` is called with a watch and what was found, on that thread, for every difference.
    """

    def __init__(self, part: float, differed: Differed | None = None) -> None:
        self.part = part
        self._watches: list[Watch] = []
        self._waiting = Waiting()
        self._pid = os.getpid()
        # The thread keeps neither the auditor nor its session alive.
        listener = None if differed is None else weakref.WeakMethod(differed)
        self._thread = threading.Thread(
            target=_judge_all, args=(self._waiting, listener), name="spacetime-audit", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, _end, self._waiting, self._thread, self._pid, within_s=0.0)

    def watch(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        *,
        family: object,
        member: int,
        least: float = 0.0,
    ) -> Watch:
        """Begins a tenant's audit, with a reference of its model as it is now.

        least: a tolerance that is allowed in any case.
        """
        reference, why = reference_of(model, signature, example, least)
        watch = Watch(signature.tenant, family, member, reference, why, self.part, self._waiting)
        self._watches.append(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """Ends a tenant's audit; what waits of it is not judged."""
        watch.paused = True
        self._watches.remove(watch)

    def members(self, family: object) -> dict[int, Watch]:
        """The audits of a family's members, by their numbers in the family."""
        return {watch.member: watch for watch in [*self._watches] if watch.family is family}

    def settle(self, timeout_s: float | None = None) -> bool:
        """Waits until every answer that was sampled has been judged; whether that was in time."""
        with self._waiting.changed:
            return self._waiting.changed.wait_for(lambda: self._waiting.idle, timeout_s)

    def lines(self) -> list[str]:
        """What is audited and what is not: lines of explain()."""
        held = sum(watch.reference.bytes for watch in self._watches)
        return [
            f"audit: {100 * self.part:g} % of each tenant's answers are compared with its module "
            f"alone; the copies take {held / 2**20:.2f} MiB",
            *(f"  {w.tenant}: not audited: {w.why}" for w in self._watches if w.why),
        ]

    def close(self, *, drain: bool) -> None:
        """Ends the thread; drain judges what waits, for a second at most. Idempotent."""
        _end(self._waiting, self._thread, self._pid, within_s=CLOSE_S if drain else 0.0)


def opened(part: float, *, stop: bool, differed: Differed) -> Auditor | None:
    """The auditor of a session, None where nothing is audited; `differed` is called if `stop`.

    Raises InvalidInput naming `audit` or `audit_stop`.
    """
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part <= 1:
        raise InvalidInput("-", "audit", "the part of the requests, from 0 to 1", repr(part))
    if stop and not part:
        raise InvalidInput("-", "audit_stop", "False where audit is 0 (give audit too)", "True")
    return Auditor(float(part), differed if stop else None) if part else None


def updating(watch: Watch | None, state_dict: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Watch.updating(); nothing where the tenant has no audit."""
    return nullcontext() if watch is None else watch.updating(state_dict)


class Ended(Protocol):
    """How a request ended; `launch` and `lane` are None where it never started."""

    @property
    def token(self) -> int: ...
    @property
    def launch(self) -> int | None: ...
    @property
    def lane(self) -> int | None: ...


def note_launches(records: Sequence[Ended], in_flight: Mapping[int, InFlight]) -> None:
    """Writes into samples that are about to end on which lane they ran, and beside whom."""
    for record in records:
        future = in_flight[record.token].future
        if isinstance(future, Sampled) and record.launch is not None:
            of = {in_flight[r.token].tenant for r in records if r.launch == record.launch}
            future.lane = record.lane
            future.beside = tuple(sorted(of - {future.watch.tenant}))


def _judge_all(waiting: Waiting, listener: Callable[[], Differed | None] | None) -> None:
    """Body of the auditor's thread. It uses one thread of PyTorch's. It has no lower priority in
    the system: a caller that waits for the GIL would wait until this thread gets a core."""
    with lane_threads(1):
        while (sample := waiting.next()) is not None:
            _judge(sample, listener)
            del sample  # its tensors and its tenant go before the next is waited for


def _end(waiting: Waiting, thread: threading.Thread, pid: int, *, within_s: float) -> None:
    if pid != os.getpid():  # a fork has the queue, perhaps locked, and no thread
        return
    waiting.close(within_s=within_s)
    if threading.current_thread() is not thread:
        thread.join()


def _judge(sample: Sampled, listener: Callable[[], Differed | None] | None) -> None:
    watch = sample.watch
    try:
        judgement = watch.judge(sample)
        if judgement is None or not judgement.differs:
            return
        _log_difference(sample, judgement)
        if listener is not None and (differed := listener()) is not None:
            differed(watch, judgement.why)
    except Exception:
        log.exception("audit", extra=_line(watch.tenant, why="not compared"))
        watch.count(skipped=1)


def _log_difference(sample: Sampled, judgement: Judgement) -> None:
    tenant = sample.watch.tenant
    line = _line(
        tenant,
        worst=judgement.worst if math.isfinite(judgement.worst) else None,
        why=judgement.why,
        lane=sample.lane,
        beside=sample.beside,
        request_id=sample.request,
    )
    text = "tenant %s: an audited answer is wrong: %s"
    log.warning(text, tenant, judgement.why, extra=line)


def _line(tenant: str, **fields: Any) -> dict[str, Any]:
    """What a journal of JSON lines makes of a record."""
    given = {name: value for name, value in fields.items() if value not in (None, "", ())}
    return {"event": "audit", "fields": {"model": tenant, **given}}


def _gap(part: float, numbers: random.Random) -> int:
    """Requests from one sample to the next, so that each is one with probability `part`."""
    if part >= 1:
        return 1
    return 1 + int(math.log(1 - numbers.random()) / math.log1p(-part))


def _bytes_of(sample: Sampled) -> int:
    leaves = [*sample.leaves, *pytree.tree_leaves(sample.answer)]
    return sum(x.nbytes for x in leaves if isinstance(x, Tensor))
