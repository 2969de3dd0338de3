"""`bench dispatch` runs and records what it says; how fast is its own business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacetime.benchmarks import bench_dispatch
from spacetime.benchmarks.bench_dispatch import GOALS


def test_dispatch_measures_every_way(tmp_path: Path) -> None:
    result = bench_dispatch.run(quick=True, out=tmp_path, as_json=True)
    written = json.loads((tmp_path / "dispatch.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (tmp_path / "dispatch.png").stat().st_size > 1000
    rows = {row["way"]: row for row in written["rows"]}
    assert {way for way, _ in GOALS} < set(rows)
    assert all(rows[way][key] > 0 for way, key in GOALS)
    for row in rows.values():
        assert row.get("p50_us", 0) <= row.get("p99_us", 0) <= row.get("max_us", 0)
    # A request that left something behind would cost at least a pointer.
    assert rows["memory over 200,000 requests"]["bytes_per_request"] < 8


@pytest.mark.parametrize(("p50_us", "word"), [(9.0, "met"), (11.0, "NOT met")])
def test_a_goal_is_told_met_or_not(p50_us: float, word: str) -> None:
    told = bench_dispatch.goal({"way": "native submit to known end", "p50_us": p50_us})
    assert told == f"p50_us <= 10: {word}"
    assert bench_dispatch.goal({"way": "asyncio batcher", "p50_us": p50_us}) is None
