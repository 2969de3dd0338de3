"""The right-sizing report against counts by hand, and the command that prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from test_planners import A100, DEMANDS, point, profile_sets, tenant
from test_spacetime import CEILING, line, small

from spacetime.errors import InfeasibleError
from spacetime.planners.advise import Advice, advise
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.workload.workload import Workload


def test_small_tenants_share_one_device() -> None:
    found, plan = advise(small(7), line(), A100, CEILING)
    assert (found.alone_gpus, found.shared_gpus, len(plan.gpus)) == (7, 1, 1)
    assert found.pays
    assert found.saved == pytest.approx(6 / 7)
    need = found.needs[0]
    assert (need.kind, need.units, need.copies, need.devices) == ("mig", 1, 1, 1)
    # Within 400 ms four fill at 10 req/s, not eight; launches of four take 6 ms.
    assert need.device_busy == pytest.approx(10 * 6 / 4000)
    assert found.idle + found.stranded > 0.8
    assert sum(found.limits.values()) == 7


def test_a_tenant_that_fills_devices_gains_nothing() -> None:
    profiles = Profiles((point(7, 8, 20),))
    found, _ = advise(Workload((tenant("a", 700),)), profiles, A100, CEILING)
    assert (found.alone_gpus, found.shared_gpus, found.pays) == (2, 2, False)
    assert found.saved == 0
    assert found.stranded == 0
    assert found.idle == pytest.approx(2 - 700 / 400)
    assert found.limits == {"utilisation ceiling": 2}


@settings(max_examples=25, deadline=None)
@given(DEMANDS, profile_sets())
def test_sharing_never_takes_more_and_units_add_up(load: Workload, profiles: Profiles) -> None:
    try:
        found, plan = advise(load, profiles, A100, CEILING, planner("spacetime", nodes=50))
    except InfeasibleError:
        return
    assert isinstance(found, Advice)
    assert len(found.needs) == len(load.tenants)
    assert found.alone_gpus is None or found.shared_gpus <= found.alone_gpus
    assert -1e-9 <= found.stranded <= len(plan.gpus)
    assert -1e-9 <= found.idle <= len(plan.gpus) - found.stranded + 1e-9
    json.dumps(found.to_json())


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spacetime", "plan", *args, "--advise"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    load, points = tmp_path / "w.json", tmp_path / "p.csv"
    tenants = [{"name": f"t{n}", "model": "m", "slo_ms": 400, "rate_rps": 10} for n in range(3)]
    load.write_text(json.dumps({"tenants": tenants}))
    write_profiles(points, line())
    files = [str(load), "--profiles", str(points)]
    shown = run(*files).stdout
    assert "1 device shared (at least 1), 3 if each tenant has its own: sharing saves 67%" in shown
    data = json.loads(run(*files, "--json").stdout)
    assert (data["format"], data["shared_gpus"], data["pays"]) == ("spacetime.advice/1", 1, True)
    refused = run(*files, "--calm")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--advise: goes with" in refused.stderr
