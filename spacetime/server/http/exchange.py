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
    """One inference request, from its body's first byte to its answer.

    It stands where uvicorn has a cycle of its own. Its connection calls it in the loop's thread. It
    calls `reply` once with the answer, unless the client goes before.
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
        self.arriving = True  # whether the body is still on its way
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    def add(self, piece: bytes) -> None:
        """Takes a piece of the body. It cannot be too large: the length that the head declares
        was checked when `Body` was made, and the parser gives no more than that."""
        self._body.add(piece)

    def complete(self) -> None:
        """Takes the end of the body: submits the request to the session."""
        self.arriving = False
        try:
            self._future, asked = self._intake.submit(self._call, self._model, self._body)
        except Exception as error:
            self._answer(self._intake.excuse(self._call, error))
        else:
            self._intake.answers.tell(self._future, partial(self._ended, asked))

    def expire(self) -> None:
        """Refuses the request, because its body takes too long."""
        self.arriving = False
        self._intake.count_refusal(self._call)
        slow = too_slow(self._intake.limits.read_seconds)
        self._answer(self._intake.excuse(self._call, slow))

    def abandon(self) -> None:
        """Withdraws the request, because its client has gone."""
        self._intake.journal.answered(self._call, RefusalKind.GONE.status, self._start)
        self.response_complete = True
        if self._future is not None:
            self._future.cancel()

    def _ended(self, asked: Inference, future: Ended) -> None:
        # The future holds this method as its callback: a cycle of references, which would live
        # until a collection, and a collection stalls every request.
        self._future = None
        if self.response_complete:  # abandoned meanwhile
            return
        try:
            answer: Answer = 200, *asked.answer(future.result())
        except Exception as error:
            answer = self._intake.excuse(self._call, error)
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self._intake.journal.answered(self._call, answer[0], self._start)
        self.reply(self, self._call.signed(answer))
