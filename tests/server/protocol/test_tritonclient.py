"""Triton's own clients, unchanged: HTTP, gRPC and both for asyncio, against the same server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from served_models import Gate
from serving import serving, tenant
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from spacetime.server.grpc import messages
from spacetime.server.serve import Server

KINDS = ["http", "grpc"]


def client(kind: str, server: Server) -> Any:
    module = getattr(tritonclient, kind)
    port = server.http_port if kind == "http" else server.grpc_port
    more = {"concurrency": 4} if kind == "http" else {}
    return module.InferenceServerClient(f"127.0.0.1:{port}", **more)


def tensor(kind: str, name: str, array: np.ndarray, datatype: str, **how: Any) -> Any:
    made = getattr(tritonclient, kind).InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **how)
    return made


def row(kind: str, *values: float, **how: Any) -> list[Any]:
    return [tensor(kind, "input_0", np.array([values], np.float32), "FP32", **how)]


@pytest.mark.parametrize("kind", KINDS)
def test_inference_and_everything_the_client_can_ask(kind: str, server: Server) -> None:
    before_ms = int(time.time() * 1e3)
    with client(kind, server) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("affine")
        assert not triton.is_model_ready("nobody")
        result = triton.infer("affine", row(kind, 1, 2, 3), request_id="r-1")
        np.testing.assert_array_equal(result.as_numpy("output_0"), [[3, 5, 7]])
        as_json = {"as_json": True} if kind == "grpc" else {}
        response = result.get_response(as_json=True) if kind == "grpc" else result.get_response()
        assert response["id"] == "r-1"
        assert triton.get_server_metadata(**as_json)["name"] == "spacetime"
        assert triton.get_model_metadata("two", **as_json)["inputs"][1]["datatype"] == "INT64"
        config = triton.get_model_config("two", **as_json)
        config = config["config"] if kind == "grpc" else config
        assert config["max_batch_size"] == 16
        assert config["input"][0]["data_type"] == "TYPE_FP32"
        stats = triton.get_inference_statistics("affine", **as_json)["model_stats"][0]
        assert int(stats["inference_count"]) >= int(stats["execution_count"]) >= 1
        assert int(stats["inference_stats"]["success"]["ns"]) > 0
        assert before_ms <= int(stats["last_inference"]) <= time.time() * 1e3


@pytest.mark.parametrize("kind", KINDS)
def test_every_datatype_arrives_and_leaves_as_it_is(kind: str, server: Server) -> None:
    a = np.array([[1.5, -2]], np.float16)
    b = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    c = np.array([[True, False]])
    with client(kind, server) as triton:
        result = triton.infer("halves", [
            tensor(kind, "input_0", a, "FP16"),
            tensor(kind, "input_1", b, "BF16"),
            tensor(kind, "input_2", c, "BOOL"),
        ])  # fmt: skip
        np.testing.assert_array_equal(result.as_numpy("output_0"), 2 * a)
        np.testing.assert_array_equal(result.as_numpy("output_1"), 2 * b)
        np.testing.assert_array_equal(result.as_numpy("output_2"), ~c)


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_outputs_and_large_tensors(kind: str, server: Server) -> None:
    rows = np.arange(60_000, dtype=np.float32).reshape(-1, 3)
    with client(kind, server) as triton:
        wanted = [getattr(tritonclient, kind).InferRequestedOutput("output_0")]
        large = [tensor(kind, "input_0", rows, "FP32")]
        result = triton.infer("affine", large, outputs=wanted, timeout=60_000_000, priority=1)
        np.testing.assert_array_equal(result.as_numpy("output_0"), 2 * rows + 1)


@pytest.mark.parametrize("how", [{"binary_data": False}, {"binary_data": True}])
def test_http_in_json_and_in_binary_and_compressed(how: dict[str, bool], server: Server) -> None:
    with client("http", server) as triton:
        wanted = [tritonclient.http.InferRequestedOutput("output_0", **how)]
        for compression in (None, "gzip", "deflate"):
            result = triton.infer(
                "affine", row("http", 1, 2, 3, **how), outputs=wanted,
                request_compression_algorithm=compression,
            )  # fmt: skip
            np.testing.assert_array_equal(result.as_numpy("output_0"), [[3, 5, 7]])


@pytest.mark.parametrize("kind", KINDS)
def test_refusals_name_the_field(kind: str, server: Server) -> None:
    with client(kind, server) as triton:
        for inputs, says in [
            (row(kind, 1, 2), r"inputs\[0\].shape: must be \[batch, 3\], got \[1, 2\]"),
            ([tensor(kind, "x", np.zeros((1, 3), np.float32), "FP32")], "'x' is no input"),
            ([tensor(kind, "input_0", np.zeros((1, 3), np.int32), "INT32")], "must be FP32"),
        ]:
            with pytest.raises(InferenceServerException, match=says) as refused:
                triton.infer("affine", inputs)
            assert refused.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
        with pytest.raises(InferenceServerException, match="not loaded") as refused:
            triton.infer("nobody", row(kind, 1, 2, 3))
        assert refused.value.status() in {"404", "StatusCode.NOT_FOUND", None}
        with pytest.raises(InferenceServerException, match="too much") as refused:
            triton.infer("breaks", row(kind, 101, 0, 0))
        assert refused.value.status() in {"500", "StatusCode.INTERNAL"}


@pytest.mark.parametrize("kind", KINDS)
def test_models_leave_and_come_back(kind: str) -> None:
    with serving(tenant("affine"), tenant("breaks")) as own, client(kind, own) as triton:
        triton.unload_model("affine")
        assert not triton.is_model_ready("affine")
        with pytest.raises(InferenceServerException, match="not loaded"):
            triton.infer("affine", row(kind, 1, 2, 3))
        as_json = {"as_json": True} if kind == "grpc" else {}
        index = triton.get_model_repository_index(**as_json)
        index = index["models"] if kind == "grpc" else index
        states = {one["name"]: one["state"] for one in index}
        assert states == {"affine": "UNAVAILABLE", "breaks": "READY"}
        triton.load_model("affine")
        assert triton.infer("affine", row(kind, 1, 2, 3)).as_numpy("output_0")[0, 0] == 3
        with pytest.raises(InferenceServerException, match="no tenant of the workload"):
            triton.load_model("nobody")
        with pytest.raises(InferenceServerException, match="workload file only"):
            triton.load_model("affine", config="{}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_and_a_full_queue_are_told_apart(kind: str, gate: type[Gate]) -> None:
    with serving(tenant("gate"), lanes=1, queue=1) as own, client(kind, own) as triton:
        waiting = {"http": lambda: triton.async_infer("gate", row(kind, 101, 0, 0))}
        held: list[Any] = []
        if kind == "http":
            held.append(waiting[kind]())
        else:
            triton.async_infer("gate", row(kind, 101, 0, 0), lambda result, error: None)
        assert gate.held.wait(60)
        with pytest.raises(InferenceServerException, match="dropped at its deadline") as late:
            triton.infer("gate", row(kind, 0, 0, 0), timeout=20_000)
        assert late.value.status() in {"504", "StatusCode.DEADLINE_EXCEEDED"}
        queued = own.repository.model("gate").tenant.submit(Gate.example)
        with pytest.raises(InferenceServerException, match="waiting already") as full:
            triton.infer("gate", row(kind, 0, 0, 0))
        assert full.value.status() in {"429", "StatusCode.RESOURCE_EXHAUSTED"}
        gate.open.set()
        queued.result(60)


def test_asyncio_clients(server: Server) -> None:
    async def http() -> None:
        async with tritonclient.http.aio.InferenceServerClient(
            f"127.0.0.1:{server.http_port}"
        ) as triton:
            results = await asyncio.gather(
                *(triton.infer("affine", row("http", n, 0, 0)) for n in range(50))
            )
            assert [r.as_numpy("output_0")[0, 0] for r in results] == [2 * n + 1 for n in range(50)]

    async def grpc() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(
            f"127.0.0.1:{server.grpc_port}"
        ) as triton:
            results = await asyncio.gather(
                *(triton.infer("affine", row("grpc", n, 0, 0)) for n in range(50))
            )
            assert [r.as_numpy("output_0")[0, 0] for r in results] == [2 * n + 1 for n in range(50)]

    asyncio.run(http())
    asyncio.run(grpc())


def test_a_grpc_stream_answers_in_order_and_survives_errors(server: Server) -> None:
    got: list[Any] = []
    with client("grpc", server) as triton:
        triton.start_stream(lambda result, error: got.append(error or result))
        for n in (1, 101, 2):
            triton.async_stream_infer("breaks", row("grpc", n, 0, 0))
        triton.stop_stream()  # after the answers
    assert [isinstance(one, InferenceServerException) for one in got] == [False, True, False]
    assert [got[i].as_numpy("output_0")[0, 0] for i in (0, 2)] == [1, 2]


def test_typed_contents(server: Server) -> None:
    import grpc  # noqa: PLC0415

    request = service_pb2.ModelInferRequest(model_name="two")
    left = request.inputs.add(name="left", datatype="FP32", shape=[1, 2])
    left.contents.fp32_contents.extend([1, 2])
    right = request.inputs.add(name="right", datatype="INT64", shape=[1, 2])
    right.contents.int64_contents.extend([3, 4])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{messages.SERVICE}/ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )
        answer = call(request)
    assert [one.name for one in answer.outputs] == ["sum", "largest"]
    np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], "f4"), [4, 6])


def test_our_messages_are_tritons_on_the_wire() -> None:
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    configs = model_config_pb2.DESCRIPTOR.message_types_by_name
    names = [n.partition(":")[0] for n in messages._MESSAGES.split("\n") if ":" in n]
    assert len(names) > 30
    for name in names:
        if "." in name or name.startswith(" "):
            continue
        other = theirs[name] if name in theirs else configs[name]
        for field in messages.message_class(name).DESCRIPTOR.fields:
            same = other.fields_by_name[field.name]
            assert (field.number, field.is_repeated) == (same.number, same.is_repeated), same
            if same.enum_type is None:
                assert field.type == same.type
            if field.message_type is not None:
                assert field.message_type.full_name == same.message_type.full_name
