"""Methods over HTTP: HEAD is GET without the body, OPTIONS names what is allowed, others a 405."""

from __future__ import annotations

import http.client
import itertools
import urllib.error
import urllib.request

import pytest
from serving import serving, tenant
from test_clients import everything, raw
from test_http import ask

from spacetime.server.serve import Server
from spacetime.server.tokens import Tokens

READ = [
    *("/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/openapi.json"),
    *(f"/v2/models/affine{version}{what}"
      for version in ("", "/versions/1") for what in ("", "/ready", "/config", "/stats")),
]  # fmt: skip
WRITTEN = [
    *("/v2/models/affine/infer", "/v2/repository/index"),
    *("/v2/repository/models/affine/load", "/v2/repository/models/affine/unload"),
]
FIXED = {"content-type", "content-length", "vary", "content-security-policy", "retry-after"}


def told(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {k.lower(): v for k, v in answer.getheaders() if k.lower() in FIXED}


@pytest.mark.parametrize(
    "path", [*READ, "/nowhere", "/v2/models/nobody", "/v2/models/nobody/ready"]
)
def test_head_has_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    """On one kept connection, so that a body too many would be read as the next answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    for _ in range(2):
        connection.request("GET", path)
        got = connection.getresponse()
        body = got.read()
        connection.request("HEAD", path)
        head = connection.getresponse()
        assert head.read() == b""
        assert (head.status, told(head)) == (got.status, told(got))
        assert head.getheader("content-length") == str(len(body))
    connection.close()


def test_head_and_get_sent_at_once_are_answered_in_order(server: Server) -> None:
    wire = b"".join(
        b"%b /v2/models/affine HTTP/1.1\r\nhost: x\r\n%b\r\n" % (method, end)
        for method, end in ((b"HEAD", b""), (b"GET", b""), (b"HEAD", b"connection: close\r\n"))
    )
    found = everything(raw(server, wire))
    assert found.count(b"HTTP/1.1 200 OK") == 3
    assert found.count(b'"name":"affine"') == 1
    assert found.endswith(b"\r\n\r\n")


def test_head_of_the_metrics(server: Server) -> None:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    for method in ("HEAD", "GET"):
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            assert answer.headers["content-type"].startswith("text/plain")
            assert bool(answer.read()) == (method == "GET")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"))
    assert (refused.value.code, refused.value.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        *itertools.product(READ, ["GET, HEAD, OPTIONS"]),
        *itertools.product(WRITTEN, ["POST, OPTIONS"]),
    ],
)
def test_other_methods_are_told_which_are_allowed(server: Server, path: str, allow: str) -> None:
    status, body, headers = ask(server, "OPTIONS", path)
    assert (status, body, headers["allow"]) == (200, None, allow)
    others = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} - {*allow.split(", ")}
    for method in others:
        status, _, headers = ask(server, method, path)
        assert (status, headers["allow"]) == (405, allow)


def test_head_and_options_need_the_token_that_get_needs() -> None:
    with serving(tenant("affine"), tokens=Tokens((b"a-token-of-enough-characters",))) as own:
        for method in ("HEAD", "OPTIONS"):
            assert ask(own, method, "/v2/models/affine")[0] == 401
            assert ask(own, method, "/v2/health/ready")[0] == 200


def test_head_of_a_server_that_stops_says_so() -> None:
    with serving(tenant("affine")) as own:
        own.repository.closing = True
        for method in ("HEAD", "GET"):
            status, _, headers = ask(own, method, "/v2/health/ready")
            assert (status, headers["retry-after"]) == (503, "1")
