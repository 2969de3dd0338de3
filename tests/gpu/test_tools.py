"""The tools on a real device: the doctor sees it, and partitions of SMs are certified."""

from __future__ import annotations

import pytest

from spacetime import _native
from spacetime.commands import verify
from spacetime.devices import doctor
from spacetime.verify.bounds import Bounds

pytestmark = pytest.mark.gpu


def test_the_doctor_sees_the_device(native: _native.CudaDevice) -> None:
    told = {mechanism.name: mechanism for mechanism in doctor.mechanisms()}
    assert told["CUDA driver"].on
    assert native.name in told["CUDA driver"].detail
    assert told["torch for CUDA"].on


def test_partitions_of_sms_do_not_leak(native: _native.CudaDevice) -> None:
    pytest.importorskip("cupy")
    wide = Bounds(private_held=0, private_p99=1e9, shared_held=0, shared_p99=1e9)
    asked = verify.VerifyCommand(
        device="cuda:0",
        rounds=1,
        launches=20,
        probe=("compute",),
        stressor=("compute", "memory"),
        bounds=wide,
        as_json=True,
    )
    record = verify.run(asked)
    assert record["passed"]
    assert record["overlaps"] == []
    assert sum(part["granted"] for part in record["partitions"]) == native.sms
    assert all(len(part["home"]) == part["granted"] for part in record["partitions"])
