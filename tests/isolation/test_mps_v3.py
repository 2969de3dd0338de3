"""MPS of protocol 3 by a stand-in control program: named servers, partitions without a mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from test_mps import program

from spacetime.errors import MpsError
from spacetime.isolation import mps
from spacetime.isolation.mps_control import MpsPartition
from spacetime.isolation.mps_v3 import ControlV3

__all__ = ["program"]


def test_a_daemon_comes_and_goes_and_its_server_has_a_percentage(program: str) -> None:
    before = psutil.Process().children()
    with mps.daemon(program=program, protocol=3) as control:
        assert control.answers
        assert control.servers() == []
        control.start_server(1000)
        control.start_server(1000)  # is there
        (server,) = control.servers()
        assert control.status(server) == "READY"
        control.set_percentage(server, 12.5)
        assert control.percentage(server) == 12.5
        assert control.clients(server) == []
        control.ask(f"_join {server} 77")
        assert control.clients(server) == [77]
        assert mps.attached(control.pipe, program=program, protocol=3).servers() == [server]
    assert not control.answers
    assert psutil.Process().children() == before


def test_static_partitions(program: str) -> None:
    with mps.daemon(program=program, protocol=3) as control:
        name = control.add_partition("GPU-1", 10)
        other = control.add_partition("GPU-1", 2)
        with pytest.raises(MpsError, match="not enough free chunks"):
            control.add_partition("GPU-1", 7)
        assert mps.client_environment(control, partition=name)["CUDA_MPS_SM_PARTITION"] == name
        assert control.partitions() == [MpsPartition(name, 10, 80), MpsPartition(other, 2, 16)]
        control.remove_partition(name)
        assert [left.name for left in control.partitions()] == [other]
        with pytest.raises(MpsError, match=f"{name} is not there"):
            control.remove_partition(name)
        assert control.add_partition("GPU-1", 14) not in {name, other}
        assert len(control.servers()) == 1
    with mps.daemon(program=program, protocol=3, environment={"STAND_IN": "stays"}) as control:
        name = control.add_partition("GPU-1", 1)
        with pytest.raises(MpsError, match=f"{name} is still there"):
            control.remove_partition(name)


@pytest.mark.parametrize("fault", ["", "stubborn"])
def test_a_clients_work_ends_before_its_process(program: str, fault: str) -> None:
    with (
        mps.daemon(program=program, protocol=3, environment={"STAND_IN": fault}) as control,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
    ):
        control.start_server(os.getuid())
        (server,) = control.servers()
        control.ask(f"_join {server} {process.pid}")
        if fault:
            with pytest.raises(MpsError, match=r"has work in flight .* it was not killed"):
                mps.end_client(control, process, timeout_s=0.1)
            process.kill()
        else:
            mps.end_client(control, process)
            assert process.returncode == -9


def test_what_is_absent_is_said(program: str) -> None:
    with mps.daemon(program=program, protocol=3) as control:
        for absent in (control.clients, control.status, control.percentage):
            with pytest.raises(MpsError, match="server 99 not found"):
                absent(99)
        control.start_server(0)
        (server,) = control.servers()
        with pytest.raises(MpsError, match=f"server {server} has no client 5"):
            control.terminate_client(server, 5)
        with pytest.raises(MpsError, match="protocol 3 has no default percentage"):
            control.set_default_percentage(50)
        with pytest.raises(MpsError, match="Error: unknown command server dance"):
            control.ask("server dance")


def test_a_percentage_that_is_not_taken_over_and_a_server_that_ends_are_noticed(
    program: str,
) -> None:
    with mps.daemon(program=program, protocol=3, environment={"STAND_IN": "ignore"}) as control:
        control.start_server(0)
        with pytest.raises(MpsError, match="is 100 after 50 was asked for"):
            control.set_percentage(control.servers()[0], 50)
    with (
        mps.daemon(program=program, protocol=3, environment={"STAND_IN": "no-device"}) as control,
        pytest.raises(MpsError, match=r"is detected; Server 4000 exited with status 1$"),
    ):
        control.add_partition("GPU-1", 1)


def test_a_program_of_an_older_driver_says_what_it_lacks(program: str) -> None:
    old = {"STAND_IN": "old"}
    with (
        pytest.raises(MpsError, match=rf"^MPS: {program} knows no -p 3: protocol 3 came with"),
        mps.daemon(program=program, protocol=3, environment=old),
    ):
        raise AssertionError("it is no daemon")
    with mps.daemon(program=program, environment=old) as control:
        named = ControlV3(control.pipe, control.log, program, environment=old)
        assert not named.answers  # it prints nothing and returns 0
        with pytest.raises(MpsError, match=r"server list: it said nothing; is a daemon of protoc"):
            named.servers()
        assert control.answers


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("NAME,PID", "no column 'status' in name,pid"),
        ("some text", "no column 'name' in some text"),
        ("NAME,PID,STATUS\\nuid_0", "row 'uid_0' has 1 of 3 columns"),
    ],
)
def test_a_list_of_another_form_is_an_error(tmp_path: Path, said: str, why: str) -> None:
    file = tmp_path / "control"
    file.write_text(f"#!/bin/sh\nprintf '{said}\\n'\n")
    file.chmod(0o755)
    with pytest.raises(MpsError, match=why):
        ControlV3(tmp_path, tmp_path, str(file)).servers()


def test_a_protocol_is_2_or_3() -> None:
    with (
        pytest.raises(MpsError, match="protocol is 2 or 3, got 1"),
        mps.daemon(protocol=1),
    ):
        raise AssertionError("it is no daemon")
