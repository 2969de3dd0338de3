"""How newer drivers divide a device: smaller units, locality domains, work queues of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spacetime import Session, _native
from spacetime.devices.device import divided, on_device, open_device, sized
from spacetime.errors import UnsupportedError

X = torch.randn(2, 6)


def opened(
    model: str = "h200", version: int = 0, *, unit_sms: int = 0, domains: bool = False
) -> _native.FakeCudaDevice:
    driver = _native.FakeDriver(model, driver_version=version)
    return _native.FakeCudaDevice(driver, unit_sms=unit_sms, domains=domains)


@pytest.mark.parametrize("version", [12050, 13000, 13010])
@pytest.mark.parametrize(("unit_sms", "units"), [(2, 66), (4, 33), (6, 22), (8, 15), (16, 7)])
def test_units_have_the_size_that_was_asked_for(version: int, unit_sms: int, units: int) -> None:
    native = opened(version=version, unit_sms=unit_sms)
    groups = native.unit_sms[: len(native.unit_sms) - native.has_remainder]
    assert (set(groups), len(groups)) == ({unit_sms}, units)
    for mask in ([0], [units - 1], [0, units // 2], [*range(len(native.unit_sms))]):
        assert native.partition(mask).sms == sum(native.unit_sms[unit] for unit in mask)


@pytest.mark.parametrize("model", ["h200", "a100-80gb", "vr200"])
def test_units_of_two_leave_no_sm_over(model: str) -> None:
    native = opened(model, 13010, unit_sms=2)
    assert (sum(native.unit_sms), native.has_remainder) == (native.sms, False)


@pytest.mark.parametrize("unit_sms", [3, 134])
def test_a_size_that_is_none_is_named(unit_sms: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"fake:h200.*unit_sms: {unit_sms} is not an even"):
        open_device("fake:h200", unit_sms=unit_sms)


def test_finer_units_grant_what_is_asked_for() -> None:
    device = open_device("fake:h200", unit_sms=2)
    assert [device.size(p) for p in sized(device, [50, 82])] == [50, 82]
    with Session(device, sizes=[50, 82], max_batch=2) as session, torch.no_grad():
        model = nn.Linear(6, 3).eval()
        torch.testing.assert_close(session.add(model, example_inputs=(X,))(X), model(X))
        assert "partition of 50 SMs" in session.explain()


def test_units_of_a_device_of_two_domains_lie_in_one_each() -> None:
    native = opened("vr200", domains=True)
    assert native.unit_domains == [0] * 13 + [1] * 13  # what lies in none goes with no group
    assert native.unit_sms == [8] * 26
    assert native.refused[0][0] == [25, 26]
    assert native.why_not([12, 13]).startswith("cuDevResourceGenerateDesc failed with 915 (")
    for rung in native.ladder():
        assert native.why_not(rung) == ""
        assert len({native.unit_domains[unit] for unit in rung}) == 1
    assert [0, 1] in native.ladder()
    assert [*range(13)] in native.ladder()


def test_without_domains_the_same_device_is_one() -> None:
    native = opened("vr200")
    assert set(native.unit_domains) == {-1}
    assert native.partition([12, 13]).sms == 16
    assert native.partition([*range(len(native.unit_sms))]).sms == native.sms == 224


def test_lanes_are_divided_within_domains() -> None:
    device = on_device("fake", opened("vr200", domains=True))
    assert divided(device) == [tuple(range(13)), tuple(range(13, 26))]
    assert [len(part) for part in divided(device, 4)] == [6, 7, 6, 7]
    for wanted in ([96, 104], [104, 96], [40, 40, 40, 40]):
        for part in sized(device, wanted):
            assert len({device.domains[unit] for unit in part}) == 1
    with pytest.raises(UnsupportedError, match=r"lanes=3: .* 2 locality domains .*multiple of 2"):
        divided(device, 3)
    with pytest.raises(UnsupportedError, match=r"lanes\[0\]: 112 SMs are not there"):
        sized(device, [112])


def test_a_session_on_two_domains_answers_and_names_a_lane_across_them() -> None:
    device = open_device("fake:vr200", domains=True)
    model = nn.Linear(6, 3).eval()
    with Session(device, max_batch=2) as session, torch.no_grad():
        assert [device.size(p) for p in session.partitions] == [104, 104]
        torch.testing.assert_close(session.add(model, example_inputs=(X,))(X), model(X))
    with pytest.raises(UnsupportedError, match=r"no partition of units 0, 25 \(16 SMs\)"):
        Session(device, lanes=[[0, 25]])


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        ("h200", 13050, "domains: the device has one locality domain"),
        ("h200", 13000, "domains: the device has one locality domain"),
        ("vr200", 13000, "domains: the device has one locality domain"),  # it does not know better
    ],
)
def test_domains_that_are_not_there_are_refused(model: str, version: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(model, version, domains=True)


def test_contexts_have_work_queues_of_their_own_where_the_driver_has_them() -> None:
    name = "work queues of one's own"
    assert opened(version=13010).features[name] == ""
    assert opened(version=13000).features[name] == "drivers have them from CUDA 13.1 on"
    with Session(on_device("fake", opened(version=13010)), lanes=2) as session:
        assert "green contexts, 2 made, each with work queues of its own" in session.explain()
    with Session("fake:h200", lanes=2) as session:
        assert "queues of its own" not in session.explain()


def test_queues_that_are_refused_cost_no_partition() -> None:
    driver = _native.FakeDriver("h200", driver_version=13010)
    driver.fail(1, 915, call="cuGreenCtxCreate")
    native = _native.FakeCudaDevice(driver)
    assert native.features["work queues of one's own"] == "the driver refuses them beside SMs"
    assert native.refused == []
    assert native.partition([0, 1]).sms == 16


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_split_that_fails_is_told_and_leaves_nothing(nth: int) -> None:
    driver = _native.FakeDriver("vr200")
    driver.fail(nth, 2, call="cuDevSmResourceSplit")
    if nth <= 2:
        with pytest.raises(Exception, match="cuDevSmResourceSplit failed with 2"):
            _native.FakeCudaDevice(driver, domains=True)
    else:
        _native.FakeCudaDevice(driver, domains=True)
    assert set(driver.live.values()) == {0}
