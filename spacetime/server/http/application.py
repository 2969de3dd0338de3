"""The protocol over HTTP, as an ASGI application; a listener (uvicorn) speaks the wire.

A plain application rather than a framework's: `infer` is the hot path, and a no-op through
Starlette costs twice what it costs so (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError

from spacetime.server.answers import Ended
from spacetime.server.facts import EXTENSIONS, refuse_code
from spacetime.server.http import body, messages, page
from spacetime.server.http.exchange import Exchange
from spacetime.server.http.intake import JSON, Answer, HttpCall, Intake
from spacetime.server.http.messages import Headers, Pieces, encode
from spacetime.server.http.openapi import description
from spacetime.server.http.page import Ports
from spacetime.server.paths import INFER
from spacetime.server.refusal import Refusal, RefusalKind
from spacetime.server.repository import Repository
from spacetime.server.statistics import statistics
from spacetime.server.tokens import Tokens
from spacetime.version import __version__

Send = Callable[[body.Message], Awaitable[None]]


class Application:
    """Answers the protocol's paths from a repository. It is called in the loop's thread."""

    def __init__(
        self, repository: Repository, intake: Intake, tokens: Tokens, ports: Ports
    ) -> None:
        self._repository = repository
        self._intake = intake
        self._tokens = tokens
        self._ports = ports

    async def __call__(self, scope: body.Message, receive: body.Receive, send: Send) -> None:
        """Answers one request, as ASGI has it; whatever is no HTTP request is ignored."""
        if scope["type"] != "http":
            return
        call = HttpCall(scope["method"], scope["raw_path"].decode(), scope["headers"], receive)
        journal = self._intake.journal
        start = journal.now()
        try:
            answer = await self._answer(call)
        except body.ClientGone:
            journal.answered(call, RefusalKind.GONE.status, start)
            return
        except Exception as error:
            answer = self._intake.excuse(call, error)
        # Before the answer: the connection is closed after it, and must have nothing unread then.
        if answer[0] == RefusalKind.TOO_LARGE.status and body.CLOSE[0] in answer[1]:
            await body.discard(receive, call.headers)
        journal.answered(call, answer[0], start)
        await send_answer(send, *call.signed(answer))

    def exchange(self, method: bytes, path: bytes, headers: Headers) -> Exchange | None:
        """Returns the exchange that answers an inference request without ASGI's tasks.

        A listener asks for every request's head. None sends the request the long way, through
        `__call__`: every path but `infer`, a body of no declared length, and every head that is to
        be refused.
        """
        if method != b"POST" or not path.endswith(b"/infer"):
            return None
        call = HttpCall("POST", path.decode("latin-1"), headers)
        if b"content-length" not in call.headers:  # it may turn out to be too large
            return None
        if call.words != INFER:
            return None
        try:
            self._tokens.check(call.headers.get(b"authorization"))
            return Exchange(self._intake, call, self._intake.model(call), self._intake.body(call))
        except Refusal:
            return None

    async def _answer(self, call: HttpCall) -> Answer:
        route = _ROUTES.get(call.words)
        if route is None:
            raise Refusal(RefusalKind.UNKNOWN, f"there is nothing at {call.path:.200}")
        method, handler, is_open = route
        if not is_open:
            self._tokens.check(call.headers.get(b"authorization"))
        if (other := answer_to_other_method(call.method, method)) is not None:
            return other
        return await handler(self, call)

    async def _infer(self, call: HttpCall) -> Answer:
        model = self._intake.model(call)
        try:
            into = self._intake.body(call)
            await self._read(call, into)
        except Refusal:
            self._intake.count_refusal(call)
            raise
        future, asked = self._intake.submit(call, model, into)
        watch = asyncio.ensure_future(_disconnected(call, future))
        try:
            return 200, *asked.answer(await self._intake.answers.result(future))
        except CancelledError:
            raise body.ClientGone from None
        finally:
            watch.cancel()

    async def _read(self, call: HttpCall, into: body.Body) -> None:
        assert call.receive is not None  # this is the way of ASGI
        await body.read_body(call.receive, into, seconds=self._intake.limits.read_seconds)

    async def _body(self, call: HttpCall) -> body.Bytes:
        into = self._intake.body(call)
        await self._read(call, into)
        return into.parts()[0]

    async def _live(self, call: HttpCall) -> Answer:
        return 200, [], []

    async def _ready(self, call: HttpCall) -> Answer:
        if not self._repository.ready:
            raise Refusal(RefusalKind.CLOSING, "the server is stopping", ((b"retry-after", b"1"),))
        return 200, [], []

    async def _server(self, call: HttpCall) -> Answer:
        facts = {"name": "spacetime", "version": __version__, "extensions": EXTENSIONS}
        return 200, JSON, [encode(facts)]

    async def _page(self, call: HttpCall) -> Answer:
        shown = page.page_facts(self._repository, self._ports, call.headers.get(b"host", b""))
        headers, text = page.page_answer(shown, call.headers.get(b"accept", b""))
        return 200, headers, [text]

    async def _model(self, call: HttpCall) -> Answer:
        return 200, JSON, [encode(self._intake.model(call).metadata())]

    async def _model_ready(self, call: HttpCall) -> Answer:
        self._intake.model(call)
        return await self._ready(call)

    async def _config(self, call: HttpCall) -> Answer:
        return 200, JSON, [encode(self._intake.model(call).config())]

    async def _all_stats(self, call: HttpCall) -> Answer:
        return 200, JSON, [encode(statistics(self._repository))]

    async def _stats(self, call: HttpCall) -> Answer:
        name = self._intake.model(call).tenant.name
        return 200, JSON, [encode(statistics(self._repository, [name]))]

    async def _index(self, call: HttpCall) -> Answer:
        ready = messages.ready_only(await self._body(call))
        return 200, JSON, [encode(self._repository.index(ready=ready))]

    async def _load(self, call: HttpCall) -> Answer:
        await self._change(call, self._repository.load)
        return 200, JSON, [b"{}"]

    async def _unload(self, call: HttpCall) -> Answer:
        await self._change(call, self._repository.unload)
        return 200, JSON, [b"{}"]

    async def _change(self, call: HttpCall, change: Callable[[str], None]) -> None:
        refuse_code(messages.load_parameters(await self._body(call)))
        await asyncio.get_running_loop().run_in_executor(None, change, call.model)

    async def _openapi(self, call: HttpCall) -> Answer:
        return 200, JSON, [encode(description())]


Handler = Callable[[Application, HttpCall], Awaitable[Answer]]
Route = tuple[str, Handler, bool]  # method, what answers, whether it needs no token
_ROUTES: dict[tuple[str, ...], Route] = {
    ("",): ("GET", Application._page, False),
    ("v2",): ("GET", Application._server, False),
    ("v2", "health", "live"): ("GET", Application._live, True),
    ("v2", "health", "ready"): ("GET", Application._ready, True),
    ("v2", "models", "stats"): ("GET", Application._all_stats, False),
    ("v2", "repository", "index"): ("POST", Application._index, False),
    ("openapi.json",): ("GET", Application._openapi, False),
    ("v2", "models", "*"): ("GET", Application._model, False),
    ("v2", "models", "*", "ready"): ("GET", Application._model_ready, False),
    ("v2", "models", "*", "config"): ("GET", Application._config, False),
    ("v2", "models", "*", "stats"): ("GET", Application._stats, False),
    INFER: ("POST", Application._infer, False),
    ("v2", "repository", "models", "*", "load"): ("POST", Application._load, False),
    ("v2", "repository", "models", "*", "unload"): ("POST", Application._unload, False),
}


def answer_to_other_method(given: str, method: str) -> Answer | None:
    """Returns the answer to OPTIONS; None where `given` is the path's own `method`.

    HEAD counts as GET: the listener sends the headers of the answer and not its body. Raises
    Refusal, with the header Allow, for every other method.
    """
    if given == method or (given, method) == ("HEAD", "GET"):
        return None
    allowed = "GET, HEAD, OPTIONS" if method == "GET" else f"{method}, OPTIONS"
    allow = (b"allow", allowed.encode())
    if given == "OPTIONS":
        return 200, [allow], []
    raise Refusal(RefusalKind.WRONG_METHOD, f"{given:.20}: use {method} here", (allow,))


async def _disconnected(call: HttpCall, future: Ended) -> None:
    """Waits until the client goes, and withdraws its request then."""
    assert call.receive is not None
    while (await call.receive())["type"] != "http.disconnect":
        pass
    future.cancel()


async def send_answer(send: Send, status: int, headers: Headers, pieces: Pieces) -> None:
    """Sends a whole answer through ASGI, with its length."""
    length = sum(map(len, pieces))
    headers = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for place, piece in enumerate(pieces or [b""]):
        more = place < len(pieces) - 1
        await send({"type": "http.response.body", "body": piece, "more_body": more})
