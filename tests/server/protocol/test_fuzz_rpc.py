"""Garbage over gRPC: a code that blames the client, never the server, and nothing stays behind."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import settled
from test_clients import raw
from test_http import ONE, infer

from spacetime.server.grpc.messages import METHODS, SERVICE, STREAM, message_class
from spacetime.server.serve import Server

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
Request = message_class("ModelInferRequest")
VALUES = struct.pack("<3f", 1, 2, 3)
BLAMELESS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def request(values: bytes | None = VALUES, **of_input: Any) -> Any:
    """A right request, changed."""
    made = Request(model_name="affine")
    fields = {"name": "input_0", "datatype": "FP32", "shape": [1, 3]} | of_input
    made.inputs.add(**fields)
    if values is not None:
        made.raw_input_contents.append(values)
    return made


@dataclass(frozen=True)
class Wire:
    """A server and a channel to it."""

    server: Server
    channel: grpc.Channel

    def call(self, data: bytes, name: str = "ModelInfer", timeout: float = 60) -> tuple[str, str]:
        """The code and its text; the server has nothing left to do afterwards."""
        try:
            self.channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=timeout)
            found = "OK", ""
        except grpc.RpcError as error:
            found = error.code().name, error.details()
        assert found[0] in BLAMELESS, found
        settled(self.server)
        return found

    def refusal(self, made: Any) -> str:
        """What a wrong request is told."""
        code, text = self.call(made.SerializeToString())
        assert code == "INVALID_ARGUMENT"
        return text

    def stream(self, parts: Iterable[bytes]) -> Any:
        """The answers as they come."""
        response = message_class("ModelStreamInferResponse").FromString
        method = self.channel.stream_stream(f"/{SERVICE}/{STREAM}", response_deserializer=response)
        return method(iter(parts), timeout=60)


@pytest.fixture(scope="module")
def wire(server: Server) -> Iterator[Wire]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield Wire(server, channel)


@given(name=st.sampled_from(METHODS), data=st.binary(max_size=60))
@FUZZ
def test_any_bytes_to_any_method(wire: Wire, name: str, data: bytes) -> None:
    wire.call(data, name)


@given(place=st.integers(0, 60), cut=st.integers(0, 9), what=st.binary(max_size=9))
@FUZZ
def test_a_right_request_with_anything_put_in_its_place(
    wire: Wire, place: int, cut: int, what: bytes
) -> None:
    data = request().SerializeToString()
    wire.call(data[:place] + what + data[place + cut :])


CONTENTS = ["bool", "int", "int64", "uint", "uint64", "fp32", "fp64"]


@given(
    shape=st.just([1, 3])
    | st.lists(st.sampled_from([-1, 0, 1, 3, -(2**63), 2**31, 2**62, 2**63 - 1]), max_size=4),
    raw_sizes=st.lists(st.sampled_from([0, 11, 12, 13, 24]), max_size=3),
    contents=st.none() | st.tuples(st.sampled_from(CONTENTS), st.integers(0, 4)),
    datatype=st.sampled_from(["FP32", "INT8", "BYTES", "BF16", "", "\0"]),
)
@FUZZ
def test_shapes_and_contents_that_do_not_fit(
    wire: Wire,
    shape: list[int],
    raw_sizes: list[int],
    contents: tuple[str, int] | None,
    datatype: str,
) -> None:
    made = request(None, shape=shape, datatype=datatype)
    made.raw_input_contents.extend(b"\0" * size for size in raw_sizes)
    if contents is not None:
        getattr(made.inputs[0].contents, f"{contents[0]}_contents").extend([1] * contents[1])
    code, _ = wire.call(made.SerializeToString())
    fits = (raw_sizes, contents) in (([12], None), ([], ("fp32", 3)))
    assert (code == "OK") == (fits and shape == [1, 3] and datatype == "FP32")


def test_refusals_name_the_field(wire: Wire) -> None:
    says = wire.refusal
    assert "inputs[0].datatype: must be FP32, got BYTES" in says(request(b"", datatype="BYTES"))
    strings = request(None, datatype="BYTES")
    strings.inputs[0].contents.bytes_contents.append(b"x")
    assert "inputs[0].datatype: must be FP32, got BYTES" in says(strings)
    assert "raw_input_contents[0]: 12 bytes are" in says(request(b"x"))
    two = request()
    two.raw_input_contents.append(VALUES)
    assert "raw_input_contents: must be one for each of 1, got 2" in says(two)
    both = request()
    both.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    assert "inputs[0].contents: is there, and so are raw_input_contents" in says(both)
    assert "inputs[0].shape: must be [batch, 3], got [-1, 3]" in says(request(shape=[-1, 3]))
    assert "[1, 1, 1, " in says(request(shape=[1] * 100_000))
    best = request()
    best.outputs.add(name="output_0").parameters["classification"].int64_param = 2
    assert "outputs[0].parameters.classification: classification is not" in says(best)
    assert wire.call(b"\xff")[1] == "request: is no ModelInferRequest"


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-6, 1e-4])
def test_a_deadline_that_is_over(wire: Wire, seconds: float) -> None:
    data = request().SerializeToString()
    assert wire.call(data, timeout=seconds)[0] in {"DEADLINE_EXCEEDED", "OK"}


PART = st.binary(max_size=30) | st.just(request().SerializeToString())


@given(parts=st.lists(PART, max_size=6))
@FUZZ
def test_a_stream_answers_everything_garbage_too_and_ends(wire: Wire, parts: list[bytes]) -> None:
    answers = list(wire.stream(parts))
    right = [part == request().SerializeToString() for part in parts]
    assert [not one.error_message for one in answers] == right
    settled(wire.server)


def test_a_stream_that_is_cut_or_left_open(wire: Wire) -> None:
    def stop_after_two() -> Iterator[bytes]:
        yield request().SerializeToString()
        yield b"\xff"
        raise RuntimeError("the client's own")

    with pytest.raises(grpc.RpcError):
        list(wire.stream(stop_after_two()))
    left = wire.stream([request().SerializeToString()] * 50)
    next(left)
    left.cancel()
    settled(wire.server)
    assert wire.call(request().SerializeToString())[0] == "OK"


@given(data=st.binary(min_size=1, max_size=80), polite=st.booleans())
@settings(FUZZ, max_examples=20)
def test_bytes_that_are_no_http2(wire: Wire, data: bytes, polite: bool) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if polite else b""
    with raw(wire.server, preface + data, port=wire.server.grpc_port):
        pass
    assert wire.call(request().SerializeToString())[0] == "OK"
    assert infer(wire.server, "affine", ONE)[0] == 200
