"""Inference requests over HTTP: from a head and a body to the session, from its answer to bytes."""

from __future__ import annotations

from spacetime.errors import SpacetimeError
from spacetime.server.answers import Answers, Ended
from spacetime.server.http import messages
from spacetime.server.http.body import Body, Receive
from spacetime.server.http.messages import Headers, Inference, Pieces, encode
from spacetime.server.journal import Journal, named
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
    """One HTTP request on its way through the application."""

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
        self.receive = receive  # None: its body comes otherwise
        self.request = ""  # its id
        self.trace = trace_of(self.headers)

    def signed(self, answer: Answer) -> Answer:
        """The answer with the id and the trace that the request came with."""
        status, headers, pieces = answer
        found = echoed(self.headers, self.trace)
        return (status, [*headers, *found], pieces) if found else answer


class Intake:
    """Takes inference requests in. Called in the loop's thread."""

    def __init__(
        self, repository: Repository, limits: Limits, journal: Journal, answers: Answers
    ) -> None:
        self.limits = limits
        self.journal = journal
        self.answers = answers
        self._repository = repository

    def model(self, call: HttpCall) -> ServedModel:
        """Whom the request is for. Raises Refusal."""
        return self._repository.model(call.model, call.version)

    def body(self, call: HttpCall) -> Body:
        """Where its body goes. Raises Refusal."""
        return Body(call.headers, self.limits.body_bytes)

    def submit(self, call: HttpCall, model: ServedModel, body: Body) -> tuple[Ended, Inference]:
        """The future of a request whose body is complete. Raises Refusal."""
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
            future.request = named(call)
        return future, asked

    def count_refusal(self, call: HttpCall) -> None:
        """The request was wrong in itself."""
        self._repository.refused(call.model)

    def excuse(self, call: HttpCall, error: Exception) -> Answer:
        """What a client is told of an error, from inside its `except`."""
        if isinstance(error, SpacetimeError):
            error = refusal_of(error)
        if not isinstance(error, Refusal):  # a defect of ours: the journal has the rest
            self.journal.fault(call)
            error = Refusal(RefusalKind.FAULT, "internal error of the server")
        return refused(error)


def refused(refusal: Refusal) -> Answer:
    """The answer that tells a refusal."""
    headers = [*JSON, *refusal.headers]
    return refusal.kind.status, headers, [encode({"error": str(refusal)})]
