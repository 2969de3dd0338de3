"""The benchmark of moves: what it counts as a violation, and that each way runs."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from spacetime.benchmarks import bench_moves
from spacetime.models.loading import LoadedModel
from spacetime.profiles.profile import Point, Profiles
from spacetime.units import MS
from spacetime.workload.openloop import Sent
from spacetime.workload.rate_trace import RateTrace

CORES = len(os.sched_getaffinity(0))


def test_what_was_due_during_a_move_is_judged_by_itself() -> None:
    def one(due_ms: int, took_ms: int | None) -> Sent:
        late = None if took_ms is None else took_ms * MS
        return Sent(0, 0, due_ms * MS, 0, late, dropped="deadline" if took_ms is None else None)

    sent = [one(100, 5), one(1001, 5), one(1002, 60), one(1003, None), one(1500, 60)]
    move = {
        "outcome": "move", "at_s": 1.0, "plan_ms": 2.0, "prepare_ms": 1.0, "switch_ms": 0.5,
        "drain_ms": 0.5,
    }  # fmt: skip
    refused = {"outcome": "refused", "at_s": 1.4, "plan_ms": 200.0}
    row = bench_moves._judged(sent, 50.0, [move, refused], RateTrace(1.0, ((1.0,), (1.0,))))
    assert (row["offered"], row["answered"], row["dropped"]) == (5, 4, 1)
    assert row["attainment"] == 2 / 5
    assert row["attainment_by_step"] == [1.0, 1 / 4]
    assert (row["moves"], row["refused"]) == (1, 1)
    assert (row["due_during_moves"], row["violations_during_moves"]) == (3, 2)


def test_arrivals_follow_the_rates_of_each_step() -> None:
    trace = RateTrace(1.0, ((400.0, 100.0), (100.0, 400.0)))
    found = list(bench_moves._arrivals(trace, 0))
    assert found == sorted(found) == list(bench_moves._arrivals(trace, 0))
    first = [each.tenant for each in found if each.time_ns < trace.step_ns]
    assert 300 < first.count(0) < 500
    assert 50 < first.count(1) < 150


@pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")
@pytest.mark.parametrize("way", bench_moves.WAYS)
def test_every_way_answers_or_drops_what_it_is_sent(way: str) -> None:
    torch.manual_seed(0)
    requests = tuple((torch.randn(1, 6),) for _ in range(2))
    models = {f"t{n}": LoadedModel(nn.Linear(6, 3).eval(), requests) for n in range(2)}
    points = Profiles(tuple(
        Point("convolutions", f"cpu-{CORES}", "cores", units, batch, 1, batch / units**0.5,
              1000 * units**0.5)
        for units in sorted({1, CORES}) for batch in bench_moves.BATCHES
    ))  # fmt: skip
    load, _ = bench_moves._load(points, models["t0"], step_s=0.2, cycles=1)
    trace = RateTrace(0.2, ((50.0, 50.0), (300.0, 50.0), (50.0, 300.0)))
    arrivals = list(bench_moves._arrivals(trace, 0))
    row = bench_moves.MovesStage(load, points, models, trace, arrivals).row(way)
    assert row["offered"] == len(arrivals) == row["answered"] + row["dropped"]
    if way != "controller":
        assert row["moves"] == {"static": 0, "oracle": 2}[way]
