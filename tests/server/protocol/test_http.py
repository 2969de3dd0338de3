"""The protocol over HTTP, spoken by hand: every answer and every refusal."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from serving import serving

from spacetime.server.serve import Server

ONE = {"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


def ask(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    sent = json.dumps(body) if isinstance(body, dict | list) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, sent, named, encode_chunked="Transfer-Encoding" in named)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    got = json.loads(data) if data else None
    return answer.status, got, {name.lower(): value for name, value in answer.getheaders()}


def infer(server: Server, model: str, *inputs: dict[str, Any], **fields: Any) -> tuple[int, Any]:
    status, body, _ = ask(server, "POST", f"/v2/models/{model}/infer", {"inputs": inputs} | fields)
    return status, body


def test_an_answer_in_json(server: Server) -> None:
    status, body = infer(server, "affine", ONE, id="seven")
    assert status == 200
    assert body == {
        "model_name": "affine", "model_version": "1", "id": "seven",
        "outputs": [{"name": "output_0", "datatype": "FP32", "shape": [1, 3], "data": [3, 5, 7]}],
    }  # fmt: skip


def test_nested_data_two_inputs_and_a_chosen_output(server: Server) -> None:
    left = {"name": "left", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [4, 3]]}
    right = {"name": "right", "shape": [2, 2], "datatype": "INT64", "data": [1, 1, 1, 1]}
    status, body = infer(server, "two", right, left, outputs=[{"name": "largest"}])
    assert status == 200
    assert body["outputs"] == [
        {"name": "largest", "datatype": "INT64", "shape": [2], "data": [1, 0]}
    ]


def test_what_the_server_and_its_models_say_of_themselves(server: Server) -> None:
    assert ask(server, "GET", "/v2")[1]["name"] == "spacetime"
    assert ask(server, "GET", "/v2/health/live")[0] == 200
    assert ask(server, "GET", "/v2/health/ready")[0] == 200
    status, body, _ = ask(server, "GET", "/v2/models/two")
    assert status == 200
    assert body["inputs"] == [
        {"name": "left", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "right", "datatype": "INT64", "shape": [-1, 2]},
    ]
    assert {spec["name"]: spec["shape"] for spec in body["outputs"]} == {
        "sum": [-1, 2], "largest": [-1],
    }  # fmt: skip
    assert ask(server, "GET", "/v2/models/two/versions/1/ready")[0] == 200
    assert ask(server, "GET", "/v2/models/two/config")[1]["max_batch_size"] == 16


def change(**fields: Any) -> dict[str, Any]:
    return ONE | fields


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "body: is not JSON"),
        ("[1]", "body: Expected `object`"),
        ({}, "inputs: is missing"),
        ({"inputs": [{"shape": [1], "datatype": "FP32"}]}, "inputs[0].name: is missing"),
        ({"inputs": [change(shape="x")]}, "inputs[0].shape: Expected `array`"),
        ({"inputs": [change(shape=[-1, 3])]}, "inputs[0].shape[0]"),
        ({"inputs": [change(shape=[1, 4])]}, "inputs[0].shape: must be [batch, 3], got [1, 4]"),
        ({"inputs": [change(shape=[0, 3])]}, "inputs[0].shape: must be [batch, 3]"),
        ({"inputs": [change(datatype="INT64")]}, "inputs[0].datatype: must be FP32, got INT64"),
        ({"inputs": [change(datatype="BYTES")]}, "inputs[0].datatype: must be FP32, got BYTES"),
        ({"inputs": [change(name="x")]}, "inputs[0].name: 'x' is no input; there are input_0"),
        ({"inputs": []}, "inputs: input_0 is missing"),
        ({"inputs": [ONE, ONE]}, "inputs[1].name: input_0 is given twice"),
        ({"inputs": [change(data=[1, 2])]}, "inputs[0].data: must be 3 values"),
        ({"inputs": [change(data=[[1, 2], [3]])]}, "inputs[0].data: must be values, flat"),
        ({"inputs": [change(data=["1", "2", "3"])]}, "inputs[0].data[0]: must be a number"),
        ({"inputs": [change(data=[1, {}, 3])]}, "inputs[0].data[1]: must be a number"),
        ({"inputs": [change(data=[1, 2, 1e39])]}, "inputs[0].data: holds a number that FP32"),
        ({"inputs": [change(datatype="BYTES", data=["x"])]}, "data[0]: must be a number"),
        ({"inputs": [change(shape=[2**63, 3])]}, "inputs[0].shape[0]: Expected `int` <= "),
        ({"inputs": [change(shape=[1] * 9999)]}, "inputs[0].shape: must be [batch, 3], got [1, "),
        ({"inputs": [change(data=None)]}, "binary_data_size: is missing"),
        ({"inputs": [ONE], "outputs": [{"name": "y"}]}, "outputs[0].name: 'y' is no output"),
        ({"inputs": [ONE], "parameters": {"timeout": "soon"}}, "parameters.timeout: must be"),
        ({"inputs": [ONE], "parameters": {"priority": -1}}, "parameters.priority: must be"),
        ({"inputs": [ONE], "parameters": {"sequence_id": 3}}, "sequences are not served"),
        ({"inputs": [change(parameters={"shared_memory_region": "r"})]}, "shared memory is not"),
        ("[" * 100_000, "body"),
        ('{"inputs": [{"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": '
         + "[" * 500 + "]" * 500 + "}]}", "inputs[0].data"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_a_400_that_names_the_field(server: Server, body: Any, says: str) -> None:
    status, answer, _ = ask(server, "POST", "/v2/models/affine/infer", body)
    assert status == 400
    assert says in answer["error"]
    assert "\n" not in answer["error"]
    assert len(answer["error"]) < 600


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v2/models/nobody", 404, None),
        ("GET", "/v2/models/affine/versions/2", 404, None),
        ("POST", "/v2/models/nobody/infer", 404, None),
        ("POST", "/v2/models/affine/ready/infer", 404, None),
        ("GET", "/nowhere", 404, None),
        ("GET", "/v2/models/affine/infer", 405, "POST, OPTIONS"),
        ("DELETE", "/v2", 405, "GET, HEAD, OPTIONS"),
        ("POST", "/v2/repository/models/nobody/load", 404, None),
    ],
)
def test_what_is_not_there(
    server: Server, method: str, path: str, status: int, allow: str | None
) -> None:
    got, body, headers = ask(server, method, path)
    assert (got, headers.get("allow")) == (status, allow)
    assert isinstance(body["error"], str)


def test_a_model_that_raises_is_the_only_fault(server: Server) -> None:
    assert infer(server, "breaks", change(data=[0, 0, 0]))[0] == 200
    status, body = infer(server, "breaks", change(data=[0, 0, 101]))
    assert status == 500
    assert "breaks: the model raised ValueError: too much" in body["error"]


def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    from spacetime.server.limits import Limits  # noqa: PLC0415

    with serving(limits=Limits(body_bytes=100)) as small:
        status, body, _ = ask(small, "POST", "/v2/models/affine/infer", b"x" * 101)
        assert status == 413
        assert "at most 100 bytes" in body["error"]
        status, _, _ = ask(small, "GET", "/v2")
        assert status == 200
