"""`spacetime serve --controller` as a process: load rises, the plan moves, answers stay right."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from process import Served, running, send, told, work_file

from spacetime.cli.root import cli
from spacetime.errors import PlanError

CORES = len(os.sched_getaffinity(0))
WORK = """
tenants:
  - {name: a, model: "served_models:affine", slo_ms: 10000, rate_rps: 4, example_inputs: [IN]}
  - {name: b, model: "served_models:affine", slo_ms: 10000, rate_rps: 4, example_inputs: [IN]}
""".replace("IN", "{shape: [1, 3], datatype: FP32}")
HEAD = "model,device,kind,units,batch,procs,latency_ms,throughput_rps,source"
OPENED = ("spacetime_move_lanes_total", "opened")

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """By its profile a core answers 50 a second, all of them any number: a rise opens a larger
    partition."""
    rows = [
        f"served_models:affine,cpu-{CORES},cores,{units},1,1,{ms},{1000 / ms},measured"
        for units, ms in ((1, 20), (CORES, 0.01))
    ]
    (tmp_path / "profiles.csv").write_text("\n".join([HEAD, *rows]))
    return work_file(tmp_path, WORK)


def watched(workload: Path) -> tuple[str, ...]:
    return ("--profiles", str(workload.parent / "profiles.csv"), "--controller", "--period", "0.2")


class Load(threading.Thread):
    """Asks one tenant again and again until told; `said` counts statuses and wrong answers."""

    def __init__(self, served: Served, model: str) -> None:
        super().__init__(daemon=True)
        self._connection, self._model = served.connection(), model
        self.done = threading.Event()
        self.said: Counter[str] = Counter()
        self.start()

    def run(self) -> None:
        while not self.done.is_set():
            value = self.said.total() % 1000
            send(self._connection, self._model, value, value, value)
            status, data = told(self._connection)
            right = status != 200 or data == [2 * value + 1] * 3
            self.said[str(status) if right else f"wrong: {data}"] += 1
        self._connection.close()


@pytest.mark.alone  # the rise is what this machine answers a second
def test_a_rise_moves_the_plan_while_every_request_is_answered(workload: Path) -> None:
    with running(workload, *watched(workload)) as served:
        first = served.metrics()
        assert first["spacetime_planned_units", ""] == 2
        assert first["spacetime_controller_running", ""] == 1
        assert not any(name == "spacetime_replans_total" for name, _ in first)
        loads = [Load(served, name) for name in "aabb"]
        while served.metrics()[OPENED] < 1:  # ends with the test's own timeout, if never
            assert all(load.is_alive() for load in loads)
        change = served.connection()
        for what in ("unload", "load"):
            change.request("POST", f"/v2/repository/models/b/{what}", "{}")
            assert change.getresponse().read() == b"{}"
        send(change, "b", 1, 1, 1)
        assert told(change) == (200, [3.0] * 3)
        for load in loads:
            load.done.set()
            load.join(60)
        now = served.metrics()
        served.process.terminate()
        lines = [*served.journal()]
        assert served.process.wait(60) == 0
    of_a, of_b = loads[0].said + loads[1].said, loads[2].said + loads[3].said
    assert set(of_a) == {"200"}
    assert set(of_b) <= {"200", "404", "503"}  # the last two while it was away
    assert now["nv_inference_request_success", "a"] == 1 + of_a["200"]  # and when it was loaded
    assert now["nv_inference_pending_request_count", "a"] == 0
    assert now["spacetime_planned_units", ""] == CORES
    granted = sorted(n for (name, _), n in now.items() if name == "spacetime_units")
    assert granted == [0, 0, CORES]  # the lanes that were left have no units any more
    assert now["spacetime_estimated_samples_per_second", "a"] > 4
    assert now["spacetime_planned_samples_per_second", "a"] > 50
    assert now["spacetime_last_replan_timestamp_seconds", ""] > 1.7e9
    moves = [line for line in lines if line["event"] == "replan" and line["outcome"] == "move"]
    counted = int(now["spacetime_replans_total", "move rise"])
    assert 1 <= counted <= len(moves)  # the last period may have ended after the metrics were read
    assert now[OPENED] == sum(line["opened"] for line in moves[:counted])


def test_a_controller_needs_profiles(workload: Path) -> None:
    asked = CliRunner().invoke(cli, ["serve", str(workload), "--device", "cpu", "--controller"])
    assert isinstance(asked.exception, PlanError)
    assert "--controller: give --profiles too" in str(asked.exception)
