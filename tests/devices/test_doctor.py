"""The doctor: every mechanism with a state and a reason, on any machine."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from spacetime.commands.doctor import print_facts
from spacetime.devices import doctor
from spacetime.devices.device import Device
from spacetime.errors import DriverError, UnsupportedError

PROBES = (
    "cores", "CUDA driver", "hardware queues", "MPS daemon", "NVML", "MIG", "torch for CUDA",
    "Triton", "Triton's interpreter", "CuPy with NVRTC", "nvcc",
)  # fmt: skip


def test_every_mechanism_says_with_what_or_why_not() -> None:
    told = {mechanism.name: mechanism for mechanism in doctor.mechanisms()}
    assert set(PROBES) <= set(told)
    assert told["cores"].on
    for mechanism in told.values():
        assert mechanism.detail, mechanism.name
        assert "\n" not in mechanism.detail
        assert mechanism.serves


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnsupportedError("no such thing\nand a page of stack"), "no such thing"),
        (RuntimeError(), "RuntimeError"),
        (ImportError("\n====\nFailed to import it.\n====\n"), "Failed to import it."),
        (OSError(5, "a device that nobody has seen"), "[Errno 5] a device that nobody has seen"),
    ],
)
def test_what_a_probe_raises_is_its_reason(error: Exception, reason: str) -> None:
    def probe() -> str:
        raise error

    mechanism = doctor._probed("strange", "nothing", probe)
    assert not mechanism.on
    assert mechanism.detail == reason


@pytest.mark.parametrize(
    ("answer", "on", "detail"),
    [
        ("echo 100.0", True, "a daemon answers; threads 100.0 %"),
        ("echo Cannot find MPS control daemon process; exit 1", False, "no daemon answers: Cannot"),
        ("exit 1", False, "no daemon answers: 1"),
    ],
)
def test_an_mps_daemon_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, answer: str, on: bool, detail: str
) -> None:
    control = tmp_path / "nvidia-cuda-mps-control"
    control.write_text(f"#!/bin/sh\n{answer}\n")
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = doctor._probed("MPS daemon", "processes", doctor._mps)
    assert found.on == on
    assert found.detail.startswith(detail)


def test_the_table_shows_every_mechanism(capsys: pytest.CaptureFixture[str]) -> None:
    told = doctor.facts()
    json.dumps(told)
    print_facts(told)
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROBES)
    assert all(name in shown for name in told)


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> None:
        return None

    monkeypatch.setattr(doctor, "find_spec", found)
    for probe in (doctor._nvml, doctor._triton, doctor._interpreter, doctor._cupy):
        with pytest.raises(UnsupportedError, match=r"is not installed: pip .*'spacetime\[\w+\]'"):
            probe()


def test_cupy_has_its_nvrtc_as_an_attribute_not_as_a_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = ModuleType("cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)
    nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    there = SimpleNamespace(nvrtc=nvrtc, is_available=lambda: True)
    cupy.__dict__.update(__version__="14.2.0", cuda=there)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert doctor._cupy() == "cupy 14.2.0, NVRTC 13.0"
    there.is_available = lambda: False
    with pytest.raises(UnsupportedError, match=r"cupy 14\.2\.0 finds no CUDA device"):
        doctor._cupy()


def test_a_device_that_cannot_be_opened_does_not_end_the_doctor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = doctor.open_device

    def strange(name: str) -> Device:
        if name == "auto":
            raise DriverError("cuInit", 999, "cuInit: unknown error (999)")
        return real(name)

    monkeypatch.setattr(doctor, "open_device", strange)
    told = doctor.facts()
    assert told["device"] == "cpu"
    assert told["chosen"] == "auto failed: cuInit: unknown error (999)"
