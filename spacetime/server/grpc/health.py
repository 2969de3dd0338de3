"""grpc.health.v1: whether the server, or a model by its name, takes requests.

What Kubernetes and load balancers probe. The messages are made like the protocol's own and not
taken from a package: generated code would be bound to one version of protobuf.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from spacetime.server.grpc import service as rpc
from spacetime.server.grpc.messages import HEALTH, SERVICE, message_class, parsed
from spacetime.server.refusal import Refusal, RefusalKind
from spacetime.server.repository import Repository
from spacetime.server.tokens import Tokens

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_WHOLE = ("", SERVICE)  # the names of the server as a whole
_Request = message_class("HealthCheckRequest", HEALTH)
_Response = message_class("HealthCheckResponse", HEALTH)
_ListRequest = message_class("HealthListRequest", HEALTH)
_ListResponse = message_class("HealthListResponse", HEALTH)


class Health:
    """The service grpc.health.v1 of one repository. It is made and called in the loop's thread.

    As over HTTP, the server's own health needs no token, and that of a model does.
    """

    def __init__(self, repository: Repository, tokens: Tokens, service: rpc.Service) -> None:
        self._repository = repository
        self._tokens = tokens
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._ended = False
        repository.on_change(self._tell)

    def handler(self) -> Any:
        """Returns the handler that a gRPC server dispatches calls of this service to."""
        service = f"{HEALTH}.Health"
        unary = self._service.unary
        return grpc.method_handlers_generic_handler(service, {
            "Check": unary(f"/{service}/Check", self._check, _Response, is_open=True),
            "List": unary(f"/{service}/List", self._list, _ListResponse, is_open=False),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, response_serializer=_Response.SerializeToString
            ),
        })  # fmt: skip

    def end(self) -> None:
        """Ends every watch, since no more changes will come."""
        self._ended = True
        self._wake()

    def _status(self, service: str) -> int | None:
        """Returns the status of the server, or of a tenant; None for any other name."""
        loaded = True if service in _WHOLE else self._repository.loaded(service)
        if loaded is None:
            return None
        return SERVING if loaded and self._repository.ready else NOT_SERVING

    def _allow(self, service: str, call: rpc.RpcCall) -> None:
        if service not in _WHOLE:
            self._tokens.check(call.headers.get(b"authorization"))

    async def _check(self, data: bytes, call: rpc.RpcCall) -> dict[str, Any]:
        service = parsed(_Request, data).service
        self._allow(service, call)
        status = self._status(service)
        if status is None:
            raise Refusal(
                RefusalKind.UNKNOWN, f"service {service!r:.80} is no model of this server"
            )
        return {"status": status}

    async def _list(self, data: bytes, call: rpc.RpcCall) -> dict[str, Any]:
        parsed(_ListRequest, data)
        names = ["", *(model["name"] for model in self._repository.index())]
        return {"statuses": {name: _Response(status=self._status(name)) for name in names}}

    async def _watch(self, data: bytes, context: Any) -> AsyncIterator[Any]:
        """Yields the status now and after each change, also of a service that may come later."""
        try:
            service = parsed(_Request, data).service
            self._allow(service, rpc.RpcCall(f"/{HEALTH}.Health/Watch", context))
        except Refusal as refusal:
            await context.abort(grpc.StatusCode[refusal.kind.code], str(refusal))
        said = None
        while not self._ended:
            # Taken before the status is read: a change in between sets this very event.
            changed = self._changed
            status = self._status(service) or SERVICE_UNKNOWN
            if status != said:
                said = status
                yield _Response(status=status)
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it every watch
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()
