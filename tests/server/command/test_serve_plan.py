"""`spacetime serve --plan` as a process: what `spacetime plan` wrote runs as it says, or not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from process import refused, running, send, told, work_file

from spacetime.cli.root import cli

CORES = len(os.sched_getaffinity(0))
WORK = """
tenants:
  - {name: a, model: "served_models:affine", slo_ms: 10000, rate_rps: 40, example_inputs: [IN]}
  - {name: b, model: "served_models:affine", slo_ms: 10000, rate_rps: 40, example_inputs: [IN]}
""".replace("IN", "{shape: [1, 3], datatype: FP32}")
# A core answers 50 a second: by these, each tenant needs one of its own.
PROFILES = f"""model,device,kind,units,batch,procs,latency_ms,throughput_rps,source
served_models:affine,cpu-{CORES},cores,1,1,1,20,50,measured
"""

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A workload, and the options that name its plan and the profiles."""
    work = work_file(tmp_path, WORK)
    profiles, plan = tmp_path / "profiles.csv", tmp_path / "plan.json"
    profiles.write_text(PROFILES)
    command = ["plan", str(work), "--profiles", str(profiles), "--out", str(plan)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    return work, ("--plan", str(plan), "--profiles", str(profiles))


def test_the_plan_is_what_runs(planned: tuple[Path, tuple[str, ...]]) -> None:
    work, options = planned
    with running(work, *options) as served:
        found = served.metrics()
        units = {of: value for (name, of), value in found.items() if name == "spacetime_units"}
        assert sorted(units.values()) == [1, 1]  # without a plan one lane has every core
        for tenant, value in (("a", 1), ("b", 2)):
            connection = served.connection()
            send(connection, tenant, value, value, value)
            assert told(connection) == (200, [2 * value + 1] * 3)
        now = served.metrics()
        ran = {of: now["spacetime_launches_total", of] for of in units}
        # Each tenant is asked once for its outputs when it is loaded, and once here.
        assert list(ran.values()) == [2, 2], "each tenant has its own partition"


def test_a_wrong_plan_is_one_line_and_status_2(planned: tuple[Path, tuple[str, ...]]) -> None:
    work, options = planned
    path = Path(options[1])
    plan = json.loads(path.read_text())
    plan["gpus"][0]["partitions"][0]["tenants"][0]["tenant"] = "c"
    path.write_text(json.dumps(plan))
    assert "tenant: c is not in the workload" in refused(work, *options)
