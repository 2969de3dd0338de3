"""A plan whose lanes are processes: they have its cores, and move under load with nothing lost."""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import replace

import psutil
import pytest
import torch
from chaos import Every
from models import X
from test_planned_session import CORES, PICTURE, filled, load, on, part, plan, profiles
from test_session_moves import APART, PROCESSES
from torch import Tensor

from spacetime.devices.device import open_device
from spacetime.errors import InvalidInput, PlanError
from spacetime.live.planned_session import PlannedSession

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")


def serving(session: PlannedSession) -> list[list[int]]:
    """The cores of each lane's process, in the order of the lanes; none where it rests."""
    return [psutil.Process(pid).cpu_affinity() if pid else [] for pid in session.lane_pids]


def test_a_plan_of_processes_moves_under_load_and_nothing_is_lost() -> None:
    workload, both = load("mlp", "conv"), [0, 1]
    asked: dict[str, list[tuple[Tensor, Future[Tensor]]]] = {"t0": [], "t1": []}
    seen = []
    with PlannedSession(APART, workload, profiles(), device="cpu", isolation="process") as session:
        models = filled(session, workload)
        assert serving(session) == [[0], [1]]

        def ask(chance: random.Random) -> None:
            name = chance.choice(["t0", "t1"])
            x = torch.full_like(X if name == "t0" else PICTURE, chance.random())
            asked[name].append((x, session.tenants[name].submit(x)))

        asking = Every(200, ask, seed=0)
        for each in (PROCESSES, APART):
            moved = session.apply(each)
            seen.append((moved.opened, moved.kept, moved.drained, serving(session)))
        asking.stop()
        with pytest.raises(PlanError, match="lane 0: is where the plan has it"):
            session.move_lane(0, [1])
    assert seen == [
        (2, 0, 2, [[], [], both, both]),  # two processes on one partition
        (0, 0, 2, [[0], [1], [], []]),  # the same lanes, with processes of their own again
    ]
    for name, model in models.items():
        xs, futures = zip(*asked[name], strict=True)
        with torch.no_grad():
            want = model(torch.cat(xs))
        got = torch.cat([future.result(0) for future in futures])
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    overall = session.report()["overall"]
    assert overall["offered"] == overall["completed"] == sum(map(len, asked.values()))
    assert not any(overall["dropped"].values())


def test_only_cores_are_a_plan_of_processes() -> None:
    whole = plan(part("p", on("t0", 4), units=132, kind="sm"), device="h200-141gb")
    points = profiles("h200-141gb", "sm", (132,))
    with pytest.raises(InvalidInput, match="isolation must be 'thread' for partitions of kind sm"):
        PlannedSession(whole, load("mlp"), points, device="fake:h200", isolation="process")


def test_shares_are_no_device_for_a_plan() -> None:
    divided = replace(open_device("cpu"), environments=({}, {}))
    with pytest.raises(PlanError, match="device cpu: its shares are lanes already"):
        PlannedSession(APART, load("mlp", "conv"), profiles(), device=divided)
