"""Opening a device: what is refused, with which reason, and what is asked of the driver before."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from spacetime import Session, _native
from spacetime.devices import queues
from spacetime.devices.device import Device, on_device, open_device, sized
from spacetime.devices.queues import VARIABLE, Queues
from spacetime.errors import DriverError, UnsupportedError

MIB = 2**20
X = torch.randn(1, 6)
REFUSED = 915  # CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).eval()


def device(driver: _native.FakeDriver) -> Device:
    return on_device("fake", _native.FakeCudaDevice(driver))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            100,
            r"cuInit failed with 100 \(CUDA_ERROR_NO_DEVICE: .*\); let this process see a device",
        ),
        (3, r"CUDA_ERROR_NOT_INITIALIZED: .*start this process with spawn"),
        (34, r"CUDA_ERROR_STUB_LIBRARY: .*stubs off LD_LIBRARY_PATH"),
        (802, r"CUDA_ERROR_SYSTEM_NOT_READY: .*nvidia-fabricmanager"),
        (803, r"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: .*kernel module to one version"),
        (807, r"cuInit failed with 807; see the logs of the MPS control daemon"),
        (999, r"cuInit failed with 999; see what nvidia-smi says, or use device 'cpu'$"),
    ],
)
def test_a_driver_that_serves_no_device_is_unsupported_with_the_fix(code: int, said: str) -> None:
    driver = _native.FakeDriver("h200")
    driver.fail(1, code, call="cuInit")
    with pytest.raises(UnsupportedError, match=said) as raised:
        _native.FakeCudaDevice(driver)
    assert "\n" not in str(raised.value)
    assert set(driver.live.values()) == {0}


def test_a_device_that_cannot_be_taken_is_the_drivers_error() -> None:
    driver = _native.FakeDriver("h200")
    driver.fail(1, 2, call="cuDevicePrimaryCtxRetain")
    with pytest.raises(DriverError, match="cuDevicePrimaryCtxRetain failed with 2"):
        _native.FakeCudaDevice(driver)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here")
def test_auto_is_the_cpu_where_the_device_cannot_be_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def looks() -> bool:
        asked.append(os.environ.get(VARIABLE))
        return True

    monkeypatch.setattr(torch.cuda, "is_available", looks)
    monkeypatch.setattr("spacetime.devices.device.queues", Queues())
    monkeypatch.delenv(VARIABLE, raising=False)
    opened = open_device("auto")
    assert opened.kind == "cores"
    assert opened.chosen.startswith("auto: device cuda:0: ")
    assert "use device 'cpu'" in opened.chosen
    assert asked == ["32"]  # before PyTorch could initialise the driver
    with pytest.raises(UnsupportedError, match="device cuda:0: "):
        open_device("cuda:0")


@pytest.mark.parametrize(
    ("environment", "initialized", "said", "after"),
    [
        ({}, False, "", "32"),
        ({}, True, "this process initialised CUDA before", None),
        ({VARIABLE: "32"}, True, "", "32"),
        ({VARIABLE: "1"}, False, f"{VARIABLE}=1 gives 1 of 32; leave it unset", "1"),
        ({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50"}, False, "MPS allots them", None),
    ],
)
def test_queues_are_asked_for_or_said_to_be_few(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    *,
    initialized: bool,
    said: str,
    after: str | None,
) -> None:
    for name in (VARIABLE, *queues._OF_MPS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = Queues(lambda: initialized)
    assert asked.ask().startswith(said)
    assert bool(asked.ask()) == bool(said)
    assert os.environ.get(VARIABLE) == after
    monkeypatch.delenv(VARIABLE, raising=False)  # what the test itself set
    assert asked.ask().startswith(said)  # decided once


def test_a_driver_that_nobody_loaded_is_not_initialised() -> None:
    assert not _native.driver_initialized("libcuda-that-nobody-loads.so.1")


def test_opening_makes_no_context_and_a_rung_is_made_once() -> None:
    native = _native.FakeCudaDevice(_native.FakeDriver("h200"))
    assert native.contexts == 0
    first = native.partition([0, 1])
    assert native.contexts == 1
    again = native.partition([0, 1])
    assert (native.contexts, again.context) == (1, first.context)
    del first, again
    assert native.contexts == 1  # it stays: a switch back makes nothing


def test_one_refusal_costs_one_partition() -> None:
    driver = _native.FakeDriver("h200", whole_groups=16, smallest_context=8)  # 4 SMs remain
    native = _native.FakeCudaDevice(driver)
    assert native.unit_sms == [8] * 16 + [4]
    assert native.why_not([16]).startswith("cuGreenCtxCreate failed with 915 (")
    assert [units for units, _ in native.refused] == [[16]]
    refused = [rung for rung in native.ladder() if native.why_not(rung)]
    assert refused == [[16]]
    with pytest.raises(UnsupportedError, match=r"units 16 \(4 SMs\): cuGreenCtxCreate .*; give"):
        native.partition([16])
    assert native.partition([15, 16]).sms == 12


def test_a_size_passes_over_what_is_refused_and_explain_says_so() -> None:
    opened = device(_native.FakeDriver("h200", whole_groups=16, smallest_context=8))
    with Session(opened, sizes=[4, 4], max_batch=1) as session:
        assert session.partitions == [(0,), (1,)]  # not the remainder, which would be the smallest
        torch.testing.assert_close(session.add(net(0), example_inputs=(X,))(X), net(0)(X))
        assert "the driver makes no partition of units [16]: cuGreenCtxCreate" in session.explain()
    none = device(_native.FakeDriver("h200", smallest_context=48))
    with pytest.raises(UnsupportedError, match=r"lanes\[1\]: the driver makes no partition of"):
        sized(none, [48, 8])


def test_a_remainder_that_goes_with_no_group_is_left_out_and_explain_says_so() -> None:
    driver = _native.FakeDriver("h200", remainder_merges=False)
    opened = device(driver)
    assert opened.sizes == (8,) * 15
    with Session(opened, max_batch=1) as session:
        assert [session.device.size(p) for p in session.partitions] == [64, 56]
        assert "no partition of units [14, 15]: cuDevResourceGenerateDesc" in session.explain()
        torch.testing.assert_close(session.add(net(0), example_inputs=(X,))(X), net(0)(X))


def test_a_context_that_fails_for_want_of_memory_is_tried_again_later() -> None:
    driver = _native.FakeDriver("h200")
    native = _native.FakeCudaDevice(driver)
    driver.fail(2, 2, call="cuGreenCtxCreate")  # the first was opening's
    with pytest.raises(DriverError, match="cuGreenCtxCreate failed with 2"):
        native.partition([3])
    assert native.refused == []
    assert native.partition([3]).sms == 8


def test_a_refused_lane_is_named_before_a_model_is_touched() -> None:
    driver = _native.FakeDriver("h200")
    opened = device(driver)
    driver.fail(2, REFUSED, call="cuGreenCtxCreate")
    with pytest.raises(UnsupportedError, match=r"no partition of units 0, 2 \(16 SMs\)"):
        Session(opened, lanes=[[0, 2]])


@pytest.mark.parametrize(("bytes_a_row", "rows"), [(2 * MIB, 64), (16 * MIB, 16)])
def test_a_reservation_that_is_refused_is_halved(bytes_a_row: int, rows: int) -> None:
    driver = _native.FakeDriver("h200", address_bytes=256 * MIB)
    native = _native.FakeCudaDevice(driver)
    arena = _native.Arena(native, row_bytes=bytes_a_row, rows=512, least=4)
    assert (arena.rows, arena.nbytes) == (256 * MIB // arena.row_bytes, 256 * MIB)
    assert arena.rows >= rows
    arena.map(arena.rows - 1)
    with pytest.raises(ValueError, match="not in the arena"):
        arena.map(arena.rows)
    with pytest.raises(DriverError, match="cuMemAddressReserve failed with 2"):
        _native.Arena(native, row_bytes=128 * MIB, rows=512, least=4)
    with pytest.raises(DriverError, match="cuMemAddressReserve failed with 2"):
        _native.Arena(native, row_bytes=bytes_a_row, rows=512)
    assert driver.live["reservations"] == 1


def test_a_family_holds_as_many_tenants_as_have_addresses() -> None:
    opened = device(_native.FakeDriver("h200", address_bytes=32 * MIB))
    with Session(opened, lanes=1, max_batch=1) as session:
        tenants = [session.add(net(seed), example_inputs=(X,)) for seed in range(16)]
        for seed, tenant in enumerate(tenants):
            torch.testing.assert_close(tenant(X), net(seed)(X))
        assert "room for 16 tenants" in session.explain()
        with pytest.raises(UnsupportedError, match="at most 16 tenants"):
            session.add(net(16), example_inputs=(X,))
        session.remove(tenants[3])
        session.add(net(17), example_inputs=(X,))
