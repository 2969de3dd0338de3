"""Devices: what the tables promise, an A30's own geometry, and devices of one's own from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from spacetime.cli.root import cli
from spacetime.devices import device_file, mig
from spacetime.devices import facts as devices
from spacetime.devices.facts import DEVICES, device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import PlanOptions, check_plan
from spacetime.planners.registry import PLANNERS, planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.workload.workload import Tenant, Workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "a100" / "device.yaml"


def profiled(name: str, units: tuple[int, ...]) -> Profiles:
    return Profiles(tuple(
        Point("m", name, "mig", size, batch, procs, ms, batch * procs / ms * 1000)
        for size in units for batch in (1, 4) for procs in (1, 2, 3)
        for ms in [(1 + 2 * batch / size) * (1 + 0.4 * (procs - 1))]
    ))  # fmt: skip


@pytest.mark.parametrize("facts", DEVICES.values(), ids=DEVICES)
def test_profile_tables_are_those_of_their_device(facts: devices.DeviceFacts) -> None:
    assert device(f"sim:{facts.name.upper()}") is facts
    if not facts.mig:
        return
    whole = max(facts.mig, key=lambda profile: profile.units)
    assert whole.units == facts.whole("mig") == facts.geometry.compute
    for profile in facts.mig:
        assert 0 < profile.memory_mib <= facts.memory_gib * 1024
        assert profile.sms <= facts.sms
        assert profile.name.startswith(f"{profile.units}g.")
        assert profile.most >= 1
    for shape in facts.geometry.shapes:
        assert facts.mig_profile(shape.units).shape == shape
    sizes = [profile.memory_mib for profile in sorted(facts.mig, key=lambda p: p.shape.memory)]
    assert sizes == sorted(sizes)


def test_an_a30_has_four_slices_of_both() -> None:
    facts = device("a30-24gb")
    assert mig.multisets(facts.geometry) == {
        (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1), (2,), (2, 1), (2, 1, 1), (2, 2), (4,),
    }  # fmt: skip
    assert mig.arrange((1, 2, 1), facts.geometry) is not None
    assert mig.arrange((4, 1), facts.geometry) is None


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_keep_to_the_geometry_of_an_a30(name: str) -> None:
    facts, profiles = device("a30-24gb"), profiled("a30-24gb", (1, 2, 4))
    load = Workload(tuple(Tenant(f"t{n}", "m", 60, 250 + 60 * n) for n in range(5)))
    try:
        plan = planner(name).plan(load, profiles, facts, PlanOptions())
    except InfeasibleError as error:  # those of MPS percentages
        assert error.bound == "profile"  # noqa: PT017
        return
    assert not check_plan(plan, load, profiles, facts)
    assert all(sum(part.units for part in gpu.partitions) <= 4 for gpu in plan.gpus)


def test_a_file_is_taken_wherever_a_name_is(tmp_path: Path) -> None:
    facts = device_file.device_named(str(EXAMPLE))
    assert facts.geometry == mig.WIDE
    assert device(facts.name) == facts
    write_profiles(tmp_path / "p.csv", profiled(facts.name, (1, 2, 3, 4, 7)))
    (tmp_path / "w.yaml").write_text("tenants: [{name: a, model: m, slo_ms: 50, rate_rps: 300}]")
    load, points, plan = (str(tmp_path / name) for name in ("w.yaml", "p.csv", "plan.json"))
    common = ["--profiles", points, "--device", str(EXAMPLE)]
    for words in (
        ["plan", load, *common, "--out", plan],
        ["plan", load, *common, "--export", "mig-parted"],
        ["simulate", plan, "--workload", load, *common, "--duration", "1"],
        ["compare", load, *common, "--planner", "parvagpu", "--duration", "1"],
    ):
        found = CliRunner().invoke(cli, words)
        assert found.exit_code == 0, found.output
        assert facts.name in found.output or words[0] != "simulate"


ROW = "{units: 1, memory_slices: 1, starts: [0], memory_gib: 1, sms: 2}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "device: must be fields and values, got None"),
        ("[", "is not YAML"),
        ("{sms: 1, memory_gib: 1}", "device: name is missing"),
        ("{name: x, sms: 1, memory_gib: 1, smss: 1}", "device: smss is not a field here"),
        ("{name: '', sms: 1, memory_gib: 1}", "name: must be a text"),
        ("{name: x, sms: 1.5, memory_gib: 1}", "sms: must be a whole number from 1"),
        ("{name: x, sms: 1, memory_gib: .nan}", "memory_gib: must be a number above 0"),
        ("{name: x, sms: 1, memory_gib: 1, tflops: {fp17: 1}}", "tflops: fp17 is not a field"),
        ("{name: x, sms: 1, memory_gib: 1, mig: 3}", "mig: must be a list"),
        ("{name: x, sms: 1, memory_gib: 1, mig: [{units: 1}]}", "mig[0]: memory_gib is missing"),
        (f"{{name: x, sms: 1, memory_gib: 1, mig: [{ROW}, {ROW}]}}", "mig: has two rows"),
        ("{name: a100-80gb, sms: 1, memory_gib: 1}", "name: a100-80gb is a known device"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UnsupportedError) as caught:
        device_file.device_named(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UnsupportedError, match=r"absent\.json: cannot be read"):
        device_file.device_named(str(tmp_path / "absent.json"))
