"""Everything at once, at random: clients that vanish, dawdle, cancel and hurry, full queues, models
that raise, leave and come back, plans that move; at the end the books of both sides agree."""

from __future__ import annotations

import io
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from process import connected, send, told
from serving import planned, serving, tenant
from test_clients import raw, request
from test_http import change
from test_metrics import values
from test_tritonclient import client, row
from tritonclient.utils import InferenceServerException

from spacetime.live.controller_thread import planning_on_one
from spacetime.live.planned_session import PlannedSession
from spacetime.server.limits import Limits
from spacetime.server.serve import Server

STAY, LEAVES = ("plain", "hurried", "breaks"), "fickle"
STATUSES = {
    "RESOURCE_EXHAUSTED": 429, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404, "INTERNAL": 500,
    "UNAVAILABLE": 503, "CANCELLED": 499,
}  # fmt: skip
Books = Counter[tuple[str, int | str]]  # requests by model, and status or what their client did
Once = Callable[[random.Random, Books], None]


class Client(threading.Thread):
    """Does one thing again and again until told, at random instants, and keeps books."""

    def __init__(self, once: Once, seed: int, done: threading.Event, pause_s: float) -> None:
        super().__init__(daemon=True)
        self._once, self._random, self._done, self._pause_s = (
            once,
            random.Random(seed),
            done,
            pause_s,
        )
        self.books: Books = Counter()
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            while not self._done.wait(self._random.expovariate(1 / self._pause_s)):
                self._once(self._random, self.books)
        except BaseException as error:
            self.error = error


def whom(chance: random.Random) -> tuple[str, float]:
    return chance.choice((*STAY, LEAVES)), float(chance.randrange(200))


def right(model: str, value: float, data: Any) -> bool:
    return bool(np.all(np.asarray(data) == (value if model == "breaks" else 2 * value + 1)))


def ask(server: Server) -> Once:
    """Over HTTP, on one connection; now and then with a timeout of its own."""
    connection = connected(server.http_port)

    def once(chance: random.Random, books: Books) -> None:
        model, value = whom(chance)
        hurry = {"timeout": chance.randrange(1, 3000)} if chance.random() < 0.3 else {}
        send(connection, model, value, value, value, **hurry)
        status, data = told(connection)
        assert status != 200 or right(model, value, data), (model, value, data)
        books[model, status] += 1

    return once


def vanish(server: Server, chance: random.Random, books: Books) -> None:
    """The whole request, or a part, and away."""
    model, value = whom(chance)
    wire = request(model, change(data=[value] * 3))
    part = chance.random() < 0.5
    raw(server, wire[: -chance.randrange(1, 20)] if part else wire).close()
    books[model, "part" if part else "gone"] += 1


def dawdle(server: Server, chance: random.Random, books: Books) -> None:
    """A body that never ends."""
    model, value = whom(chance)
    connection = raw(server, request(model, change(data=[value] * 3))[:-5])
    books[model, int(connection.recv(65536).split(b" ", 2)[1])] += 1
    connection.close()


def burst(triton: Any, chance: random.Random, books: Books) -> None:
    """Many at once over gRPC; some of them are cancelled."""
    model, value = whom(chance)
    ended, got = threading.Semaphore(0), []

    def note(result: Any, error: InferenceServerException | None) -> None:
        got.append((result, error))
        ended.release()

    how = {"timeout": 2000} if chance.random() < 0.2 else {}
    calls = [
        triton.async_infer(model, row("grpc", value, value, value), note, **how) for _ in range(12)
    ]
    for call in chance.sample(calls, chance.choice((0, 0, 6))):
        call.cancel()
    for _ in calls:
        assert ended.acquire(timeout=60)
    for result, error in got:
        if error is None:
            assert right(model, value, result.as_numpy("output_0"))
        status = 200 if error is None else STATUSES[error.status().removeprefix("StatusCode.")]
        books[model, "cancelled" if status == 499 else status] += 1


def come_and_go(server: Server) -> Once:
    """The tenant that leaves is unloaded and loaded, in turn."""
    connection = connected(server.http_port)

    def once(chance: random.Random, books: Books) -> None:
        for what in ("unload", "load"):
            connection.request("POST", f"/v2/repository/models/{LEAVES}/{what}", "{}")
            assert connection.getresponse().read() == b"{}"
            books["changes", what] += 1

    return once


def move(session: PlannedSession) -> Once:
    """The session moves to a plan for another load, and back."""
    planning = planning_on_one(session.profiles, session.plan.device, session.options)
    loads = [session.workload, session.workload.with_rates([400.0] * 4)]
    plans = [(planning(each), each) for each in loads]

    def once(chance: random.Random, books: Books) -> None:
        plans.reverse()
        session.apply(*plans[0])
        books["changes", "plan"] += 1

    return once


def mix(server: Server, seconds: float) -> Books:
    """So many seconds of all of it at once; the clients' books."""
    session = server.repository.session
    assert isinstance(session, PlannedSession)
    done = threading.Event()
    with client("grpc", server) as triton:
        clients = [
            Client(once, seed, done, pause_s)
            for seed, (once, pause_s) in enumerate([
                (ask(server), 0.003), (ask(server), 0.003), (partial(vanish, server), 0.02),
                (partial(dawdle, server), 0.1), (partial(burst, triton), 0.02),
                (come_and_go(server), 0.4), (move(session), 0.4),
            ])
        ]  # fmt: skip
        done.wait(seconds)
        done.set()
        for each in clients:
            each.join(60)
    failed = [each.error for each in clients if each.error is not None]
    if failed:
        raise failed[0]
    return sum((each.books for each in clients), Books())


def journal(lines: io.StringIO) -> Books:
    """The server's books: a line for each request."""
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return Counter(
        (one["model"], one["status"]) for one in found
        if one["event"] == "request" and one["path"].rsplit("/", 1)[1].lower().endswith("infer")
    )  # fmt: skip


def total(books: Books, model: str, *what: int | str) -> int:
    return sum(n for (of, how), n in books.items() if of == model and how in what)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="plans need two cores")
@pytest.mark.parametrize(
    "seconds",
    [4.0, pytest.param(300.0, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["short", "long"],
)
def test_the_books_of_server_and_clients_agree(lines: io.StringIO, seconds: float) -> None:
    tenants = (
        tenant("plain", factory="affine"), tenant("hurried", factory="affine", slo_ms=20.0),
        tenant("breaks"), tenant(LEAVES, factory="affine"),
    )  # fmt: skip
    limits = Limits(read_seconds=0.3)
    with serving(*tenants, queue=4, opened=planned, limits=limits, log_requests=True) as own:
        mine = mix(own, seconds)
        certain = sum(n for (of, how), n in mine.items() if of != "changes" and how != "cancelled")
        while journal(lines).total() < certain or own.repository.accepted:
            pass  # what was given up ends by itself, or the test with its own timeout
        theirs, counted = journal(lines), own.repository.session.counters().tenants
        shown = values(own)
        for model in (*STAY, LEAVES):
            surplus = {
                status: n - mine[model, status] for (of, status), n in theirs.items() if of == model
            }
            assert min(surplus.values()) >= 0, (model, surplus)
            gone = total(mine, model, "gone", "part")
            assert gone <= sum(surplus.values()) <= gone + mine[model, "cancelled"]
        for model in STAY:
            counts, wrong = counted[model], own.repository.wrong(model)
            seen = sum(n for (of, _), n in theirs.items() if of == model)
            asked = counts.accepted - 1  # but for the one that is asked when it is loaded
            slow = theirs[model, 408] - mine[model, 408]  # parts whose end came after their time
            assert asked + counts.refused + wrong == seen - (mine[model, "part"] - slow)
            assert (counts.pending, counts.refused) == (0, theirs[model, 429])
            assert wrong == theirs[model, 408]
            ended = [
                n for (name, of, _), n in shown.items()
                if of == model and name in {
                    "nv_inference_request_success", "nv_inference_request_failure",
                }
            ]  # fmt: skip
            assert sum(ended) == counts.accepted + counts.refused + wrong
            assert shown["nv_inference_pending_request_count", model, ""] == 0
    print({str(key): n for key, n in sorted(mine.items(), key=str)})
    became = {how for _, how in mine}
    assert {200, 404, 408, 429, 500, "gone", "part", "unload", "plan"} <= became
