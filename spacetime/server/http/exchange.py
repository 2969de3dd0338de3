"""An inference request that a connection answers itself, in callbacks: no task, no ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from spacetime.server.answers import Ended
from spacetime.server.http.body import Body, too_slow
from spacetime.server.http.intake import Answer, HttpCall, Intake
from spacetime.server.http.messages import Inference
from spacetime.server.model import ServedModel
from spacetime.server.refusal import RefusalKind

Reply = Callable[["Exchange", Answer], None]


class Exchange:
    """From the body's first byte to the answer. It stands where uvicorn has a cycle of its own.

    Called by its connection in the loop's thread. `reply` is called once, unless the client goes.
    """

    __slots__ = (
        "_body", "_call", "_future", "_intake", "_model", "_start",
        "arriving", "disconnected", "keep_alive", "reply", "response_complete",
    )  # fmt: skip
    message_event = asyncio.Event()  # set by uvicorn where a connection ends; nobody waits for it

    def __init__(self, intake: Intake, call: HttpCall, model: ServedModel, body: Body) -> None:
        self._intake = intake
        self._call = call
        self._model = model
        self._body = body
        self._start = intake.journal.now()
        self._future: Ended | None = None
        self.reply: Reply = lambda _exchange, _answer: None
        self.arriving = True  # the body, still
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    def add(self, piece: bytes) -> None:
        """A piece of the body; what the head declared has been found to be small enough."""
        self._body.add(piece)

    def complete(self) -> None:
        """The body is whole: asks the session."""
        self.arriving = False
        try:
            self._future, asked = self._intake.submit(self._call, self._model, self._body)
        except Exception as error:
            self._answer(self._intake.excuse(self._call, error))
        else:
            self._intake.answers.tell(self._future, partial(self._ended, asked))

    def expire(self) -> None:
        """The body takes too long."""
        self.arriving = False
        self._intake.count_refusal(self._call)
        slow = too_slow(self._intake.limits.read_seconds)
        self._answer(self._intake.excuse(self._call, slow))

    def abandon(self) -> None:
        """The client has gone: what waits is withdrawn."""
        self._intake.journal.answered(self._call, RefusalKind.GONE.status, self._start)
        self.response_complete = True
        if self._future is not None:
            self._future.cancel()

    def _ended(self, asked: Inference, future: Ended) -> None:
        self._future = None  # it calls this: a cycle, which only a stall of all requests would free
        if self.response_complete:  # abandoned
            return
        try:
            answer: Answer = 200, *asked.answer(future.result())
        except Exception as error:
            answer = self._intake.excuse(self._call, error)
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self._intake.journal.answered(self._call, answer[0], self._start)
        self.reply(self, self._call.signed(answer))
