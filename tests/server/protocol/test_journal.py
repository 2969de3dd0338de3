"""The journal: JSON lines that say which request, of which trace, ended how; and no more."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from serving import serving, tenant
from test_clients import everything, raw
from test_http import ONE, ask, change
from test_tritonclient import client, row

from spacetime.server import journal
from spacetime.server.serve import Server
from spacetime.server.trace import trace_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_request_with_its_id_and_trace(lines: io.StringIO) -> None:
    with serving(tenant("affine"), log_requests=True) as own:
        body = {"inputs": [ONE], "id": "seven"}
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        status, _, answered = ask(own, "POST", "/v2/models/affine/infer", body, **traced)
        assert status == 200
        named = {"X_Request_Id": "mine", "traceparent": "no trace\tat all"}
        status, _, other = ask(own, "GET", "/v2/models/nobody", **named)
        assert status == 404
    first, second = read(lines)
    assert first["event"] == "request"
    assert (first["request_id"], first["status"], first["model"]) == ("seven", 200, "affine")
    assert (first["trace_id"], first["parent_id"]) == (TRACE, PARENT)
    assert first["ms"] > 0
    assert (second["request_id"], second["status"]) == ("mine", 404)
    assert "trace_id" not in second
    assert answered["traceparent"] == f"00-{TRACE}-{first['span_id']}-01"
    assert first["span_id"] != PARENT
    assert "x-request-id" not in answered
    assert other["x-request-id"] == "mine"
    assert "traceparent" not in other


@pytest.mark.parametrize(
    "given",
    [
        f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more", f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "",
    ],
)  # fmt: skip
def test_a_traceparent_that_is_none_does_not_count(given: str) -> None:
    assert trace_of({b"traceparent": given.encode()}) is None


def test_a_traceparent_of_a_later_version_counts() -> None:
    found = trace_of({b"traceparent": f"01-{TRACE}-{PARENT}-00-later".encode()})
    assert found is not None
    assert (found.trace, found.parent, found.flags) == (TRACE, PARENT, "00")


def test_hostile_ids_stay_on_their_line_and_are_cut(lines: io.StringIO) -> None:
    hostile = ['a\nb\r\n{"event": "forged"}', "x" * 10_000, "\u2028\x00\x1b[31m", "名" * 300]
    with serving(tenant("affine"), log_requests=True) as own:
        for name in hostile:
            status, told, _ = ask(
                own, "POST", "/v2/models/affine/infer", {"inputs": [ONE], "id": name}
            )
            assert (status, told["id"]) == (200, name)
        for given in (b"x" * 10_000, b"\xff\xfe\x80", b"a\tb"):
            wire = b"GET /v2/models/%s HTTP/1.1\r\nhost: x\r\nx-request-id: %s\r\n" % (
                b"m" * 3000, given,
            )  # fmt: skip
            answer = everything(raw(own, wire, b"connection: close\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert b"x-request-id" not in answer.lower()
    found = read(lines)
    assert [line["event"] for line in found] == ["request"] * 7
    assert [line["request_id"] for line in found[:4]] == [name[:200] for name in hostile]
    assert all(len(line) < 2000 for line in lines.getvalue().splitlines())


def test_a_grpc_call_with_its_id_and_trace(lines: io.StringIO) -> None:
    with serving(tenant("affine"), log_requests=True) as own, client("grpc", own) as triton:
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        triton.infer("affine", row("grpc", 1, 2, 3), request_id="eight", headers=traced)
    (line,) = read(lines)
    assert (line["request_id"], line["trace_id"], line["parent_id"]) == ("eight", TRACE, PARENT)


def test_by_default_only_faults_are_noted(server: Server, lines: io.StringIO) -> None:
    path = "/v2/models/breaks/infer"
    assert ask(server, "POST", path, {"inputs": [change(data=[1, 2, 3])]})[0] == 200
    assert ask(server, "POST", path, "{")[0] == 400
    assert ask(server, "POST", path, {"inputs": [change(data=[101, 2, 3])]})[0] == 500
    assert [(line["status"], line["path"]) for line in read(lines)] == [(500, path)]


def test_what_is_no_http_is_noted_as_a_line_too(server: Server, lines: io.StringIO) -> None:
    assert everything(raw(server, b"\x00\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert [line["event"] for line in read(lines)] == ["Invalid HTTP request received."]


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_stops_no_request(lines: io.StringIO) -> None:
    journal.write_to(Full())
    with serving(tenant("affine"), log_requests=True) as own:
        assert ask(own, "GET", "/v2")[0] == 200
