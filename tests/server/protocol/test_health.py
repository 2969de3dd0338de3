"""grpc.health.v1 as probes and load balancers speak it: now, and as it changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from served_models import Gate
from serving import serving, tenant

from spacetime.server.grpc.messages import HEALTH, SERVICE, message_class
from spacetime.server.serve import Server
from spacetime.server.tokens import Tokens

SERVING, NOT_SERVING, UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"  # field 1, by its number
NAMED = "team/net"


def request(service: str) -> bytes:
    """As any client writes it: field 1, a text."""
    text = service.encode()
    return b"\n%c%b" % (len(text), text) if text else b""


class Probe:
    """A client that knows the bytes only."""

    def __init__(self, server: Server, token: str = "") -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def check(self, service: str = "") -> Any:
        """The answer's bytes, or the code."""
        return self.call("Check", request(service))

    def call(self, name: str, data: bytes) -> Any:
        try:
            method = self.channel.unary_unary(f"/{HEALTH}.Health/{name}")
            return method(data, timeout=60, metadata=self.metadata)
        except grpc.RpcError as error:
            return error.code().name

    def watch(self, service: str = "") -> Any:
        """The answers as they come."""
        method = self.channel.unary_stream(f"/{HEALTH}.Health/Watch")
        return method(request(service), timeout=60, metadata=self.metadata)


@pytest.fixture
def own() -> Iterator[Server]:
    with serving(tenant(NAMED, factory="affine"), tenant("two-b", factory="affine")) as running:
        yield running


def test_the_server_and_each_model_by_its_name(own: Server) -> None:
    with Probe(own) as probe:
        for service in ("", SERVICE, NAMED, "two-b"):
            assert probe.check(service) == SERVING
        for service in ("nobody", "team", f"{NAMED} ", "grpc.health.v1.Nothing"):
            assert probe.check(service) == "NOT_FOUND"
        own.repository.unload(NAMED)
        assert [probe.check(one) for one in (NAMED, "two-b", "")] == [NOT_SERVING, SERVING, SERVING]
        own.repository.load(NAMED)
        assert probe.check(NAMED) == SERVING
        assert probe.call("Check", b"\xff\xff") == "INVALID_ARGUMENT"


def test_the_list_names_all(own: Server) -> None:
    own.repository.unload("two-b")
    with Probe(own) as probe:
        answer = message_class("HealthListResponse", HEALTH).FromString(probe.call("List", b""))
    found = {name: one.status for name, one in answer.statuses.items()}
    assert found == {"": 1, NAMED: 1, "two-b": 2}


def test_a_watch_tells_every_change_and_nothing_twice(own: Server) -> None:
    with Probe(own) as probe:
        of_model, of_server, of_nobody = map(probe.watch, (NAMED, "", "nobody"))
        assert [next(of_model), next(of_server), next(of_nobody)] == [SERVING, SERVING, UNKNOWN]
        own.repository.unload("two-b")
        own.repository.unload(NAMED)
        assert next(of_model) == NOT_SERVING
        own.repository.load(NAMED)
        assert next(of_model) == SERVING
        own.stop()
        assert [next(of_model), next(of_server)] == [NOT_SERVING, NOT_SERVING]
        for watched in (of_model, of_server, of_nobody):
            with pytest.raises(grpc.RpcError) as ended:
                next(watched)
            assert ended.value.code().name == "UNAVAILABLE"


def test_a_server_that_drains_is_not_serving(gate: type[Gate]) -> None:
    with serving(tenant("gate")) as own, Probe(own) as probe:
        held = own.repository.submit(own.repository.model("gate"), {"input_0": Gate.example + 101})
        assert gate.held.wait(60)
        watched = probe.watch()
        assert next(watched) == SERVING
        own.stop()
        assert next(watched) == NOT_SERVING
        assert [probe.check(), probe.check("gate")] == [NOT_SERVING, NOT_SERVING]
        gate.open.set()
        held.result(60)


def test_a_watch_that_is_cancelled_leaves_nothing(own: Server) -> None:
    with Probe(own) as probe:
        before = threading.active_count()
        for _ in range(20):
            watched = probe.watch()
            assert next(watched) == SERVING
            watched.cancel()
        assert probe.check() == SERVING
        assert threading.active_count() <= before + 2


def test_the_servers_health_needs_no_token_and_a_models_does() -> None:
    token = "a-token-of-enough-characters"
    with serving(tenant("affine"), tokens=Tokens((token.encode(),))) as own:
        with Probe(own) as probe:
            assert probe.check() == SERVING
            assert next(probe.watch()) == SERVING
            assert [probe.check("affine"), probe.check("nobody")] == ["UNAUTHENTICATED"] * 2
            assert probe.call("List", b"") == "UNAUTHENTICATED"
            with pytest.raises(grpc.RpcError) as refused:
                next(probe.watch("affine"))
            assert refused.value.code().name == "UNAUTHENTICATED"
        with Probe(own, token) as probe:
            assert probe.check("affine") == SERVING
            assert next(probe.watch("affine")) == SERVING


def test_the_official_client_lives_in_one_process_with_it(own: Server) -> None:
    """Skipped where there is none, or where its code is of another protobuf than is installed."""
    try:
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415
    except Exception as error:
        pytest.skip(f"grpcio-health-checking: {error}")
    with grpc.insecure_channel(f"127.0.0.1:{own.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=NAMED), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watched = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=60)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if hasattr(stub, "List"):
            assert {*stub.List(health_pb2.HealthListRequest(), timeout=60).statuses} == {
                "", NAMED, "two-b",
            }  # fmt: skip
