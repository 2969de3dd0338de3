"""The library as its users call it, on real models, under every preset the demo compares."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, wait
from typing import Any

import pytest
import torch
from models import Branch, Latch, Picky, X, convnet, mlp
from torch import Tensor, nn

import spacetime as st

POLICIES = ["time-only", "space-only", "space-time"]
IDS = torch.zeros(1, 5, dtype=torch.long)


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_answer_is_the_models_own(policy: str) -> None:
    models: list[nn.Module] = [mlp(i) for i in range(4)] + [convnet(i) for i in range(3)]
    shapes = [(6,)] * 4 + [(1, 8, 8)] * 3
    rng = random.Random(0)
    with st.Session("cpu", policy=policy) as session:
        tenants = [
            session.add(m, example_inputs=(torch.randn(1, *s),))
            for m, s in zip(models, shapes, strict=True)
        ]
        asked = []
        for _ in range(300):
            i = rng.randrange(len(models))
            x = torch.randn(rng.choice([1, 1, 1, 2, 5, 40]), *shapes[i])
            asked.append((i, x, tenants[i].submit(x)))
        for i, x, future in asked:
            same(future.result(60), models[i](x).detach())
        report = session.report()
    assert report["overall"]["completed"] == 300
    assert report["overall"]["offered"] == 300


def test_calls_from_threads_and_asyncio_at_once() -> None:
    models = [mlp(i) for i in range(3)]
    with st.Session("cpu") as session:
        tenants = [session.add(m, example_inputs=(X,)) for m in models]

        def caller(i: int) -> None:
            for _ in range(50):
                x = torch.randn(2, 6)
                same(tenants[i](x), models[i](x).detach())

        async def awaiting() -> None:
            xs = torch.randn(60, 1, 6)
            answers = await asyncio.gather(*(tenants[k % 3].infer(xs[k]) for k in range(60)))
            for k, answer in enumerate(answers):
                same(answer, models[k % 3](xs[k]).detach())

        failures: list[BaseException] = []

        def guarded(i: int) -> None:
            try:
                caller(i)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        asyncio.run(awaiting())
        for thread in threads:
            thread.join()
        assert not failures


def test_tenants_come_and_go_while_others_run() -> None:
    stay = mlp(0)
    with st.Session("cpu") as session:
        tenant = session.add(stay, example_inputs=(X,), name="stay")
        stop = threading.Event()
        wrong: list[str] = []

        def load() -> None:
            while not stop.is_set():
                x = torch.randn(1, 6)
                if not torch.allclose(tenant(x), stay(x), atol=1e-4):
                    wrong.append("stay")

        thread = threading.Thread(target=load)
        thread.start()
        for round_ in range(4):
            model = mlp(10 + round_)
            guest = session.add(model, example_inputs=(X,), name="guest")
            x = torch.randn(3, 6)
            same(guest(x), model(x).detach())
            session.remove(guest)
            with pytest.raises(st.ClosedError, match="guest"):
                guest.submit(x)
        stop.set()
        thread.join()
    assert not wrong


def test_removing_waits_for_what_runs_and_refuses_what_waits() -> None:
    latch = Latch().eval()
    with st.Session("cpu", lanes=1) as session:
        gate = session.add(latch, example_inputs=(X,))
        runs = gate.submit(torch.ones(1, 6))
        assert latch.held.wait(30)
        waits = gate.submit(X)
        opener = threading.Timer(0.05, latch.open.set)
        opener.start()
        session.remove(gate)
        assert runs.done()
        same(runs.result(), torch.full((1, 6), 2.0))
        assert isinstance(waits.exception(30), st.ClosedError)


def test_a_callback_may_remove_its_tenant() -> None:
    with st.Session("cpu") as session:
        stay, guest = (session.add(mlp(i), example_inputs=(X,)) for i in range(2))
        removed: Future[None] = Future()
        guest.submit(X).add_done_callback(lambda _: removed.set_result(session.remove(guest)))
        removed.result(30)
        assert stay(X).shape == (1, 3)
        assert [*session.tenants] == ["tenant-0"]


def test_a_family_forms_and_explain_says_so() -> None:
    with st.Session("cpu") as session:
        for i in range(3):
            session.add(mlp(i), example_inputs=(X,), name=f"mlp-{i}")
        session.add(Branch().eval(), example_inputs=(X,), name="branch")
        text = session.explain()
    assert "family of 3: mlp-0, mlp-1, mlp-2" in text
    assert "family of 1: branch" in text
    assert "not exported" in text
    assert "granted as asked" in text


def test_data_dependent_control_flow_is_not_baked_in() -> None:
    with st.Session("cpu") as session:
        tenant = session.add(Branch().eval(), example_inputs=(torch.ones(1, 6),))
        same(tenant(torch.ones(2, 6)), torch.full((2, 6), 2.0))
        same(tenant(-torch.ones(2, 6)), torch.full((2, 6), -2.0))


def test_only_the_guilty_callers_of_a_fused_batch_fail() -> None:
    latch, models = Latch().eval(), [Picky(i).eval() for i in range(4)]
    with st.Session("cpu", lanes=1) as session:
        gate = session.add(latch, example_inputs=(X,))
        tenants = [session.add(m, example_inputs=(IDS,)) for m in models]
        held = gate.submit(torch.ones(1, 6))
        assert latch.held.wait(30)
        bad = torch.full((1, 5), 99)
        futures = [t.submit(bad if i == 2 else IDS) for i, t in enumerate(tenants)]
        latch.open.set()
        held.result(30)
        for i, future in enumerate(futures):
            if i == 2:
                with pytest.raises(st.ModelError, match=r"tenant-3.*out of range") as caught:
                    future.result(30)
                assert "\n" not in str(caught.value)
            else:
                same(future.result(30), models[i](IDS).detach())


def test_a_deadline_is_kept_while_another_request_holds_the_lane() -> None:
    latch = Latch().eval()
    with st.Session("cpu", lanes=1) as session:
        gate = session.add(latch, example_inputs=(X,))
        tenant = session.add(mlp(0), example_inputs=(X,), slo_ms=5000)
        held = gate.submit(torch.ones(1, 6))
        assert latch.held.wait(30)
        with pytest.raises(st.DeadlineExceeded):
            tenant.submit(X, deadline_ms=20).result(30)
        assert not held.done()
        latch.open.set()
        held.result(30)
        assert tenant.report()["dropped"]["deadline"] == 1


def test_a_full_queue_refuses_at_submit() -> None:
    latch = Latch().eval()
    with st.Session("cpu", lanes=1) as session:
        gate = session.add(latch, example_inputs=(X,), queue_limit=2)
        first = gate.submit(torch.ones(1, 6))
        assert latch.held.wait(30)
        waiting = [gate.submit(X) for _ in range(2)]
        with pytest.raises(st.QueueFull, match="tenant-0"):
            gate.submit(X)
        latch.open.set()
        wait([first, *waiting], 30)
        same(waiting[1].result(), X + 1)


def test_cancelling_a_waiting_request() -> None:
    latch = Latch().eval()
    with st.Session("cpu", lanes=1) as session:
        gate = session.add(latch, example_inputs=(X,))
        first = gate.submit(torch.ones(1, 6))
        assert latch.held.wait(30)
        second, third = gate.submit(X), gate.submit(X)
        assert second.cancel()
        latch.open.set()
        same(third.result(30), X + 1)
        assert second.cancelled()
        first.result(30)
        assert not first.cancel()


@pytest.mark.parametrize("drain", [True, False])
def test_close_resolves_every_future(drain: bool) -> None:
    latch = Latch().eval()
    session = st.Session("cpu", lanes=1)
    gate = session.add(latch, example_inputs=(X,))
    futures = [gate.submit(torch.ones(1, 6)) for _ in range(5)]
    assert latch.held.wait(30)
    opener = threading.Timer(0.05, latch.open.set)
    opener.start()
    session.close(drain=drain)
    opener.join()
    assert all(future.done() for future in futures)
    failed = [f for f in futures if isinstance(f.exception(), st.ClosedError)]
    assert len(failed) == (0 if drain else 4)
    session.close()
    with pytest.raises(st.ClosedError):
        gate.submit(X)
    with pytest.raises(st.ClosedError):
        session.add(mlp(0), example_inputs=(X,))


def test_an_error_inside_the_block_does_not_wait_for_the_queue() -> None:
    latch = Latch().eval()
    waiting: list[Future[Any]] = []

    def interrupted() -> None:
        with st.Session("cpu", lanes=1) as session:
            gate = session.add(latch, example_inputs=(X,))
            gate.submit(torch.ones(1, 6))
            assert latch.held.wait(30)
            waiting.extend(gate.submit(X) for _ in range(3))
            threading.Timer(0.05, latch.open.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(isinstance(f.exception(0), st.ClosedError) for f in waiting)


def test_a_callback_may_submit_and_may_fail() -> None:
    with st.Session("cpu") as session:
        tenant = session.add(mlp(0), example_inputs=(X,))
        chained: Future[Future[Any]] = Future()
        tenant.submit(X).add_done_callback(lambda _: chained.set_result(tenant.submit(X)))
        tenant.submit(X).add_done_callback(lambda _: 1 / 0)
        assert chained.result(30).result(30).shape == (1, 3)
        assert tenant(X).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"slo_ms": 0}, "slo_ms"),
        ({"slo_ms": -1}, "slo_ms"),
        ({"slo_ms": float("nan")}, "slo_ms"),
        ({"rate_rps": -1}, "rate_rps"),
        ({"weight": -1}, "weight"),
        ({"queue_limit": 0}, "queue_limit"),
        ({"name": ""}, "name"),
        ({"name": "taken"}, "name"),
        ({"example_inputs": ()}, "example_inputs"),
        ({"example_inputs": (torch.zeros(0, 6),)}, "inputs[0]"),
    ],
)
def test_bad_options_name_the_field(options: dict[str, Any], field: str) -> None:
    with st.Session("cpu") as session:
        session.add(mlp(0), example_inputs=(X,), name="taken")
        with pytest.raises(st.InvalidInput) as caught:
            session.add(mlp(1), **{"example_inputs": (X,), **options})
        assert caught.value.field == field
        assert len(session.tenants) == 1


def test_training_mode_and_strangers_are_refused() -> None:
    with st.Session("cpu") as session:
        with pytest.raises(st.InvalidInput, match=r"call model.eval\(\)"):
            session.add(mlp(0).train(), example_inputs=(X,))
        with pytest.raises(st.InvalidInput, match=r"a torch.nn.Module .*, got function"):
            session.add(lambda x: x, example_inputs=(X,))  # type: ignore[arg-type]
        tenant = session.add(mlp(0), example_inputs=(X,))
        with pytest.raises(st.InvalidInput, match="deadline_ms"):
            tenant.submit(X, deadline_ms=-1)
        session.remove(tenant)
        with pytest.raises(st.InvalidInput, match="stranger"):
            session.remove(tenant)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda:0"}, "cuda:0"),
        ({"device": "toaster"}, "toaster"),
        ({"lanes": 0}, "lanes=0"),
        ({"lanes": 4096}, "lanes=4096"),
        ({"lanes": [[4096]]}, r"lanes\[0\]"),
        ({"lanes": [[]]}, r"lanes\[0\]"),
        ({"policy": "fastest"}, "fastest"),
        ({"max_batch": 0}, "max_batch"),
    ],
)
def test_bad_sessions_name_the_argument(options: dict[str, Any], words: str) -> None:
    with pytest.raises((st.SpacetimeError, ValueError), match=words):
        st.Session(**options)


def test_a_huge_batch_is_answered_in_chunks() -> None:
    model = mlp(0)
    with st.Session("cpu", max_batch=4) as session:
        tenant = session.add(model, example_inputs=(X,))
        x = torch.randn(1001, 6)
        same(tenant(x), model(x).detach())


def script(body: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in an interpreter of its own, as a user would."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip


def test_an_interpreter_may_exit_with_work_in_flight() -> None:
    done = script(
        """
        import torch, spacetime as st
        from models import X, mlp
        session = st.Session("cpu")
        tenant = session.add(mlp(0), example_inputs=(X,))
        futures = [tenant.submit(torch.randn(16, 6)) for _ in range(500)]
        print("leaving")
        """
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "leaving", "")


def test_a_forked_child_is_told_and_does_not_hang() -> None:
    done = script(
        """
        import os, torch, spacetime as st
        from models import X, mlp
        session = st.Session("cpu")
        tenant = session.add(mlp(0), example_inputs=(X,))
        tenant(X)
        child = os.fork()
        if child == 0:
            try:
                tenant.submit(X)
            except st.ClosedError as error:
                os.write(1, f"{error}\\n".encode())
            session.close()
            os._exit(0)
        os.waitpid(child, 0)
        print(tenant(X).shape)
        session.close()
        """
    )
    assert done.returncode == 0, done.stderr
    assert "belongs to the parent process" in done.stdout
    assert "torch.Size([1, 3])" in done.stdout


def test_the_timeline_has_a_track_for_each_lane() -> None:
    with st.Session("cpu", timeline=True) as session:
        tenant = session.add(mlp(0), example_inputs=(X,), name="one")
        for _ in range(5):
            tenant(X)
        events = session.timeline()
        cores = len(session.partitions)
    launches = [event for event in events if event["ph"] == "X"]
    tracks = {e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert len(launches) == 5
    assert all(event["dur"] > 0 for event in launches)
    assert len([name for name in tracks if name.startswith("lane")]) == cores
