"""Clients that go away, are slow, ask too much or may not ask; one server outlives them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from served_models import Gate
from serving import HERE, serving, tenant
from test_http import ONE, ask, change, infer
from test_tritonclient import client, row
from tritonclient.utils import InferenceServerException

from spacetime.server.http import listener
from spacetime.server.limits import Limits
from spacetime.server.repository import Repository
from spacetime.server.serve import Options, Server
from spacetime.server.tls import Tls
from spacetime.server.tokens import Tokens
from spacetime.session.session import Session
from spacetime.workload.workload import InputSpec, Workload

HELD = change(data=[101, 0, 0])


def raw(server: Server, *pieces: bytes, port: int = 0) -> socket.socket:
    """A connection on which these bytes were sent; HTTP's where no port is named."""
    connection = socket.create_connection(("127.0.0.1", port or server.http_port), timeout=60)
    for piece in pieces:
        connection.sendall(piece)
    return connection


def request(model: str, *inputs: dict[str, Any]) -> bytes:
    """An inference request as it goes over the wire."""
    data = json.dumps({"inputs": inputs}).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def dropped(server: Server, reason: str) -> int:
    return server.repository.session.counters().tenants["gate"].dropped[reason]


def wait_for_cancellation(server: Server) -> None:
    while dropped(server, "cancelled") < 1:  # ends with the test's own timeout, if never
        ask(server, "GET", "/v2/health/live")


def test_a_waiting_request_of_a_vanished_http_client_is_withdrawn(gate: type[Gate]) -> None:
    with serving(tenant("gate"), lanes=1) as own:
        held = own.repository.model("gate").tenant.submit(Gate.example + 101)
        assert gate.held.wait(60)
        gone = raw(own, request("gate", ONE))
        while own.repository.session.counters().tenants["gate"].pending < 2:
            pass
        gone.close()
        wait_for_cancellation(own)
        gate.open.set()
        held.result(60)
        counts = own.repository.session.counters().tenants["gate"]
        assert (counts.pending, own.repository.accepted) == (0, 0)


def test_a_waiting_request_of_a_grpc_call_that_is_cancelled_is_withdrawn(gate: type[Gate]) -> None:
    with serving(tenant("gate"), lanes=1) as own, client("grpc", own) as triton:
        held = own.repository.model("gate").tenant.submit(Gate.example + 101)
        assert gate.held.wait(60)
        call = triton.async_infer("gate", row("grpc", 0, 0, 0), lambda result, error: None)
        while own.repository.session.counters().tenants["gate"].pending < 2:
            pass
        call.cancel()
        wait_for_cancellation(own)
        gate.open.set()
        held.result(60)


def test_a_killed_client_harms_nobody(gate: type[Gate]) -> None:
    code = "import sys, socket; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
    code += "s.sendall(sys.stdin.buffer.read()); print('sent', flush=True); s.recv(1)"
    with serving(tenant("gate"), lanes=1) as own:
        pipe = subprocess.PIPE
        killed = subprocess.Popen(
            [sys.executable, "-c", code, str(own.http_port)], stdin=pipe, stdout=pipe
        )
        assert killed.stdin is not None
        assert killed.stdout is not None
        killed.stdin.write(request("gate", HELD))
        killed.stdin.close()
        assert killed.stdout.readline() == b"sent\n"
        assert gate.held.wait(60)
        killed.kill()
        killed.wait()
        gate.open.set()
        assert infer(own, "gate", ONE)[0] == 200
        assert own.repository.drain(60)


def test_slow_and_half_open_clients_are_let_go() -> None:
    with serving(tenant("affine"), limits=Limits(read_seconds=0.2)) as own:
        silent = raw(own)
        half_head = raw(own, b"GET /v2 HTTP/1.1\r\nhost")
        half_body = raw(own, request("affine", ONE)[:-5])
        for connection in (silent, half_head, half_body):
            answer = everything(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'{"error":' in answer
        assert infer(own, "affine", ONE)[0] == 200


WIDE = InputSpec((1, 200_000), "FP32")


def test_a_client_that_takes_no_answer_is_let_go_and_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "GRACE_SECONDS", 0.2)
    limits = Limits(connections=1, read_seconds=2)
    with serving(tenant("affine", WIDE), limits=limits) as own:
        deaf = [unread(own)]
        while ask(own, "GET", "/v2")[0] == 503:  # there is room for one connection
            pass
        deaf.append(unread(own))
        while own.repository.session.counters().tenants["affine"].completed < 3:
            pass
        own.stop()
    assert "timeout graceful shutdown exceeded" in caplog.text
    assert own.repository.drain(0)
    for each in deaf:
        each.close()


def test_what_is_told_to_stop_before_it_runs_does_not_run() -> None:
    with Session("cpu") as session:
        repository = Repository(session, Workload((tenant("affine"),)), HERE)
        own = Server(repository, Options(http_port=0, grpc_port=0, metrics_port=0))
        own.stop()
        asyncio.run(own.run())


def unread(server: Server) -> socket.socket:
    """A connection on which an answer larger than what systems buffer is not read."""
    rows = np.ones((48, WIDE.shape[1]), np.float32).tobytes()
    one = {"name": "input_0", "shape": [48, WIDE.shape[1]], "datatype": "FP32"}
    one["parameters"] = {"binary_data_size": len(rows)}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    deaf = socket.create_connection(("127.0.0.1", server.http_port), timeout=60)
    deaf.sendall(
        b"POST /v2/models/affine/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"inference-header-content-length: %d\r\n\r\n" % (len(head) + len(rows), len(head))
    )
    deaf.sendall(head + rows)
    return deaf


def test_too_many_connections_too_large_heads_and_what_is_no_http() -> None:
    with serving(tenant("affine"), limits=Limits(connections=2)) as own:
        first, second = raw(own), raw(own)
        refused = everything(raw(own))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in refused
        first.close()
        second.close()
    with serving(tenant("affine")) as own:
        large = raw(own, b"GET /v2 HTTP/1.1\r\n", *[b"x: " + b"y" * 8000 + b"\r\n"] * 9)
        assert everything(large).startswith(b"HTTP/1.1 431 ")
        assert everything(raw(own, b"\x00\x01\x02\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        bomb = b"x" * 10
        for headers in ({"content_encoding": "br"}, {"content_encoding": "gzip"}):
            status, body, _ = ask(own, "POST", "/v2/models/affine/infer", bomb, **headers)
            assert status in {400, 415}
            assert body["error"]


def test_compressed_bodies_are_bounded_by_what_they_hold() -> None:
    import gzip  # noqa: PLC0415

    with serving(tenant("affine"), limits=Limits(body_bytes=10_000)) as own:
        bomb = gzip.compress(b" " * 1_000_000)
        assert len(bomb) < 10_000
        path = "/v2/models/affine/infer"
        status, body, _ = ask(own, "POST", path, bomb, content_encoding="gzip")
        assert status == 413
        assert "10000 bytes" in body["error"]


def test_tokens_open_everything_but_health(tmp_path: Path) -> None:
    token = "a-token-of-enough-characters"
    with serving(tenant("affine"), tokens=Tokens((b"another-long-token", token.encode()))) as own:
        assert ask(own, "GET", "/v2/health/ready")[0] == 200
        for path in ("/v2", "/v2/models/affine", "/openapi.json"):
            status, _, headers = ask(own, "GET", path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert ask(own, "GET", path, Authorization=f"Bearer {token}")[0] == 200
            assert ask(own, "GET", path, Authorization=f"Basic {token}")[0] == 401
        with client("grpc", own) as triton:
            assert triton.is_server_live()
            with pytest.raises(InferenceServerException, match="bearer token"):
                triton.infer("affine", row("grpc", 1, 2, 3))
            allowed = {"authorization": f"Bearer {token}"}
            assert triton.infer("affine", row("grpc", 1, 2, 3), headers=allowed)


def test_tls_on_every_port(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(tenant("affine"), tls=Tls(certificate, key)) as own:
        context = ssl.create_default_context(cafile=str(certificate))
        for port, path in ((own.http_port, "/v2"), (own.metrics_port, "/metrics")):
            plain = socket.create_connection(("127.0.0.1", port), timeout=60)
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                secure.sendall(head.encode())
                assert secure.recv(4096).startswith(b"HTTP/1.1 200 ")
        with tritonclient.grpc.InferenceServerClient(
            f"localhost:{own.grpc_port}", ssl=True, root_certificates=str(certificate)
        ) as triton:
            assert triton.is_server_ready()


def test_requests_sent_at_once_on_one_connection_are_answered_in_order(server: Server) -> None:
    wire = b"".join(request("affine", change(data=[n, 0, 0])) for n in range(5))
    connection = raw(server, wire)
    found = b""
    while found.count(b'"model_name"') < 5:
        found += connection.recv(65536)
    connection.close()
    values = [part.split(b"[", 1)[1].split(b",")[0] for part in found.split(b'"data":')[1:]]
    assert [float(value) for value in values] == [1, 3, 5, 7, 9]
