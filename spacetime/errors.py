"""What a caller can catch. Every message is one line that names the field and the fix."""

from __future__ import annotations


class SpacetimeError(Exception):
    """Base of every error this library raises on purpose."""


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


class OutOfMemory(SpacetimeError, MemoryError):
    """A tenant does not fit: `needed` bytes where `free` are; nothing else was disturbed."""

    def __init__(self, tenant: str, needed: int, free: int, limit: str) -> None:
        super().__init__(
            f"tenant {tenant}: it needs {needed:,} bytes and {limit} leaves {free:,}; "
            "remove a tenant, or use a smaller dtype"
        )
        self.tenant = tenant
        self.needed = needed
        self.free = free


class ModelError(SpacetimeError):
    """A tenant's model raised while it ran; `cause` is what it raised."""

    def __init__(self, tenant: str, cause: BaseException) -> None:
        # TorchScript puts its whole interpreter stack before the reason, on the last line.
        reason = (str(cause).strip() or "no message").splitlines()[-1]
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
        super().__init__(f"{whose}{field} must be {expected}, got {got}")
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
