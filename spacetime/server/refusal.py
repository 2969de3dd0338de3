"""Refusals: why a request gets no answer, one kind for each pair of HTTP status and gRPC code."""

from __future__ import annotations

from enum import Enum

from spacetime.errors import (
    Carried,
    ClosedError,
    DeadlineExceeded,
    InvalidInput,
    OutOfMemory,
    QueueFull,
    SpacetimeError,
)


class RefusalKind(Enum):
    """Why a request is refused: the HTTP status, and the name of the gRPC code."""

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    UNKNOWN = (404, "NOT_FOUND")
    WRONG_METHOD = (405, "UNIMPLEMENTED")
    SLOW = (408, "CANCELLED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    WRONG_MEDIA = (415, "INVALID_ARGUMENT")
    QUEUE_FULL = (429, "RESOURCE_EXHAUSTED")
    GONE = (499, "CANCELLED")
    FAULT = (500, "INTERNAL")
    CLOSING = (503, "UNAVAILABLE")
    DEADLINE = (504, "DEADLINE_EXCEEDED")

    @property
    def status(self) -> int:
        """The HTTP status that tells this refusal."""
        return self.value[0]

    @property
    def code(self) -> str:
        """The name of the gRPC code that tells this refusal."""
        return self.value[1]


_LONGEST = 500  # characters of a refusal's text: a gRPC status travels in a header


class Refusal(Carried):
    """A request that is refused or failed.

    text: one line for the client, cut to 500 characters. headers: HTTP's, beside the usual ones.
    """

    def __init__(self, kind: RefusalKind, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()):
        super().__init__(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...")
        self.kind = kind
        self.headers = headers


RETRY = ((b"retry-after", b"1"),)
_KINDS: tuple[tuple[type[BaseException], RefusalKind], ...] = (
    (InvalidInput, RefusalKind.INVALID),
    (QueueFull, RefusalKind.QUEUE_FULL),
    (DeadlineExceeded, RefusalKind.DEADLINE),
    (ClosedError, RefusalKind.CLOSING),
    (OutOfMemory, RefusalKind.QUEUE_FULL),
)
_RETRIED = (RefusalKind.QUEUE_FULL, RefusalKind.CLOSING)


def refusal_of(error: SpacetimeError) -> Refusal:
    """Returns the refusal that tells a client of an error of the library.

    A fault (500) is told only of errors that are no client's doing, such as those a model raises.
    """
    kind = next((kind for cause, kind in _KINDS if isinstance(error, cause)), RefusalKind.FAULT)
    return Refusal(kind, str(error), RETRY if kind in _RETRIED else ())


def invalid(field: str, problem: str) -> Refusal:
    """Returns the refusal of a request whose `field` is wrong; `problem` says what it must be."""
    return Refusal(RefusalKind.INVALID, f"{field}: {problem}")
