"""Priorities over the protocol: its levels count downwards, 1 the highest, inside a model."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import tritonclient.grpc
from process import connected, send, told
from served_models import Gate, Notes
from serving import serving, tenant
from test_tritonclient import row

from spacetime.policy import Policy
from spacetime.server.serve import Server
from spacetime.session.session import Session

# model, the protocol's priority; the number of a request is its place here
ASKED = [("plain", 3), ("other", 0), ("other", 1), ("plain", 0), ("plain", 1), ("other", 9)]
LEVELS = {"plain": 7, "other": 6}
STARTED = [4, 2, 3, 0, 1, 5]  # levels 8; 7, 7; 6, 6; -1


@contextmanager
def one_by_one() -> Iterator[Server]:
    """A server of one lane that runs one request a launch, held by the model `gate`."""
    tenants = [tenant(name, factory="notes", priority=level) for name, level in LEVELS.items()]
    policy = Policy(route="pinned", order="fifo", batch="one", lend=False, age_ns=None)

    def opened(_: Any) -> Session:
        return Session("cpu", lanes=1, policy=policy)

    with serving(tenant("gate"), *tenants, opened=opened) as own:
        Gate.held.clear()
        held = own.repository.model("gate").tenant.submit(Gate.example + 101)
        assert Gate.held.wait(60)
        Notes.seen.clear()
        yield own
        held.result(60)


def until_waiting(server: Server, requests: int) -> None:
    """Returns once so many requests, beside the one that holds the lane, were accepted."""
    counted = server.repository.session.counters
    while sum(each.pending for each in counted().tenants.values()) < requests + 1:
        pass


def over_http(server: Server, stack: ExitStack) -> Callable[..., Callable[[], object]]:
    def ask(model: str, number: int, **parameters: int) -> Callable[[], object]:
        connection: http.client.HTTPConnection = stack.enter_context(
            closing(connected(server.http_port))
        )
        send(connection, model, number, 0, 0, **parameters)
        return lambda: told(connection)

    return ask


def over_grpc(server: Server, stack: ExitStack) -> Callable[..., Callable[[], object]]:
    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
    stack.callback(client.close)

    def ask(model: str, number: int, **parameters: int) -> Callable[[], object]:
        answers: list[object] = []
        call = client.async_infer(
            model, row("grpc", number, 0, 0), lambda _, error: answers.append(error), **parameters
        )
        stack.callback(call.get_result if hasattr(call, "get_result") else lambda: None)
        return lambda: answers

    return ask


@pytest.mark.parametrize("way", [over_http, over_grpc])
def test_the_levels_of_a_model_are_around_its_own_priority(way: Any, gate: type[Gate]) -> None:
    with one_by_one() as own, ExitStack() as stack:
        ask = way(own, stack)
        answers = []
        for number, (model, priority) in enumerate(ASKED):
            named = {"priority": priority} if priority else {}
            answers.append(ask(model, number, **named))
            until_waiting(own, number + 1)
        gate.open.set()
        while len(Notes.seen) < len(ASKED):
            pass
        for answer in answers:
            answer()
    assert Notes.seen == [float(number) for number in STARTED]
