"""`spacetime.isolation.mps` against the real control daemon, which runs without a device."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_mps import program

from spacetime.devices import doctor
from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation import mps
from spacetime.isolation.mps_control import Control
from spacetime.isolation.mps_v3 import ControlV3

from .conftest import surroundings

__all__ = ["program"]
NO_DEVICE = r"no CUDA-capable device is detected; Server \d+ exited with status 1$"
SAID = (
    "get_default_active_thread_percentage",
    "set_default_active_thread_percentage 40",
    "set_default_active_thread_percentage 0",
    "set_default_active_thread_percentage 400",
    "get_default_active_thread_percentage",
    "get_server_list",
    "get_server_status 1",
    "get_server_status",
    "get_client_list 1",
    "get_client_list x",
    "get_active_thread_percentage 1",
    "set_active_thread_percentage 1 50",
    "terminate_client 1 2",
    "terminate_client 1",
    "terminate_client",
    "sm_partition add GPU-1 2",
    "sm_partition rm GPU-1 A",
    "lspart",
    "dance",
    "",
)


@pytest.fixture
def real(driver: Path) -> str:
    """The driver's own control program."""
    return str(driver / "usr/bin/nvidia-cuda-mps-control")


@pytest.fixture
def control(driver: Path, real: str) -> Iterator[Control]:
    """A daemon of it, which must leave no process."""
    before = psutil.Process().children(recursive=True)
    with mps.daemon(program=real, environment=surroundings(driver)) as started:
        yield started
        pipe = f"CUDA_MPS_PIPE_DIRECTORY={started.pipe}"
    assert psutil.Process().children(recursive=True) == before
    assert not [process for process in psutil.process_iter() if pipe in _variables(process)]


def _variables(process: psutil.Process) -> list[str]:
    try:
        return [f"{name}={value}" for name, value in process.environ().items()]
    except psutil.Error:
        return []


def test_percentages_and_lists(control: Control) -> None:
    assert control.answers
    assert control.default_percentage() == 100
    control.set_default_percentage(12.5)
    assert control.default_percentage() == 12.5
    assert control.servers() == []
    assert mps.attached(control.pipe, program=control.program).default_percentage() == 12.5


def test_what_is_not_there_is_an_error(control: Control) -> None:
    for absent in (control.clients, control.percentage):
        with pytest.raises(MpsError, match="Server 1 not found"):
            absent(1)
    # Driver 535 does not know the question.
    with pytest.raises(MpsError, match=r'Server 1 not found|Unknown command "get_server_status"'):
        control.status(1)
    with pytest.raises(MpsError, match="terminate_client 1 2: Server 1 not found"):
        control.terminate_client(1, 2)
    with pytest.raises(MpsError, match="Server 1 not found"):
        control.set_percentage(1, 50)
    with pytest.raises(MpsError, match='Unknown command "dance"'):
        control.ask("dance")
    assert control.answers


@pytest.mark.usefixtures("no_device")
def test_a_server_without_a_device_ends_and_that_is_said(control: Control) -> None:
    with pytest.raises(MpsError, match=NO_DEVICE):
        control.start_server(os.getuid())
    assert control.servers() == []


def test_static_partitions_and_protocol_3_are_newer(driver: Path, real: str) -> None:
    lacks = r"static partitions of SMs came with CUDA 13\.1"
    environment = surroundings(driver)
    with mps.daemon(program=real, environment=environment) as control:
        with pytest.raises(MpsError, match=lacks):
            control.add_partition("GPU-1", 2)
        with pytest.raises(MpsError, match=lacks):
            control.partitions()
        assert not ControlV3(control.pipe, control.log, real).answers
    for option, chosen, why in (("-S", {"static": True}, lacks), ("-p 3", {"protocol": 3}, "615")):
        with (
            pytest.raises(MpsError, match=rf"knows no {option}: .*{why}"),
            mps.daemon(program=real, environment=environment, **chosen),
        ):
            raise AssertionError("it is no daemon")


@pytest.mark.usefixtures("no_device")
def test_a_client_without_a_device_is_unsupported(driver: Path, control: Control) -> None:
    share = mps.client_environment(control, percent=25)
    library = str(driver / "libcuda.so.1")
    with pytest.raises(UnsupportedError, match=r"cuInit failed with \d+"):
        mps.granted_sms(share, library=library)


def test_the_doctor_finds_the_daemon(
    control: Control, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", surroundings(driver)["PATH"])
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(control.pipe))
    control.set_default_percentage(75)
    assert doctor._mps() == "a daemon answers; threads 75.0 %"


def test_two_daemons_in_one_folder_and_none_in_another(control: Control) -> None:
    second = subprocess.run(
        [control.program, "-f"],
        env=control.surroundings,
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
        stdin=subprocess.DEVNULL,
    )
    assert second.returncode == 1
    assert "An instance of this daemon is already running" in second.stdout + second.stderr
    with pytest.raises(MpsError, match="Cannot find MPS control daemon process"):
        mps.attached(control.log, program=control.program)


@pytest.mark.usefixtures("no_device")
def test_the_stand_in_says_what_the_program_says(newest: Path, program: str) -> None:
    own = str(newest / "usr/bin/nvidia-cuda-mps-control")
    old = {"STAND_IN": "old,no-device"}
    with (
        mps.daemon(program=own, environment=surroundings(newest)) as real,
        mps.daemon(program=program, environment=old) as ours,
    ):
        for command in SAID:
            assert _told(ours, command) == _told(real, command), command
        for control in (real, ours):
            with pytest.raises(MpsError, match=NO_DEVICE):
                control.start_server(0)
        gone = [replace(control, pipe=control.log) for control in (ours, real)]
    nobody, nobody_too = (_told(control, "get_server_list") for control in gone)
    assert nobody == nobody_too
    assert nobody[0] == 1


def _told(control: Control, command: str) -> tuple[int, str, str]:
    done = control._run(command)
    return done.returncode, done.stdout, done.stderr
