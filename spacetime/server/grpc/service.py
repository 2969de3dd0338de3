"""The protocol over gRPC, on the same loop and repository as HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property, partial
from typing import Any

import grpc

from spacetime.errors import SpacetimeError
from spacetime.server.answers import Answers
from spacetime.server.facts import EXTENSIONS, refuse_code
from spacetime.server.grpc import tensors
from spacetime.server.grpc.messages import (
    DATA_TYPES,
    METHODS,
    SERVICE,
    STREAM,
    message_class,
    parsed,
)
from spacetime.server.journal import Journal, request_id
from spacetime.server.limits import Limits
from spacetime.server.model import MAX_TIMEOUT_US, VERSION
from spacetime.server.parameters import submission
from spacetime.server.refusal import Refusal, RefusalKind, refusal_of
from spacetime.server.repository import Repository
from spacetime.server.statistics import statistics
from spacetime.server.tls import Tls
from spacetime.server.tokens import Tokens
from spacetime.server.trace import Trace, trace_of
from spacetime.session.audit import Sampled
from spacetime.version import __version__

_OPEN = ("ServerLive", "ServerReady")  # methods that need no token
_OVERHEAD_BYTES = 64 << 10  # of a message around its tensors
_MOST_BYTES = 2**31 - 1  # of any gRPC message
_METADATA_BYTES = 64 << 10  # of a call's metadata, as of an HTTP request's head
# A connection that is silent for _IDLE_MS is asked whether it lives, and closed where no answer
# comes within _GRACE_MS.
_IDLE_MS, _GRACE_MS = 30_000, 10_000


class RpcCall:
    """One gRPC call, as the journal notes it."""

    def __init__(self, path: str, context: Any) -> None:
        self.method = "gRPC"
        self.path = path
        self.model = ""
        self.request = ""
        self._context = context

    @cached_property
    def headers(self) -> dict[bytes, bytes]:
        """The call's metadata whose values are texts."""
        pairs = self._context.invocation_metadata() or ()
        return {k.encode(): v.encode() for k, v in pairs if isinstance(v, str)}

    @cached_property
    def trace(self) -> Trace | None:
        """The trace the call belongs to, with one span for every line of the journal."""
        return trace_of(self.headers)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline that the client set for the call; None where it set none."""
        remaining: float | None = self._context.time_remaining()
        return remaining


Method = Callable[[bytes, RpcCall], Awaitable[Any]]


class Service:
    """The methods of GRPCInferenceService, on a repository.

    Each takes a message and returns the answer's fields, or the answer; it raises Refusal.
    """

    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        tokens: Tokens,
        journal: Journal,
        answers: Answers,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._tokens = tokens
        self._journal = journal
        self._answers = answers

    def handler(self) -> Any:
        """Returns the handler that a gRPC server dispatches calls of this service to."""
        handlers = {name: self._unary(name) for name in METHODS}
        handlers[STREAM] = grpc.stream_stream_rpc_method_handler(
            self._stream,
            response_serializer=message_class("ModelStreamInferResponse").SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _unary(self, name: str) -> Any:
        method: Callable[[Any, RpcCall], Awaitable[Any]] = getattr(self, f"_{_snake(name)}")
        kind, response = message_class(f"{name}Request"), message_class(f"{name}Response")

        async def understood(data: bytes, call: RpcCall) -> Any:
            return await method(parsed(kind, data), call)

        return self.unary(f"/{SERVICE}/{name}", understood, response, is_open=name in _OPEN)

    def unary(self, path: str, method: Method, response: Any, *, is_open: bool) -> Any:
        """Returns the handler of one method, which answers with messages of class `response`.

        is_open: whether calls need no token.
        """
        return grpc.unary_unary_rpc_method_handler(
            partial(self._answer, path, method, response, is_open=is_open),
            response_serializer=response.SerializeToString,
        )

    async def _answer(
        self, path: str, method: Method, response: Any, data: bytes, context: Any, *, is_open: bool
    ) -> Any:
        call = RpcCall(path, context)
        start = self._journal.now()
        try:
            if not is_open:
                self._tokens.check(call.headers.get(b"authorization"))
            answer = await method(data, call)
        except Refusal as refusal:
            self._journal.answered(call, refusal.kind.status, start)
            await context.abort(grpc.StatusCode[refusal.kind.code], str(refusal))
        except asyncio.CancelledError:
            self._journal.answered(call, RefusalKind.GONE.status, start)
            raise
        except Exception:  # a defect of ours
            self._journal.fault(call)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error of the server")
        self._journal.answered(call, 200, start)
        return response(**answer) if isinstance(answer, dict) else answer

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """Yields an answer or an error for each request of a stream, in the requests' order."""
        kind = message_class("ModelInferRequest")
        response = message_class("ModelStreamInferResponse")
        call = RpcCall(f"/{SERVICE}/{STREAM}", context)
        try:
            self._tokens.check(call.headers.get(b"authorization"))
        except Refusal as refusal:
            await context.abort(grpc.StatusCode[refusal.kind.code], str(refusal))
        async for data in requests:
            start = self._journal.now()
            call.model = call.request = ""
            try:
                answer = response(infer_response=await self._model_infer(parsed(kind, data), call))
                status = 200
            except Refusal as refusal:
                answer = response(error_message=str(refusal))
                answer.infer_response.id = call.request
                status = refusal.kind.status
            self._journal.answered(call, status, start)
            yield answer

    async def _model_infer(self, request: Any, call: RpcCall) -> Any:
        call.model, call.request = request.model_name, request.id
        model = self._repository.model(request.model_name, request.model_version)
        try:
            given = tensors.input_tensors(model, request, most=self._limits.tensors)
            wanted = tensors.wanted_outputs(model, request)
            remaining_s = call.remaining_s
            if remaining_s is not None and remaining_s > MAX_TIMEOUT_US / 1e6:
                remaining_s = None
            parameters = tensors.parameters(request.parameters)
            options = submission(tensors.submission(parameters, remaining_s))
        except Refusal:
            self._repository.count_wrong(request.model_name)
            raise
        future = self._repository.submit(model, given, **options)
        if isinstance(future, Sampled):
            future.request = request_id(call)
        try:
            answer = await self._answers.result(future)
        except SpacetimeError as error:
            raise refusal_of(error) from error
        outputs = model.select(answer, wanted)
        return tensors.infer_response(request.model_name, VERSION, request.id, outputs)

    async def _server_live(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return {"live": True}

    async def _server_ready(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return {"ready": self._repository.ready}

    async def _model_ready(self, request: Any, call: RpcCall) -> dict[str, Any]:
        try:
            self._repository.model(request.name, request.version)
        except Refusal:
            return {"ready": False}
        return {"ready": self._repository.ready}

    async def _server_metadata(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return {"name": "spacetime", "version": __version__, "extensions": EXTENSIONS}

    async def _model_metadata(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return self._repository.model(request.name, request.version).metadata()

    async def _model_config(self, request: Any, call: RpcCall) -> dict[str, Any]:
        config = self._repository.model(request.name, request.version).config()
        for spec in (*config["input"], *config["output"]):
            spec["data_type"] = 1 + DATA_TYPES.index(spec["data_type"].removeprefix("TYPE_"))
        return {"config": config}

    async def _model_statistics(self, request: Any, call: RpcCall) -> dict[str, Any]:
        names = None
        if request.name:
            names = [self._repository.model(request.name, request.version).tenant.name]
        return statistics(self._repository, names)

    async def _repository_index(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return {"models": self._repository.index(ready=request.ready)}

    async def _repository_model_load(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return await self._change(request, call, self._repository.load)

    async def _repository_model_unload(self, request: Any, call: RpcCall) -> dict[str, Any]:
        return await self._change(request, call, self._repository.unload)

    async def _change(
        self, request: Any, call: RpcCall, change: Callable[[str], None]
    ) -> dict[str, Any]:
        refuse_code(request.parameters)
        call.model = request.model_name
        await asyncio.get_running_loop().run_in_executor(None, change, request.model_name)
        return {}


def grpc_server(handlers: Sequence[Any], limits: Limits) -> Any:
    """Returns a gRPC server of these services with the bounds of `limits`, without a port yet."""
    bounds = {
        "grpc.max_receive_message_length": min(limits.body_bytes + _OVERHEAD_BYTES, _MOST_BYTES),
        "grpc.max_send_message_length": -1,
        "grpc.max_metadata_size": _METADATA_BYTES,
        "grpc.keepalive_time_ms": _IDLE_MS,
        "grpc.keepalive_timeout_ms": _GRACE_MS,
        "grpc.so_reuseport": 0,  # a port in use is an error, not shared
    }
    server = grpc.aio.server(
        options=list(bounds.items()), maximum_concurrent_rpcs=limits.connections
    )
    server.add_generic_rpc_handlers(tuple(handlers))
    return server


def add_port(server: Any, address: str, tls: Tls | None) -> int:
    """Binds a gRPC server to `address`, host:port. Returns the port; 0 where it is not free."""
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        return int(server.add_secure_port(address, grpc.ssl_server_credentials((pair,))))
    except RuntimeError:
        return 0


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
