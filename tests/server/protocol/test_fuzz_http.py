"""Garbage over HTTP: a 4xx that says why, never a fault, and nothing stays behind."""

from __future__ import annotations

import gzip
import itertools
import json
import select
import struct
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import serving, settled, tenant
from test_clients import everything, raw
from test_http import ONE, ask, infer

from spacetime.server.limits import Limits
from spacetime.server.serve import Server

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
PATH = "/v2/models/affine/infer"
RIGHT = json.dumps({"id": "i", "inputs": [ONE], "parameters": {"priority": 1}}).encode()
# What parsers, numpy and formatting have each stumbled over somewhere.
NASTY = st.sampled_from([
    b"NaN", b"-Infinity", b"1e999", b"-0.0", b"9" * 30, b"9" * 5000, b'"\\ud800"', b'"\\u0000"',
    b"\xff\xfe", b"\xed\xa0\x80", b"[" * 2000, b'{"a":' * 2000, b"[]", b"{}", b"null", b"true",
    b'"id":1,"id":2,', b"\x00", b"", b'"x"', b"[[1,2,3]]", b"[1,[2],3]", b"-1",
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = ["name", "shape", "datatype", "data", "parameters", "id", "outputs", "inputs"]


def refused_or_right(server: Server, body: bytes, path: str = PATH, **headers: str) -> int:
    """The status, which is never a fault; the server has nothing left to do afterwards."""
    status, answer, _ = ask(server, "POST", path, body, **headers)
    assert status == 200 or (400 <= status < 500 and isinstance(answer["error"], str)), answer
    settled(server)
    return status


@given(place=st.integers(0, len(RIGHT)), cut=st.integers(0, 40), what=NASTY | st.binary(max_size=9))
@FUZZ
def test_a_right_body_with_anything_put_in_its_place(
    server: Server, place: int, cut: int, what: bytes
) -> None:
    refused_or_right(server, RIGHT[:place] + what + RIGHT[place + cut :])


@given(field=st.sampled_from(FIELDS), value=JSON.map(json.dumps).map(str.encode) | NASTY)
@FUZZ
def test_any_value_of_any_field(server: Server, field: str, value: bytes) -> None:
    one: dict[str, Any] = dict.fromkeys(("id", "parameters", "outputs"), None)
    message = {"inputs": [ONE | {"parameters": {}}]} | one
    at = message if field in message else message["inputs"][0]
    at[field] = "@"
    kept = {name: of for name, of in message.items() if of is not None}
    refused_or_right(server, json.dumps(kept).encode().replace(b'"@"', value))


@given(body=JSON | st.builds(lambda inputs: {"inputs": inputs}, JSON))
@FUZZ
def test_any_json(server: Server, body: Any) -> None:
    text = json.dumps(body).encode()
    assert refused_or_right(server, text) >= 400
    for path in ("/v2/repository/index", "/v2/repository/models/nobody/load"):
        refused_or_right(server, text, path)


@given(
    shape=st.lists(st.sampled_from([-1, 0, 1, 3, 2**31, 2**32, 2**62, 2**63, 2**64]), max_size=5),
    data=st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6),
    size=st.none() | st.sampled_from([0, 12, 2**40, 2**62, 2**63, -1, 1.5, "12", True]),
)
@FUZZ
def test_shapes_whose_product_overflows(
    server: Server, shape: list[int], data: list[float] | None, size: Any
) -> None:
    parameters = {} if size is None else {"binary_data_size": size}
    one = ONE | {"shape": shape, "data": data, "parameters": parameters}
    body = json.dumps({"inputs": [one]}).encode()
    status = refused_or_right(server, body, Inference_Header_Content_Length=str(len(body)))
    assert status == 400 or shape in ([1, 3], [2, 3])


LENGTHS = st.integers(-5, 80).map(str) | st.sampled_from(["", "x", "1e3", "0x10", "9" * 30, " 1"])


@given(body=st.binary(max_size=60) | st.just(RIGHT), length=LENGTHS)
@FUZZ
def test_any_length_of_the_json_before_binary(server: Server, body: bytes, length: str) -> None:
    assert refused_or_right(server, body, Inference_Header_Content_Length=length) == 400


COMPRESS = st.sampled_from([gzip.compress, zlib.compress, bytes])


@given(
    pack=COMPRESS,
    encoding=st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, gzip", ""]),
    cut=st.integers(0, 20),
    more=st.binary(max_size=5),
)
@FUZZ
def test_any_compression(server: Server, pack: Any, encoding: str, cut: int, more: bytes) -> None:
    packed = pack(RIGHT)
    refused_or_right(server, packed[: len(packed) - cut] + more, Content_Encoding=encoding)


def test_a_tensor_behind_json_that_lies_about_it(server: Server) -> None:
    one = {k: v for k, v in ONE.items() if k != "data"} | {"parameters": {"binary_data_size": 12}}
    head = json.dumps({"inputs": [one]}).encode()
    values = struct.pack("<3f", 1, 2, 3)
    for tail in (b"", values[:11], values + b"x", values * 2):
        sent = {"Inference_Header_Content_Length": str(len(head))}
        assert refused_or_right(server, head + tail, **sent) == 400
    assert refused_or_right(server, head + values, **sent) == 200


CHUNKED = b"transfer-encoding: chunked\r\n"
WHOLE = b"%x\r\n%b\r\n0\r\n\r\n" % (len(RIGHT), RIGHT)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (CHUNKED, WHOLE, b"200"),
        (CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in RIGHT) + b"0\r\n\r\n", b"200"),
        (CHUNKED + b"content-length: 5\r\n", WHOLE, b"400"),
        (b"content-length: 5\r\n" + CHUNKED, WHOLE, b"400"),
        (b"content-length: 5\r\ncontent-length: 6\r\n", RIGHT, b"400"),
        (b"content-length: -1\r\n", RIGHT, b"400"),
        (b"content-length: x\r\n", RIGHT, b"400"),
        (b"content-length: 99999999999999999999\r\n", RIGHT, b"400"),
        (CHUNKED, b"fffffffffffffffffff\r\n", b"400"),
        (CHUNKED, b"z\r\n", b"400"),
        (CHUNKED, b"5\r\n12", b"408"),
        (b"content-length: 99\r\n", b"{", b"408"),
        (b"expect: 100-continue\r\ncontent-length: %d\r\n" % len(RIGHT), RIGHT, b"100"),
        (b"content-length: 99999999999\r\n", b"", b"413"),
        (CHUNKED, b"fff\r\n" + b" " * 0xFFF + b"\r\n", b"413"),
    ],
)  # fmt: skip
def test_bodies_framed_in_odd_ways(
    short: Server, headers: bytes, body: bytes, status: bytes
) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n" % (PATH.encode(), headers)
    answer = everything(raw(short, head, body))
    assert answer.startswith(b"HTTP/1.1 %b " % status), answer
    settled(short)
    assert infer(short, "affine", ONE)[0] == 200


def test_what_follows_a_refused_head_does_not_take_the_refusal_back(short: Server) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n" % PATH.encode()
    with raw(short, head) as connection:
        assert select.select([connection], [], [], 60)[0]  # it is refused
        for _ in range(20):
            connection.sendall(RIGHT)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
    settled(short)


def test_a_client_that_still_sends_too_much_reads_why(short: Server) -> None:
    for path, framing in itertools.product((PATH, "/v2/repository/index"), ("", "chunked")):
        chunked = {"Transfer_Encoding": framing} if framing else {}
        pieces = itertools.repeat(b" " * 40_000, 100) if framing else b" " * 4_000_000
        status, answer, _ = ask(short, "POST", path, pieces, **chunked)
        assert (status, answer["error"]) == (413, "body: at most 1000 bytes are taken")


@pytest.fixture(scope="module")
def short() -> Any:
    """A server that waits for a body 0.3 s, and takes 1 kB."""
    with serving(tenant("affine"), limits=Limits(read_seconds=0.3, body_bytes=1000)) as own:
        yield own
