"""The isolation certificate: what it says of disjoint cores, and that broken isolation fails it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from spacetime.cli import root
from spacetime.commands.verify import VerifyCommand, run
from spacetime.devices.device import open_device
from spacetime.errors import UnsupportedError
from spacetime.kernels import stress_cpu
from spacetime.verify.bounds import Bounds, broken
from spacetime.verify.certificate import NotIsolated, certificate, complaint
from spacetime.verify.cores import Cores
from spacetime.verify.measure import ProbedPair, ProbeEffort, Side

LITTLE = 2**20  # bytes of an operand
SIDE = Side(100.0, 500.0, 510.0)
GOOD = ProbedPair(0, 1, "compute", "memory", SIDE, SIDE, 0.99, 1.0, 1.1, 0.98, 50, 0)
pytestmark = pytest.mark.alone  # it is about what other work does to the caches and to time
ALLOWED = sorted(os.sched_getaffinity(0))
two_cores = pytest.mark.skipif(len(ALLOWED) < 2, reason="isolation is between two cores")


@pytest.fixture
def ground() -> Iterator[Cores]:
    lanes = [ALLOWED[:1], ALLOWED[1:2]]
    with closing(Cores(open_device("cpu"), lanes, memory_bytes=LITTLE)) as opened:
        yield opened


@pytest.mark.parametrize("kind", stress_cpu.KINDS)
@pytest.mark.parametrize("cores", [1, 2])
def test_a_stressor_does_the_work_it_states(kind: str, cores: int) -> None:
    launch, work = stress_cpu.stressor(kind, cores, memory_bytes=LITTLE)
    launch(3)
    floats = stress_cpu.CHUNK * cores
    assert work == (2 * cores * stress_cpu.SIDE**3 if kind == "compute" else 12 * floats)


def test_stressors_compute_what_they_claim() -> None:
    a, b = torch.randn(2, 2, 8, 8)
    out = torch.empty(2, 8, 8)
    stress_cpu.products(a, b, out, 2)
    torch.testing.assert_close(out, a @ b)
    x, y = torch.randn(2, 3, 4)
    total = torch.zeros(3, 4)
    stress_cpu.sums(x, y, total, 2, 2)  # rows 2 and 0
    torch.testing.assert_close(total[[0, 2]], (x + y)[[0, 2]])
    assert not total[1].any()
    with pytest.raises(ValueError, match="kind must be one of"):
        stress_cpu.stressor("network", 1)


@two_cores
def test_a_certificate_covers_every_ordered_pair_and_is_written(tmp_path: Path) -> None:
    wide = Bounds(private_held=0, private_p99=1e9, shared_held=0, shared_p99=1e9, busy=0)
    asked = VerifyCommand(
        device="cpu",
        rounds=1,
        launches=5,
        probe=("compute",),
        stressor=("cache", "memory"),
        bounds=wide,
        out=tmp_path,
        as_json=True,
        memory_bytes=LITTLE,
    )
    record = run(asked)
    written = json.loads((tmp_path / "verify.json").read_text())
    assert written == json.loads(json.dumps(record))
    assert written["format"] == "spacetime.verify/1"
    assert (tmp_path / "verify.png").stat().st_size > 1000
    assert [(r["on"], r["by"], r["stressor"]) for r in written["rows"]] == [
        (0, 1, "cache"), (0, 1, "memory"), (1, 0, "cache"), (1, 0, "memory")
    ]  # fmt: skip
    for row in written["rows"]:
        assert row["held_frac"] > 0
        assert row["alone"]["rate"] > 0
        assert row["looked"] == 10
        assert row["leaked"] == 0
    assert [p["granted"] for p in written["partitions"]] == [1, 1]
    assert all(p["home"] == p["asked"] for p in written["partitions"])


@two_cores
def test_work_that_leaves_its_partition_is_a_leak(ground: Cores) -> None:
    first, second = ground.partitions
    first.probe("compute", 3)
    assert first.where() <= first.home
    for task in first.team:
        os.sched_setaffinity(task, second.home)  # what a library that pins its own threads does
    first.probe("compute", 3)
    assert first.where() == second.home
    assert first.where() - first.home


@two_cores
def test_a_certificate_is_told_pair_by_pair_and_passes_only_when_complete(ground: Cores) -> None:
    wide = Bounds(private_held=0, private_p99=1e9, shared_held=0, shared_p99=1e9, busy=0)
    effort = ProbeEffort(rounds=1, launches=5, probes=("compute",), stressors=("compute",))
    seen: list[dict[str, Any]] = []
    record = certificate(ground, effort, wide, tell=seen.append)
    assert [len(each["rows"]) for each in seen] == [1, 2, 2]
    assert [each["passed"] for each in seen] == [False, False, True]
    assert seen[-1] == record


@two_cores
def test_two_partitions_on_one_core_break_the_bounds() -> None:
    with closing(Cores(open_device("cpu"), [ALLOWED[:1]] * 2, memory_bytes=LITTLE)) as ground:
        effort = ProbeEffort(rounds=3, launches=60, probes=("compute",), stressors=("compute",))
        record = certificate(ground, effort, Bounds())
    assert not record["passed"]
    assert record["overlaps"] == [[0, 1]]
    assert all(row["held_frac"] < 0.8 for row in record["rows"])


@two_cores
def test_a_partition_that_runs_on_more_than_it_was_granted_fails(ground: Cores) -> None:
    wide = Bounds(private_held=0, private_p99=1e9, shared_held=0, shared_p99=1e9, busy=0)
    effort = ProbeEffort(rounds=1, launches=5, probes=("compute",), stressors=("compute",))
    ground.partitions[0].granted = 0
    record = certificate(ground, effort, wide)
    assert [part["fits"] for part in record["partitions"]] == [False, True]
    assert not record["passed"]
    assert "partition 0 runs on 1, granted 0" in complaint(record)


@two_cores
def test_a_stressor_runs_until_it_is_stopped(ground: Cores) -> None:
    first, second = ground.partitions
    second.start("cache")
    first.probe("compute", 20)
    fed = second.stop()
    assert fed.launches >= 1
    assert 0.5 < fed.busy_frac <= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"held_frac": 0.5}, "held 0.50 < 0.9"),
        ({"p99_inflation": 2.0}, "p99 x2.00 > x1.5"),
        ({"leaked": 1}, "leaked in 1 of 50 looks"),
        ({"busy_frac": 0.5}, "stressor busy 0.50 < 0.8: nothing proved"),
        ({"probe": "memory", "held_frac": 0.5, "p99_inflation": 4.0}, None),
        ({"probe": "memory", "held_frac": 0.2}, "held 0.20 < 0.3"),
    ],
)
def test_a_pair_is_judged_by_the_bounds_of_what_it_shares(
    change: dict[str, Any], says: str | None
) -> None:
    found = broken(replace(GOOD, **change), Bounds(), frozenset({"compute", "cache"}))
    assert found == ([] if says is None else [says])


def test_one_lane_cannot_be_isolated_from_nobody() -> None:
    with pytest.raises(UnsupportedError, match="at least 2"):
        run(VerifyCommand(device="cpu", lanes=1))
    assert CliRunner().invoke(root.cli, ["verify", "--lanes", "1"]).exit_code == 2


def test_a_fake_devices_isolation_is_not_certified() -> None:
    with pytest.raises(UnsupportedError, match="a fake device's is assumed"):
        run(VerifyCommand(device="fake:h200"))


@two_cores
def test_a_broken_bound_ends_the_command_after_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = VerifyCommand(
        device="cpu",
        rounds=1,
        launches=5,
        probe=("compute",),
        stressor=("compute",),
        bounds=Bounds(private_held=1e9),
        memory_bytes=LITTLE,
    )
    with pytest.raises(NotIsolated, match="2 of 2 pairs break their bounds"):
        run(asked)
    shown = capsys.readouterr().out
    assert "FAILED: 2 of 2 pairs" in shown
    assert "Not isolated: memory bandwidth" in shown
