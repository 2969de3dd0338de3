"""`bench serving` with our server: real processes, real answers, a record and a picture."""

from __future__ import annotations

import json
from pathlib import Path

from spacetime.benchmarks import bench_serving


def test_our_server_is_measured_and_recorded(tmp_path: Path) -> None:
    bench_serving.run(quick=True, out=tmp_path, as_json=True)
    found = json.loads((tmp_path / "serving.json").read_text())
    ours = [row for row in found["rows"] if row["server"] == "spacetime"]
    assert [row["connections"] for row in ours] == [1, 16]
    for row in ours:
        # No request is answered before its batch can be.
        assert found["batch_s"] * 1e3 <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["rps"] > 0
        assert 0 < row["client_us"] < row["p50_ms"] * 1e3
    assert {row["server"] for row in found["rows"]} | set(found["missing"]) == {
        "spacetime", "triton", "triton, no delay", "litserve", "batch limit", "client limit",
    }  # fmt: skip
    assert (tmp_path / "serving.png").stat().st_size > 1000
