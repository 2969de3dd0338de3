"""The driver's library behind the narrow interface, by a stand-in for its Python module."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from nvml_stand_in import NVMLError, StandIn
from test_mig_control import IDS, LAYOUTS, plan

from spacetime.devices.mig import Placement
from spacetime.errors import MigError, UnsupportedError
from spacetime.isolation.mig_control import carry_out, placed, steps
from spacetime.isolation.mig_fake import FakeNvml
from spacetime.isolation.nvml import DriverNvml


def driver(name: str = "NVIDIA H200") -> tuple[DriverNvml, StandIn]:
    module = StandIn(FakeNvml(), name)
    return DriverNvml(module), module


@given(LAYOUTS, LAYOUTS)
@settings(max_examples=30, deadline=None)
def test_a_plan_is_applied_and_another_after_it(
    first: tuple[Placement, ...], second: tuple[Placement, ...]
) -> None:
    nvml, module = driver()
    for layout in (first, second):
        for _ in carry_out(steps(plan(layout), nvml.states()), nvml):
            pass
        (state,), (own,) = nvml.states(), module.fake.states()
        assert set(state.instances) == set(own.instances)
        assert all(i.uuid.startswith("MIG-") for i in placed(plan(layout), [state]).values())
        assert len(module.computes) == len(own.instances)  # one of all its slices each


def test_what_the_driver_refuses_has_its_own_name() -> None:
    nvml, module = driver()
    with pytest.raises(MigError, match="NVML_ERROR_NOT_SUPPORTED"):
        nvml.create(0, IDS[1], 0)
    nvml.set_mode(0, on=True)
    made = nvml.create(0, IDS[3], 4)
    with pytest.raises(MigError, match="NVML_ERROR_INSUFFICIENT_RESOURCES"):
        nvml.create(0, IDS[1], 5)
    with pytest.raises(MigError, match="no profile 77"):
        nvml.create(0, 77, 5)
    module.fake.occupy(0, made.id, 31)
    assert nvml.states()[0].instances[0].pids == (31,)
    with pytest.raises(MigError, match="NVML_ERROR_IN_USE"):
        nvml.destroy(0, made.id)
    module.fake.occupy(0, made.id)
    nvml.destroy(0, made.id)
    assert nvml.states()[0].instances == ()
    with pytest.raises(MigError, match="NVML_ERROR_NOT_FOUND"):
        nvml.destroy(0, made.id)


def test_an_instance_whose_compute_instance_fails_is_not_left_behind() -> None:
    nvml, module = driver()
    nvml.set_mode(0, on=True)
    module.refuse_compute = True
    with pytest.raises(MigError, match="nvmlGpuInstanceCreateComputeInstance"):
        nvml.create(0, IDS[2], 0)
    assert module.fake.states()[0].instances == ()


def test_an_unknown_device_is_listed_and_a_driver_that_is_not_there_is_one_line() -> None:
    nvml, _ = driver("Tesla T4")
    assert (nvml.states()[0].name, nvml.states()[0].facts) == ("Tesla T4", None)

    class Nowhere(StandIn):
        def nvmlInit(self) -> None:
            raise NVMLError(12)

    with pytest.raises(UnsupportedError, match="NVML: error 12; is a driver of NVIDIA"):
        DriverNvml(Nowhere(FakeNvml(), "x"))
