"""`bench goodput` with our server: real processes and models, a record, a picture; its books."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacetime.benchmarks import bench_goodput
from spacetime.errors import InvalidInput


@pytest.mark.slow
def test_our_server_is_measured_and_recorded(tmp_path: Path) -> None:
    bench_goodput.run(quick=True, out=tmp_path, as_json=True, tenants=[2], servers=["spacetime"])
    found = json.loads((tmp_path / "goodput.json").read_text())
    (fleet,) = found["fleets"]
    assert fleet["missing"] == {"triton": "not asked", "litserve": "not asked"}
    assert [(row["server"], row["load"]) for row in fleet["rows"]] == [
        ("spacetime", load) for load in found["loads"]
    ]
    for row in fleet["rows"]:
        ends = [row[end] for end in ("in_time", "late", "refused", "unanswered")]
        assert sum(ends) == row["offered"] > 0
        assert row["in_time"] + row["late"] > 0
        assert row["goodput_rps"] <= row["offered_rps"]
        assert row["p50_ms"] <= row["p99_ms"]
    assert (tmp_path / "goodput.png").stat().st_size > 1000


def test_every_end_of_a_request_is_counted_once() -> None:
    ms = 1_000_000
    one = {"statuses": [200, 200, 503, 0], "latencies_ns": [49 * ms, 51 * ms, ms, 0]}
    rounds = [one | {"late_ns": [0, 0, 0, ms], "cpu_s": 0.1}] * 2
    row = bench_goodput.summary(rounds, 2.0)
    counts = [row[end] for end in ("offered", "in_time", "late", "refused", "unanswered")]
    assert counts == [8, 2, 2, 2, 2]
    assert row["goodput_rps"] == 0.5
    assert row["goodput_of_rounds"] == [0.5, 0.5]
    assert row["cpu_ms"] == pytest.approx(50)
    none = bench_goodput.summary([one | {"statuses": [503] * 4, "late_ns": [0] * 4, "cpu_s": 0}], 1)
    assert none["p99_ms"] is None


def test_an_unknown_server_is_one_line() -> None:
    with pytest.raises(InvalidInput, match="servers"):
        bench_goodput.run(servers=["torchserve"])
