"""One connection, spoken byte by byte: however a request arrives, its answer is the same."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from serving import serving, tenant
from test_clients import everything, raw, request
from test_http import ONE, change

from spacetime.server.answers import Answers
from spacetime.server.http.exchange import Exchange
from spacetime.server.serve import Server

PATH = b"POST /v2/models/affine/infer HTTP/1."
BODY = json.dumps({"inputs": [ONE]}).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BODY[:7], BODY[7:], b""))
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
VALUES = [3.0, 5.0, 7.0]  # affine of ONE


def answer(connection: socket.socket) -> tuple[bytes, Any]:
    """Head and JSON of the next answer; an interim one is passed over."""
    found = b""
    while b"\r\n\r\n" not in found.removeprefix(INTERIM):
        found += connection.recv(65536)
    head, _, body = found.removeprefix(INTERIM).partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head, json.loads(body)


@pytest.mark.parametrize(
    "pieces",
    [
        (PATH + b"1\r\n" + LENGTH + b"\r\n" + BODY,),
        tuple(bytes([byte]) for byte in PATH + b"1\r\n" + LENGTH + b"\r\n" + BODY),
        (PATH + b"1\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKED,),
        (PATH + b"1\r\nexpect: 100-continue\r\n" + LENGTH + b"\r\n", BODY),
        (PATH.replace(b"affine", b"%61ffine") + b"1\r\n" + LENGTH + b"\r\n" + BODY,),
    ],
    ids=["whole", "byte by byte", "chunks", "expect", "escaped"],
)
def test_a_connection_is_asked_twice(server: Server, pieces: tuple[bytes, ...]) -> None:
    connection = raw(server)
    for _ in range(2):
        for piece in pieces:
            connection.sendall(piece)
        head, body = answer(connection)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\ndate: " in head
        assert body["outputs"][0]["data"] == VALUES
    connection.close()


def test_what_is_answered_is_freed_at_once(server: Server) -> None:
    """Garbage of many requests, collected together, would stall the loop for ten milliseconds."""
    connection = raw(server)
    gc.collect()
    gc.disable()
    try:
        before = exchanges()
        for _ in range(20):
            connection.sendall(PATH + b"1\r\n" + LENGTH + b"\r\n" + BODY)
            answer(connection)
        assert exchanges() < before + 5  # the last ones are still held by who answered them
    finally:
        gc.enable()


def exchanges() -> int:
    """How many are alive."""
    return sum(type(found) is Exchange for found in gc.get_objects())


@pytest.mark.parametrize("head", [b"0\r\n", b"1\r\nconnection: close\r\n"])
def test_a_connection_that_is_to_end_ends(server: Server, head: bytes) -> None:
    connection = raw(server, PATH + head + LENGTH + b"\r\n" + BODY)
    found = everything(connection)
    assert found.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\nconnection: close\r\n" in found


def test_a_large_answer_leaves_whole(server: Server) -> None:
    rows = 50_000  # more than one write takes
    tensor = {"name": "input_0", "shape": [rows, 3], "datatype": "FP32"}
    sent = struct.pack("<3f", 1, 2, 3) * rows
    given = tensor | {"parameters": {"binary_data_size": len(sent)}}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    lengths = (len(head), len(head) + len(sent))
    wire = b"1\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n" % lengths
    connection = raw(server, PATH + wire + b"connection: close\r\n\r\n" + head + sent)
    assert everything(connection).endswith(struct.pack("<3f", *VALUES) * rows)


def test_a_wrong_request_leaves_the_connection_usable() -> None:
    with serving(tenant("affine")) as own:
        connection = raw(own, request("affine", change(shape=[1, 4])))
        assert answer(connection)[0].startswith(b"HTTP/1.1 400 ")
        connection.sendall(request("affine", ONE))
        assert answer(connection)[1]["outputs"][0]["data"] == VALUES
        assert own.repository.wrong("affine") == 1
        connection.close()


def test_answers_of_one_launch_wake_the_loop_once() -> None:
    async def told() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        answers, wakes, found = Answers(loop), 0, []
        wake = loop.call_soon_threadsafe

        def counted(*call: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*call)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        futures: list[Future[int]] = [Future() for _ in range(16)]
        last = asyncio.ensure_future(answers.result(futures[-1]))
        for future in futures[:-1]:
            answers.tell(future, lambda ended: found.append(ended.result()))
        await asyncio.sleep(0)  # `last` waits
        launch = threading.Thread(target=lambda: [f.set_result(n) for n, f in enumerate(futures)])
        launch.start()
        launch.join()  # the loop cannot look before all have ended
        found.append(await last)
        return wakes, found

    assert asyncio.run(told()) == (1, list(range(16)))


def test_a_task_that_is_cancelled_withdraws_its_request() -> None:
    async def withdrawn() -> Future[int]:
        future: Future[int] = Future()
        task = asyncio.ensure_future(Answers(asyncio.get_running_loop()).result(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return future

    with pytest.raises(CancelledError):
        asyncio.run(withdrawn()).result(0)
