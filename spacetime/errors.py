"""What a caller can catch. Every message is one line that names the field and the fix."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

_LONGEST = 500  # characters of what another library said
_MOST_TEXT = 4000
_NAMED = re.compile(r"[\w.]+: ")


class Carried(Exception):
    """Copies and pickles whole: its class, message, attributes, and what caused it."""

    # Python's own way calls the class with its message, which no class below takes alone.
    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: _picklable(value) for name, value in vars(self).items()}
        return _remade, (type(self), self.args, state, _picklable(self.__cause__))

    def __copy__(self) -> Carried:
        return _remade(type(self), self.args, vars(self), self.__cause__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Carried:
        # What was raised elsewhere is kept as it is: not everything that is raised can be copied.
        state = {name: _copied(value, memo) for name, value in vars(self).items()}
        return _remade(type(self), self.args, state, self.__cause__)


class SpacetimeError(Carried):
    """Base of every error this library raises on purpose."""


def _remade(
    kind: type[Carried],
    args: tuple[Any, ...],
    state: dict[str, Any],
    cause: BaseException | None,
) -> Carried:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    error.__cause__ = cause
    return error


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    return value if isinstance(value, BaseException) else copy.deepcopy(value, memo)


def _picklable(value: Any) -> Any:
    return _Passenger(value) if isinstance(value, BaseException) else value


class _Passenger:
    """Somebody else's exception on its way, with its text where it cannot be rebuilt."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            data = pickle.dumps(self.error)
        except Exception:  # whatever somebody else's class raises
            data = b""
        return _arrived, (data, f"{type(self.error).__name__}: {self.error}")


def _arrived(data: bytes, text: str) -> BaseException:
    try:
        error = pickle.loads(data)
    except Exception:  # its class is not there, or wants more than its arguments
        return RuntimeError(text)
    return error if isinstance(error, BaseException) else RuntimeError(text)


def one_line(text: object) -> str:
    """`text` on one line."""
    return " ".join(str(text).split())


def reason_of(cause: BaseException) -> str:
    """The line of another library's message that says what was wrong, cut to 500 characters."""
    lines = [line for line in str(cause).splitlines() if line.strip()]
    if not lines:
        return "no message"
    reason = lines[0]
    if any(line.startswith("Traceback of TorchScript") for line in lines):
        # Its whole interpreter stack, with code, comes before the line that names the error.
        after = max(
            n for n, line in enumerate(lines) if line.startswith("Traceback of TorchScript")
        )
        named = [line for line in lines[after + 1 :] if _NAMED.match(line)]
        reason = named[0] if named else lines[-1]
    return one_line(reason)[:_LONGEST]


class DeadlineExceeded(SpacetimeError, TimeoutError):
    """The request had not started when its deadline came; it was dropped at that instant."""


class QueueFull(SpacetimeError):
    """The tenant's queue was at its limit when the request was submitted; nothing was accepted."""


class ClosedError(SpacetimeError):
    """The session or the tenant is closed, or belongs to the process this one was forked from."""


class UnsupportedError(SpacetimeError):
    """This build or machine lacks what was asked for; the message says what to use instead."""


class DriverError(SpacetimeError):
    """A call of the CUDA driver failed: which, and with which code (CUresult in cuda.h).

    Errors that poison the context (an illegal address, say) make the whole device lost to this
    process: every waiting caller gets this once, and the session refuses new work.
    """

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(text)
        self.call = call
        self.code = code


class LaneLost(SpacetimeError):
    """A lane's own process died or did not start, and the request could not be tried elsewhere."""

    def __init__(self, lane: int, why: str) -> None:
        super().__init__(f"lane {lane}: {why}")
        self.lane = lane
        self.why = why


class MigError(SpacetimeError):
    """The driver refused to change MIG instances: `code` is NVML's own name for why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class MpsError(SpacetimeError):
    """An MPS daemon is not there, refused, hangs, or granted other than what was asked."""


class OutOfMemory(MemoryError, SpacetimeError):  # in this order Python can make one unpickled
    """A tenant does not fit: `needed` bytes where `free` are; nothing else was disturbed."""

    def __init__(self, tenant: str, needed: int, free: int, limit: str) -> None:
        super().__init__(
            f"tenant {tenant}: it needs {needed:,} bytes and {limit} leaves {free:,}; "
            "remove a tenant, or use a smaller dtype"
        )
        self.tenant = tenant
        self.needed = needed
        self.free = free


def text_of(cause: BaseException) -> str:
    """What it says, for another process: of a long text the line that says what was wrong."""
    text = str(cause)
    return text if len(text) <= _MOST_TEXT else reason_of(cause)


class ModelError(SpacetimeError):
    """A tenant's model raised while it ran; `cause` is what it raised."""

    def __init__(self, tenant: str, cause: BaseException) -> None:
        reason = reason_of(cause)
        super().__init__(f"tenant {tenant}: the model raised {type(cause).__name__}: {reason}")
        self.tenant = tenant
        self.reason = reason
        self.cause = cause
        self.__cause__ = cause


class InvalidInput(SpacetimeError, ValueError):
    """An argument does not fit: `field` of `tenant` had to be `expected` and was `got`.

    `tenant` is "-" for an argument that is of no tenant.
    """

    def __init__(self, tenant: str, field: str, expected: str, got: str) -> None:
        whose = "" if tenant == "-" else f"tenant {tenant}: "
        super().__init__(one_line(f"{whose}{field} must be {expected}, got {got}"))
        self.tenant = tenant
        self.field = field
        self.expected = expected
        self.got = got


class ProfileError(SpacetimeError, ValueError):
    """A profile is wrong: `field` of a point, and where it was read its file and row."""

    def __init__(self, field: str, problem: str, *, where: str = "") -> None:
        super().__init__(f"{where}{field}: {problem}")
        self.field = field
        self.problem = problem


class CannotExport(SpacetimeError):
    """The model has no graph that serves any number of slots; the message is one line, why."""


class CannotFuse(SpacetimeError):
    """No fused form exists; the message names the node and the reason in one line."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"{node}: {reason}")
        self.node = node
        self.reason = reason


class PlanError(SpacetimeError, ValueError):
    """A plan is malformed, or breaks what it promises; the message names partition or tenant."""


class InfeasibleError(SpacetimeError):
    """No plan of this planner serves `tenant`: which `bound` failed, and by how much.

    `bound` is one of `profile`, `latency`, `fill`, `rate`, `utilisation`, `layout`, `gpus`,
    `units`, `memory`, `time`.
    """

    def __init__(self, tenant: str, bound: str, problem: str) -> None:
        super().__init__(f"tenant {tenant}: {bound}: {problem}")
        self.tenant = tenant
        self.bound = bound
        self.problem = problem


class RecordingError(SpacetimeError, ValueError):
    """A recording cannot be read, or its bytes are none; the message names the byte."""


class ReplayError(SpacetimeError):
    """A replayed scheduler decided otherwise than recorded; the message says where first."""
