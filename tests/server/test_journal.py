"""The journal: JSON lines that say which request, of which trace, ended how; and no more."""

from __future__ import annotations

import io
import json
from typing import Any

from serving import serving, tenant
from test_clients import everything, raw
from test_http import ONE, ask, change

from spacetime.server import journal
from spacetime.server.serve import Server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_request_with_its_id_and_trace(lines: io.StringIO) -> None:
    with serving(tenant("affine"), log_requests=True) as own:
        body = {"inputs": [ONE], "id": "seven"}
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert ask(own, "POST", "/v2/models/affine/infer", body, **traced)[0] == 200
        named = {"X_Request_Id": "mine", "traceparent": "no trace\tat all"}
        assert ask(own, "GET", "/v2/models/nobody", **named)[0] == 404
    first, second = read(lines)
    assert first["event"] == "request"
    assert (first["request_id"], first["status"], first["model"]) == ("seven", 200, "affine")
    assert (first["trace_id"], first["parent_id"]) == (TRACE, PARENT)
    assert first["ms"] > 0
    assert (second["request_id"], second["status"]) == ("mine", 404)
    assert "trace_id" not in second


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
