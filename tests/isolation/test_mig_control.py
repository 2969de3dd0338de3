"""MIG instances: the fake keeps the driver's rules; plans become steps, and steps the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.cli.root import cli
from spacetime.devices import mig
from spacetime.devices.facts import device
from spacetime.devices.mig import Placement
from spacetime.errors import MigError, PlanError, UnsupportedError
from spacetime.isolation.mig_control import carry_out, destruction, placed, steps
from spacetime.isolation.mig_fake import FakeNvml
from spacetime.isolation.nvml import facts_of, open_nvml
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan, plan_json

H200 = device("h200-141gb")
IDS = {size: H200.mig_profile(size).id for size in mig.SIZES}
LAYOUTS = st.sampled_from(mig.layouts())


def plan(*layouts: tuple[Placement, ...], name: str = "h200-141gb") -> Plan:
    gpus = [
        GpuPlan(
            n,
            tuple(
                PartitionPlan(f"g{n}p{i}", "mig", units, (Assignment("a", 1, 1, 9),), start)
                for i, (units, start) in enumerate(layout)
            ),
        )
        for n, layout in enumerate(layouts)
    ]
    return Plan("hand", name, tuple(gpus))


def existing(nvml: FakeNvml, gpu: int = 0) -> set[tuple[int, int]]:
    return {(i.profile, i.start) for i in nvml.states()[gpu].instances}


def with_layout(layout: tuple[Placement, ...]) -> FakeNvml:
    nvml = FakeNvml()
    nvml.set_mode(0, on=True)
    for units, start in layout:
        nvml.create(0, IDS[units], start)
    return nvml


@given(st.lists(st.tuples(st.sampled_from(mig.SIZES), st.integers(0, 7)), max_size=8))
def test_the_fake_makes_exactly_the_layouts_the_geometry_allows(
    wanted: list[tuple[int, int]],
) -> None:
    nvml = with_layout(())
    made: list[Placement] = []
    for units, start in wanted:
        placement = Placement(units, start)
        if mig.fits([*made, placement]):
            assert nvml.create(0, IDS[units], start).start == start
            made.append(placement)
        else:
            why = "INSUFFICIENT_RESOURCES" if mig.is_legal(placement) else "INVALID_ARGUMENT"
            with pytest.raises(MigError, match=f"NVML_ERROR_{why}"):
                nvml.create(0, IDS[units], start)
    instances = nvml.states()[0].instances
    assert len({i.uuid for i in instances}) == len({i.id for i in instances}) == len(made)


def test_instances_get_the_numbers_the_driver_gives() -> None:
    nvml = with_layout((Placement(3, 4), Placement(2, 0), Placement(1, 2), Placement(1, 3)))
    assert [i.id for i in nvml.states()[0].instances] == [1, 3, 7, 8]
    nvml.destroy(0, 7)
    assert nvml.create(0, IDS[1], 2).id == 7
    assert with_layout((Placement(7, 0),)).states()[0].instances[0].id == 0


def test_what_is_in_use_is_not_changed() -> None:
    nvml = with_layout((Placement(3, 0),))
    nvml.occupy(0, 1, 4242)
    for refused in (lambda: nvml.destroy(0, 1), lambda: nvml.set_mode(0, on=False)):
        with pytest.raises(MigError, match="IN_USE"):
            refused()
    nvml.occupy(0, 1)
    nvml.destroy(0, 1)
    assert nvml.set_mode(0, on=False)
    with pytest.raises(MigError, match="NOT_FOUND"):
        nvml.destroy(0, 1)
    with pytest.raises(MigError, match=r"MIG mode is off .NVML_ERROR_NOT_SUPPORTED"):
        nvml.create(0, IDS[1], 0)
    nvml.occupy(0, None, 7)
    with pytest.raises(MigError, match="IN_USE"):
        nvml.set_mode(0, on=True)


def test_an_ampere_takes_the_mode_at_its_reset() -> None:
    nvml = FakeNvml("a100-80gb")
    a100 = plan((Placement(7, 0),), name="a100-80gb")
    todo = steps(a100, nvml.states())
    with pytest.raises(MigError, match=r"nvidia-smi -i 0 -r.*RESET_REQUIRED"):
        list(carry_out(todo, nvml))
    assert (nvml.states()[0].mig, nvml.states()[0].pending) == (False, True)
    nvml.reset(0)
    assert [step.do for step in carry_out(steps(a100, nvml.states()), nvml)] == ["create"]


@given(LAYOUTS, LAYOUTS)
@settings(max_examples=200)
def test_any_layout_becomes_any_other_and_then_nothing_is_left_to_do(
    before: tuple[Placement, ...], after: tuple[Placement, ...]
) -> None:
    nvml = with_layout(before)
    kept = {i.uuid for i in nvml.states()[0].instances if (i.profile, i.start) in
            {(IDS[units], start) for units, start in after}}  # fmt: skip
    wanted = plan(after)
    todo = steps(wanted, nvml.states())
    assert list(carry_out(todo, nvml)) == todo
    assert existing(nvml) >= {(IDS[units], start) for units, start in after}
    assert kept <= {i.uuid for i in nvml.states()[0].instances}  # what fits is not made anew
    assert steps(wanted, nvml.states()) == []
    found = placed(wanted, nvml.states())
    assert len({i.uuid for i in found.values()}) == len(after)
    gone = [step for step in todo if step.do == "destroy"]
    if mig.fits([*after, *(p for p in before if p not in after)]):
        assert not gone  # what leaves room for the plan stays


def test_steps_come_in_an_order_the_driver_takes() -> None:
    nvml = FakeNvml(count=2)
    wanted = plan((Placement(1, 6), Placement(4, 0)), (Placement(7, 0),))
    assert [step.text for step in steps(wanted, nvml.states())] == [
        "gpu 0: enable MIG mode",
        "gpu 0: create 4g.71gb at memory slice 0 for g0p1",
        "gpu 0: create 1g.18gb at memory slice 6 for g0p0",
        "gpu 1: enable MIG mode",
        "gpu 1: create 7g.141gb at memory slice 0 for g1p0",
    ]


def test_what_cannot_be_done_is_one_line() -> None:
    wanted = plan((Placement(3, 0),))
    nvml = FakeNvml()
    nvml.occupy(0, None, 11, 12)
    with pytest.raises(PlanError, match="gpu 0: MIG mode cannot change while processes 11, 12 use"):
        steps(wanted, nvml.states())
    nvml = with_layout((Placement(1, 2), Placement(1, 6)))
    nvml.occupy(0, 7, 13)
    with pytest.raises(PlanError, match=r"destroy instance 7, 1g.18gb at 2: processes 13 compute"):
        steps(wanted, nvml.states())
    nvml.occupy(0, 7)
    nvml.occupy(0, 8, 14)  # in nobody's way
    assert [step.do for step in steps(wanted, nvml.states())] == ["destroy", "create"]
    with pytest.raises(PlanError, match=r"gpu 1: this machine has \[0\]"):
        steps(plan((), (Placement(7, 0),)), nvml.states())
    with pytest.raises(PlanError, match="for a100-80gb, the device is h200-141gb"):
        steps(plan((Placement(7, 0),), name="a100-80gb"), nvml.states())
    with pytest.raises(PlanError, match="g0p0: gpu 0 has no such instance"):
        placed(wanted, nvml.states())
    with pytest.raises(PlanError, match=r"gpu 0: no instance 5; there are \[7, 8\]"):
        destruction(nvml.states(), 0, [5], everything=False)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["mig", *arguments])
    return done.exit_code, done.output if done.exception is None else str(done.exception)


def test_the_command_changes_nothing_without_yes(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_json.dumps(plan((Placement(3, 4),))))
    on = ("--on", "fake:h200-141gbx2")
    status, said = run("apply", str(file), *on)
    assert (status, said.splitlines()[-1]) == (
        0, "dry run: nothing was changed; add --yes to do it",
    )  # fmt: skip
    status, said = run("apply", str(file), "--yes", *on)
    assert said.splitlines()[:2] == [
        "done: gpu 0: enable MIG mode", "done: gpu 0: create 3g.71gb at memory slice 4 for g0p0",
    ]  # fmt: skip
    assert said.splitlines()[2].startswith("g0p0: CUDA_VISIBLE_DEVICES=MIG-")
    listed = json.loads(run("list", "--json", *on)[1])
    assert [(gpu["mig"], gpu["instances"]) for gpu in listed] == [(False, []), (False, [])]
    assert json.loads(run("check", str(file), "--json", *on)[1])[1]["profile"] == 9
    assert "fake h200-141gb" in run("list", *on)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--on", "gpu"), "--on 'gpu': use 'driver', 'fake:h200-141gb' or 'fake:NAMEx2'"),
        (("list", "--on", "fake:v100-16gb"), "device v100-16gb has no MIG instances"),
        (("check", "/nowhere.json", "--on", "fake:b200-180gb"), "/nowhere.json: cannot be read"),
        (("destroy", "--gpu", "0", "--on", "fake:b200-180gb"), "--id: give the instances"),
        (("destroy", "--gpu", "4", "--all", "--on", "fake:b200-180gb"), "gpu 4: there is none"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    status, told = run(*arguments)
    assert status != 0
    assert said in told
    assert "\n" not in told


def test_the_drivers_names_of_devices() -> None:
    names = {
        "NVIDIA A100-SXM4-80GB": "a100-80gb", "NVIDIA A100-PCIE-40GB": "a100-40gb",
        "NVIDIA H100 80GB HBM3": "h100-80gb", "NVIDIA H200": "h200-141gb",
        "NVIDIA B200": "b200-180gb",
    }  # fmt: skip
    assert {name: getattr(facts_of(name), "name", None) for name in names} == names
    assert facts_of("Tesla T4") is None


def test_without_the_drivers_library_one_line_says_what_to_install() -> None:
    try:
        open_nvml()
    except UnsupportedError as why:
        assert "\n" not in str(why)  # noqa: PT017 - where there is a driver nothing is raised
        assert "pip install 'spacetime[mig]'" in str(why) or "driver" in str(why)  # noqa: PT017
