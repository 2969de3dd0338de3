"""Inference requests over HTTP: from a head and a body to the session, from its answer to bytes."""

from __future__ import annotations

from spacetime.errors import SpacetimeError
from spacetime.server.answers import Answers, Ended
from spacetime.server.http import messages
from spacetime.server.http.body import Body, Receive
from spacetime.server.http.messages import Headers, Inference, Pieces, encode
from spacetime.server.journal import Journal, request_id
from spacetime.server.limits import Limits
from spacetime.server.model import ServedModel
from spacetime.server.paths import place_of
from spacetime.server.refusal import Refusal, RefusalKind, refusal_of
from spacetime.server.repository import Repository
from spacetime.server.trace import echoed, trace_of
from spacetime.session.audit import Sampled

Answer = tuple[int, Headers, Pieces]
JSON: Headers = [(b"content-type", b"application/json")]


class HttpCall:
    """One HTTP request on its way through the application; the journal notes it."""

    __slots__ = (
        "headers", "method", "model", "path", "receive", "request", "trace", "version", "words",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, headers: Headers, receive: Receive | None = None
    ) -> None:
        self.method = method
        self.headers = dict(headers)
        self.path = path  # as it was sent
        self.words, self.model, self.version = place_of(path)
        self.receive = receive  # ASGI's; None where the connection hands the body over itself
        self.request = ""  # the id that the request's message gives
        self.trace = trace_of(self.headers)

    def signed(self, answer: Answer) -> Answer:
        """Returns the answer with the id and the trace that the request came with."""
        status, headers, pieces = answer
        added = echoed(self.headers, self.trace)
        return (status, [*headers, *added], pieces) if added else answer


class Intake:
    """Takes inference requests in, for both ways of HTTP. It is called in the loop's thread."""

    def __init__(
        self, repository: Repository, limits: Limits, journal: Journal, answers: Answers
    ) -> None:
        self.limits = limits
        self.journal = journal
        self.answers = answers
        self._repository = repository

    def model(self, call: HttpCall) -> ServedModel:
        """Returns the model that the request names. Raises Refusal where it is not loaded."""
        return self._repository.model(call.model, call.version)

    def body(self, call: HttpCall) -> Body:
        """Returns the empty body that the request's pieces are added to.

        Raises Refusal where the head declares more bytes than Limits.body_bytes.
        """
        return Body(call.headers, self.limits.body_bytes)

    def submit(self, call: HttpCall, model: ServedModel, body: Body) -> tuple[Ended, Inference]:
        """Submits a request whose body is complete: the future, and how to answer it.

        Raises Refusal; a request that is wrong in itself is counted.
        """
        try:
            head, binary = body.parts()
            message = messages.infer_message(head)
            call.request = message.id or ""
            asked = messages.inference(model, message, binary, most=self.limits.tensors)
        except Refusal:
            self.count_refusal(call)
            raise
        future = self._repository.submit(model, asked.tensors, **asked.options)
        if isinstance(future, Sampled):
            future.request = request_id(call)
        return future, asked

    def count_refusal(self, call: HttpCall) -> None:
        """Counts a request that was refused because it was wrong in itself."""
        self._repository.count_wrong(call.model)

    def excuse(self, call: HttpCall, error: Exception) -> Answer:
        """Returns the answer that tells a client of an error; called from inside its `except`."""
        if isinstance(error, SpacetimeError):
            error = refusal_of(error)
        if not isinstance(error, Refusal):  # a defect of ours: the journal has the rest
            self.journal.fault(call)
            error = Refusal(RefusalKind.FAULT, "internal error of the server")
        return refused(error)


def refused(refusal: Refusal) -> Answer:
    """Returns the answer that tells a refusal: its status, its headers, and its text as JSON."""
    headers = [*JSON, *refusal.headers]
    return refusal.kind.status, headers, [encode({"error": str(refusal)})]
