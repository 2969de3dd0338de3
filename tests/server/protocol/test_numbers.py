"""Numbers in JSON: every value of every datatype arrives and leaves as it is, or is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http
from serving import serving, tenant
from test_http import ask
from test_tritonclient import client, tensor
from tritonclient.grpc import service_pb2

from spacetime.server.grpc import messages
from spacetime.server.serve import Server
from spacetime.workload.workload import DATATYPES, InputSpec

LIMITS = {
    f"{sign}INT{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("U", "") for bits in (8, 16, 32, 64)
}  # fmt: skip
LARGEST = {"FP16": 65504.0, "FP32": float(np.finfo(np.float32).max), "FP64": 1.7976931348623157e308,
           "BF16": 3.3895313892515355e38}  # fmt: skip
SMALLEST = {"FP16": 2.0**-24, "FP32": 2.0**-149, "FP64": 5e-324, "BF16": 2.0**-133}
FLOATS = ("FP16", "FP32", "FP64")
NUMPY = {name: np.dtype(name.lower().replace("fp", "float")) for name in (*LIMITS, *FLOATS)}
BEYOND = {"FP16": "65520", "BF16": "3.4e38", "FP32": "3.4028236e38", "FP64": "1e309"}


@pytest.fixture(scope="module")
def same() -> Iterator[Server]:
    """A server with a model of each datatype that gives back what it gets."""
    with serving(
        *(tenant(name, InputSpec((1, 4), name, "x"), factory="same") for name in DATATYPES)
    ) as own:
        yield own


def asked(server: Server, datatype: str, data: str, **fields: Any) -> tuple[int, Any]:
    """Status and data, or error, for a body whose data is this text."""
    one = {"name": "x", "shape": [1, 4], "datatype": datatype} | fields
    body = json.dumps({"inputs": [one | {"data": "@"}]}).replace('"@"', data)
    status, answer, _ = ask(server, "POST", f"/v2/models/{datatype}/infer", body)
    return status, answer["error"] if status != 200 else answer["outputs"][0]["data"]


@pytest.mark.parametrize("datatype", LIMITS)
def test_whole_numbers_keep_every_digit(same: Server, datatype: str) -> None:
    low, high = LIMITS[datatype]
    odd = min(2**53 + 1, high - 2)  # what passes through a float64 loses it
    for values in ([low, high, odd, 1], [high, high, 0, low], [0, 1, 2, 3], [high - 1] * 4):
        assert asked(same, datatype, json.dumps(values)) == (200, values)
        assert asked(same, datatype, json.dumps([values])) == (200, values)


@pytest.mark.parametrize("datatype", LIMITS)
def test_what_is_no_such_whole_number_is_refused(same: Server, datatype: str) -> None:
    low, high = LIMITS[datatype]
    says = f"inputs[0].data: {datatype} takes whole numbers from {low} to {high}"
    for wrong in (low - 1, high + 1, 2**64, -(2**63) - 1, 10**40, 1.5, 1e3, True, "NaN", math.nan):
        assert asked(same, datatype, json.dumps([0, wrong, 1, high])) == (400, says)


@pytest.mark.parametrize("datatype", LARGEST)
def test_floats_come_back_as_they_are(same: Server, datatype: str) -> None:
    most, least = LARGEST[datatype], SMALLEST[datatype]
    for values in ([most, -most, least, -least], [0.0, -0.0, 1.5, -2.0], [1, 2, 3, 4]):
        status, found = asked(same, datatype, json.dumps(values))
        assert (status, found) == (200, values)
        assert [math.copysign(1, one) for one in found] == [math.copysign(1, v) for v in values]


@pytest.mark.parametrize("datatype", LARGEST)
def test_numbers_beyond_a_datatype_are_refused_and_none_becomes_infinite(
    same: Server, datatype: str
) -> None:
    for wrong in ("1e999", "-1e309", "9" * 400, *(["1e39", "-1e39"] * (datatype != "FP64"))):
        status, says = asked(same, datatype, f"[1, 2, {wrong}, 3]")
        assert status == 400
        assert says.startswith("inputs[0].data")
        assert "beyond" in says or f"{datatype} cannot" in says
    assert asked(same, datatype, f"[{BEYOND[datatype]}, 1, 1, 1]")[0] == 400


@pytest.mark.parametrize("datatype", LARGEST)
@pytest.mark.parametrize("data", [
    '["NaN", "Infinity", "-Infinity", 1.5]', "[NaN, Infinity, -Infinity, 1.5]",
    '[[NaN,"Infinity" , -Infinity\\n,1.5]]',
])  # fmt: skip
def test_nan_and_infinities_are_texts_in_answers(same: Server, datatype: str, data: str) -> None:
    text = data.encode().decode("unicode_escape")
    assert asked(same, datatype, text) == (200, ["NaN", "Infinity", "-Infinity", 1.5])


@pytest.mark.parametrize("text", [
    '"nan"', '"inf"', '"+Infinity"', '"1"', '""', "nan", "inf", "Inf", "+Infinity", "NaN0", "-NaN",
    "null", "{}", "NaN NaN",
])  # fmt: skip
def test_other_texts_are_none_of_them(same: Server, text: str) -> None:
    status, says = asked(same, "FP32", f"[{text}, 1, 2, 3]")
    assert status == 400
    assert says.startswith(("inputs[0].data[0]: must be a number", "body: is not JSON"))


def test_a_bare_nan_outside_of_data_is_no_json(same: Server) -> None:
    one = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    for field in ("id", "parameters"):
        body = json.dumps({"inputs": [one], field: math.nan})
        status, answer, _ = ask(same, "POST", "/v2/models/FP32/infer", body)
        assert (status, answer["error"][:17]) == (400, "body: is not JSON")
    quoted = 'a [NaN, "Infinity] \\'
    body = json.dumps({"id": quoted, "inputs": [one | {"data": [1, math.inf, 2, math.nan]}]})
    status, answer, _ = ask(same, "POST", "/v2/models/FP32/infer", body)
    assert (status, answer["id"]) == (200, quoted)
    assert answer["outputs"][0]["data"] == [1, "Infinity", 2, "NaN"]


def test_true_and_false_are_no_numbers(same: Server) -> None:
    assert asked(same, "BOOL", "[true, false, true, true]") == (200, [True, False, True, True])
    assert asked(same, "BOOL", "[1, 0, 1, 1]") == (400, "inputs[0].data: BOOL takes true or false")
    says = 'inputs[0].data: FP32 takes numbers, "NaN", "Infinity" or "-Infinity"'
    assert asked(same, "FP32", "[true, 1, 2, 3]") == (400, says)


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("got", [False, True])
@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BOOL"])
def test_tritons_client_reads_back_what_it_sent(
    same: Server, datatype: str, sent: bool, got: bool
) -> None:
    if datatype == "BF16":
        if not (sent and got):
            pytest.skip("its client has BF16 as bytes only")
        array = np.array([[math.nan, math.inf, -math.inf, 1.5]], ml_dtypes.bfloat16)
    elif datatype in LIMITS:
        low, high = LIMITS[datatype]
        array = np.array([[low, high, high - 2, 1]], NUMPY[datatype])
    else:
        array = np.array([[math.nan, math.inf, -math.inf, LARGEST[datatype]]], NUMPY[datatype])
    with client("http", same) as triton:
        wanted = [tritonclient.http.InferRequestedOutput("output_0", binary_data=got)]
        given = [tensor("http", "x", array, datatype, binary_data=sent)]
        found = triton.infer(datatype, given, outputs=wanted).as_numpy("output_0")
    assert found.dtype == array.dtype
    if datatype == "BF16":
        found, array = found.astype(np.float32), array.astype(np.float32)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", ["UINT64", "INT64"])
def test_typed_contents_of_grpc_keep_every_digit(same: Server, datatype: str) -> None:
    low, high = LIMITS[datatype]
    values = [low, high, 2**53 + 1, 0]
    request = service_pb2.ModelInferRequest(model_name=datatype)
    one = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    getattr(one.contents, f"{datatype.lower()}_contents").extend(values)
    with grpc.insecure_channel(f"127.0.0.1:{same.grpc_port}") as channel:
        answer = channel.unary_unary(
            f"/{messages.SERVICE}/ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )(request)
    assert np.frombuffer(answer.raw_output_contents[0], datatype.lower()).tolist() == values


def test_null_is_the_same_as_absent(same: Server) -> None:
    one = {"name": "x", "shape": [1, 4], "datatype": "INT32", "data": [1, 2, 3, 4]}
    for extra in (
        {"id": None, "parameters": None, "outputs": None},
        {"parameters": {"timeout": None, "priority": None, "binary_data_output": None}},
        {"parameters": {"sequence_id": None}},
        {"outputs": [{"name": "output_0", "parameters": None}]},
        {"outputs": [{"name": "output_0", "parameters": {"binary_data": None}}]},
        {"inputs": [one | {"parameters": None}]},
        {
            "inputs": [
                one | {"parameters": {"binary_data_size": None, "shared_memory_region": None}}
            ]
        },
    ):
        body = {"inputs": [one]} | extra
        status, answer, _ = ask(same, "POST", "/v2/models/INT32/infer", body)
        assert (status, answer["outputs"][0]["data"]) == (200, [1, 2, 3, 4])
        assert "id" not in answer
    for required in ("name", "shape", "datatype"):
        body = {"inputs": [one | {required: None}]}
        status, answer, _ = ask(same, "POST", "/v2/models/INT32/infer", body)
        assert (status, answer["error"].split(":")[0]) == (400, f"inputs[0].{required}")
    assert ask(same, "POST", "/v2/models/INT32/infer", {"inputs": None})[0] == 400
    index = ask(same, "POST", "/v2/repository/index", {"ready": None})[1]
    assert len(index) == len(DATATYPES)
    for change in ("unload", "load"):
        at = f"/v2/repository/models/INT32/{change}"
        assert ask(same, "POST", at, {"parameters": None})[0] == 200
        assert ask(same, "POST", at, {"parameters": {"unload_dependents": None}})[0] == 200
