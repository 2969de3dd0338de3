"""The protocol over HTTP, as an ASGI application; a listener (uvicorn) speaks the wire.

A plain application rather than a framework's: `infer` is the hot path, and a no-op through
Starlette costs twice what it costs so (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from spacetime import __version__
from spacetime.errors import SpacetimeError
from spacetime.server import body, http_messages
from spacetime.server.facts import EXTENSIONS, refuse_code
from spacetime.server.http_messages import Headers, Pieces, encode
from spacetime.server.journal import Journal
from spacetime.server.limits import Limits
from spacetime.server.openapi import description
from spacetime.server.parameters import submission
from spacetime.server.refusal import Kind, Refusal, refusal_of
from spacetime.server.repository import Repository
from spacetime.server.statistics import statistics
from spacetime.server.tokens import Tokens

Send = Callable[[body.Message], Awaitable[None]]
JSON: Headers = [(b"content-type", b"application/json")]
Answer = tuple[int, Headers, Pieces]


class Call:
    """One HTTP request on its way through the application."""

    __slots__ = ("headers", "method", "model", "parts", "receive", "request")

    def __init__(self, scope: body.Message, receive: body.Receive) -> None:
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.parts = scope["path"].strip("/").split("/")
        self.receive = receive
        self.model = ""
        self.request = ""  # its id

    def versioned(self) -> tuple[str, str | None]:
        """The model's name and version in a path v2/models/NAME[/versions/VERSION]/..."""
        self.model = self.parts[2]
        return self.model, self.parts[4] if self.parts[3:4] == ["versions"] else None


class Application:
    """Answers the protocol's paths from a repository."""

    def __init__(
        self, repository: Repository, limits: Limits, tokens: Tokens, journal: Journal
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._tokens = tokens
        self._journal = journal

    async def __call__(self, scope: body.Message, receive: body.Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            return
        call = Call(scope, receive)
        start = self._journal.now()
        try:
            status, headers, pieces = await self._answer(call)
        except Refusal as refusal:
            status, headers, pieces = refused(refusal)
        except body.ClientGone:
            self._journal.answered(call, 499, start)
            return
        except Exception:  # a defect of ours: the client is told so, the journal has the rest
            self._journal.fault(call)
            status, headers, pieces = refused(Refusal(Kind.FAULT, "internal error of the server"))
        self._journal.answered(call, status, start)
        await send_answer(send, status, headers, pieces)

    async def _answer(self, call: Call) -> Answer:
        found = route(call.parts)
        if found is None:
            raise Refusal(Kind.UNKNOWN, f"there is nothing at /{'/'.join(call.parts):.200}")
        method, handler, is_open = found
        if not is_open:
            self._tokens.check(call.headers.get(b"authorization"))
        if call.method != method:
            allow = ((b"allow", method.encode()),)
            raise Refusal(Kind.WRONG_METHOD, f"{call.method:.20}: use {method} here", allow)
        return await handler(self, call)

    async def _infer(self, call: Call) -> Answer:
        name, version = call.versioned()
        model = self._repository.model(name, version)
        try:
            head, binary = await self._body(call)
            message = http_messages.infer_message(head)
            call.request = message.id
            given = http_messages.input_tensors(model, message, binary, most=self._limits.tensors)
            wanted, as_bytes = http_messages.binary_outputs(model, message)
            options = submission(message.parameters)
        except Refusal:
            self._repository.refused(name)
            raise
        future = asyncio.wrap_future(self._repository.submit(model, given, **options))
        answer = await answered(future, call.receive)
        outputs = model.select(answer, wanted)
        return 200, *http_messages.infer_answer(name, message.id, outputs, as_bytes)

    async def _body(self, call: Call) -> tuple[memoryview, memoryview]:
        limits = self._limits
        return await body.read(
            call.receive, call.headers, most=limits.body_bytes, seconds=limits.read_seconds
        )

    async def _live(self, call: Call) -> Answer:
        return 200, [], []

    async def _ready(self, call: Call) -> Answer:
        if not self._repository.ready:
            raise Refusal(Kind.CLOSING, "the server is stopping", ((b"retry-after", b"1"),))
        return 200, [], []

    async def _server(self, call: Call) -> Answer:
        facts = {"name": "spacetime", "version": __version__, "extensions": EXTENSIONS}
        return 200, JSON, [encode(facts)]

    async def _model(self, call: Call) -> Answer:
        return 200, JSON, [encode(self._repository.model(*call.versioned()).metadata())]

    async def _model_ready(self, call: Call) -> Answer:
        self._repository.model(*call.versioned())
        return await self._ready(call)

    async def _config(self, call: Call) -> Answer:
        return 200, JSON, [encode(self._repository.model(*call.versioned()).config())]

    async def _stats(self, call: Call) -> Answer:
        names = None
        if call.parts[2] != "stats" or len(call.parts) > 3:
            names = [self._repository.model(*call.versioned()).tenant.name]
        return 200, JSON, [encode(statistics(self._repository, names))]

    async def _index(self, call: Call) -> Answer:
        head, _ = await self._body(call)
        message = http_messages.index_message(head)
        return 200, JSON, [encode(self._repository.index(ready=message.ready))]

    async def _load(self, call: Call) -> Answer:
        await self._change(call, self._repository.load)
        return 200, JSON, [b"{}"]

    async def _unload(self, call: Call) -> Answer:
        await self._change(call, self._repository.unload)
        return 200, JSON, [b"{}"]

    async def _change(self, call: Call, change: Callable[[str], None]) -> None:
        head, _ = await self._body(call)
        message = http_messages.load_message(head)
        refuse_code(message.parameters)
        call.model = call.parts[3]
        await asyncio.get_running_loop().run_in_executor(None, change, call.model)

    async def _openapi(self, call: Call) -> Answer:
        return 200, JSON, [encode(description())]


Handler = Callable[[Application, Call], Awaitable[Answer]]
Route = tuple[str, Handler, bool]  # method, what answers, whether it needs no token
_FIXED: dict[tuple[str, ...], Route] = {
    ("v2",): ("GET", Application._server, False),
    ("v2", "health", "live"): ("GET", Application._live, True),
    ("v2", "health", "ready"): ("GET", Application._ready, True),
    ("v2", "models", "stats"): ("GET", Application._stats, False),
    ("v2", "repository", "index"): ("POST", Application._index, False),
    ("openapi.json",): ("GET", Application._openapi, False),
}
_OF_MODEL: dict[tuple[str, ...], Route] = {
    (): ("GET", Application._model, False),
    ("ready",): ("GET", Application._model_ready, False),
    ("config",): ("GET", Application._config, False),
    ("stats",): ("GET", Application._stats, False),
    ("infer",): ("POST", Application._infer, False),
}
_CHANGES: dict[str, Route] = {
    "load": ("POST", Application._load, False),
    "unload": ("POST", Application._unload, False),
}


def route(parts: list[str]) -> Route | None:
    """What answers a path, given its parts."""
    if (fixed := _FIXED.get(tuple(parts))) is not None:
        return fixed
    if len(parts) == 5 and parts[:3] == ["v2", "repository", "models"]:
        return _CHANGES.get(parts[4])
    if len(parts) < 3 or parts[:2] != ["v2", "models"] or not parts[2]:
        return None
    rest = parts[3:]
    if rest[:1] == ["versions"]:
        rest = rest[2:] if len(rest) > 1 and rest[1] else ["versions"]
    return _OF_MODEL.get(tuple(rest))


async def answered(future: asyncio.Future[Any], receive: body.Receive) -> Any:
    """The future's result; a client that goes away meanwhile withdraws its request."""
    watch = asyncio.ensure_future(_disconnected(receive, future))
    try:
        return await future
    except asyncio.CancelledError:
        if watch.done():
            raise body.ClientGone from None
        raise
    except SpacetimeError as error:
        raise refusal_of(error) from error
    finally:
        watch.cancel()


async def _disconnected(receive: body.Receive, future: asyncio.Future[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()


def refused(refusal: Refusal) -> Answer:
    """The answer that tells a refusal."""
    headers = [*JSON, *refusal.headers]
    return refusal.kind.status, headers, [encode({"error": str(refusal)})]


async def send_answer(send: Send, status: int, headers: Headers, pieces: Pieces) -> None:
    """Sends an answer whole."""
    length = sum(map(len, pieces))
    headers = [*headers, (b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for place, piece in enumerate(pieces or [b""]):
        more = place < len(pieces) - 1
        await send({"type": "http.response.body", "body": piece, "more_body": more})
