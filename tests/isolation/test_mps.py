"""MPS by a stand-in control program: what is asked of it, and every way it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation import mps
from spacetime.isolation.mps_control import Control, MpsPartition, listed_partitions
from spacetime.plan import Assignment, GpuPlan, PartitionPlan
from spacetime.plan.check import _clients

DRIVER = """
#include <stdlib.h>
int cuInit(unsigned flags) { return getenv("NO_DEVICE") ? 100 : 0; }
int cuDeviceGet(int *device, int n) { *device = n; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = 0; return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  const char *percent = getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
  const int mps = getenv("CUDA_MPS_PIPE_DIRECTORY") != NULL;
  if (attribute == 133) *value = mps;
  else *value = mps && percent ? (int)(132 * atof(percent) / 100) / 2 * 2 : 132;
  return device;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("program") / "control"
    text = (Path(__file__).parents[1] / "rigs/mps_stand_in.py").read_text()
    file.write_text(f"#!{sys.executable} -S\n{text}")
    file.chmod(0o755)
    return str(file)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("driver")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    (folder / "driver.c").write_text(DRIVER)
    library = folder / "libdriver.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return str(library)


def test_a_daemon_of_its_own_comes_and_goes(program: str) -> None:
    before = psutil.Process().children()
    with mps.daemon(program=program) as control:
        assert control.answers
        assert control.default_percentage() == 100
        control.set_default_percentage(40)
        control.start_server(1000)
        (server,) = control.servers()
        assert control.percentage(server) == 40
        control.set_percentage(server, 12.5)
        assert control.percentage(server) == 12.5
        assert control.status(server) == "ACTIVE"
        assert control.clients(server) == []
        control.ask(f"_join {server} 77")
        assert control.clients(server) == [77]
        folder = control.pipe
    assert not folder.exists()
    assert not control.answers
    assert psutil.Process().children() == before


def test_daemons_do_not_see_each_other_and_one_attached_to_is_left_alone(program: str) -> None:
    with mps.daemon(program=program) as one, mps.daemon(program=program) as other:
        one.set_default_percentage(30)
        assert other.default_percentage() == 100
        attached = mps.attached(one.pipe, program=program)
        assert attached.default_percentage() == 30
        del attached
        assert one.answers
    with pytest.raises(MpsError, match="Cannot find MPS control daemon process"):
        mps.attached(one.pipe, program=program)


def test_a_daemon_is_found_where_drivers_put_it(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    with mps.daemon(program=program) as control:
        for usual in ((tmp_path, control.pipe), (control.pipe, tmp_path)):
            monkeypatch.setattr(mps, "_USUAL", usual)
            assert mps.attached(program=program).pipe == control.pipe
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
        with pytest.raises(MpsError, match=f"daemon at {tmp_path}"):
            mps.attached(program=program)


def test_static_partitions(program: str) -> None:
    with mps.daemon(program=program, static=True) as control:
        assert control.partitions() == []
        name = control.add_partition("GPU-1", 10)
        with pytest.raises(MpsError, match="not enough free chunks"):
            control.add_partition("GPU-1", 7)
        assert mps.client_environment(control, partition=name)["CUDA_MPS_SM_PARTITION"] == name
        assert control.partitions() == [MpsPartition(name, 10, 80, used=False)]
        control.remove_partition(name)
        with pytest.raises(MpsError, match="no such partition"):
            control.remove_partition(name)
        assert control.add_partition("GPU-1", 16) != name
    with (
        mps.daemon(program=program) as control,
        pytest.raises(MpsError, match="static partitioning is not enabled"),
    ):
        control.add_partition("GPU-1", 1)


def test_a_partition_that_stays_is_noticed(program: str) -> None:
    with mps.daemon(program=program, static=True, environment={"STAND_IN": "stays"}) as control:
        name = control.add_partition("GPU-1", 1)
        with pytest.raises(MpsError, match=f"{name} is still there"):
            control.remove_partition(name)


def test_partitions_are_listed_as_the_guide_shows_them_and_as_programs_print_them() -> None:
    guide = """GPU Partition free used free used clients
chunk chunk SM SM
GPU-74d4 - 0 10 0 80 -
GPU-74d4 Dx4A/AA - 5 - 40 Yes
GPU-74d4 Cx4A - 3 - 24 -"""
    printed = """GPU           Partition     free    used    free    used   clients
                            chunks  chunks  SM      SM
GPU-74d4                    0       10      0       80
GPU-74d4      Dx4A/AA               5               40     Yes
GPU-74d4      Cx4A                  3               24     No"""
    both = [
        MpsPartition("GPU-74d4/Dx4A/AA", 5, 40, True),
        MpsPartition("GPU-74d4/Cx4A", 3, 24, False),
    ]
    assert listed_partitions(guide) == listed_partitions(printed) == both
    with pytest.raises(MpsError, match="expected a partition, got 'GPU-1 x y z'"):
        listed_partitions("GPU-1 x y z")


def test_a_program_of_an_older_driver_says_what_it_lacks(program: str) -> None:
    old = {"STAND_IN": "old"}
    lacks = r"static partitions of SMs came with CUDA 13\.1 \(driver 590\); use percentages"
    with (
        pytest.raises(MpsError, match=rf"^MPS: {program} knows no -S: {lacks}"),
        mps.daemon(program=program, static=True, environment=old),
    ):
        raise AssertionError("it is no daemon")
    with mps.daemon(program=program, environment=old) as control:
        for refused in (
            lambda: control.add_partition("GPU-1", 1),
            lambda: control.remove_partition("GPU-1/A"),
            control.partitions,
        ):
            with pytest.raises(MpsError, match=lacks):
                refused()
        assert control.servers() == []


def test_a_server_that_ends_at_once_is_an_error(program: str) -> None:
    with mps.daemon(program=program, environment={"STAND_IN": "no-device"}) as control:
        with pytest.raises(MpsError, match=r"is detected; Server 4000 exited with status 1$"):
            control.start_server(0)
        assert control.servers() == []


@pytest.mark.parametrize(
    ("fault", "static", "said"),
    [
        ("deaf", False, "the daemon runs and does not answer; it was ended"),
        ("deny", False, "the daemon runs and does not answer; it was ended"),
        ("hang", True, "the daemon runs and does not answer; it was ended"),
    ],
)
def test_a_daemon_that_does_not_serve_is_one_line_and_leaves_nothing(
    program: str, fault: str, *, static: bool, said: str
) -> None:
    before = psutil.Process().children()
    environment = {"STAND_IN": fault}
    with (
        pytest.raises(MpsError, match=f"^MPS: {said}$"),
        mps.daemon(program=program, static=static, timeout_s=0.5, environment=environment),
    ):
        raise AssertionError("it is no daemon")
    assert psutil.Process().children() == before


def test_what_is_missing_is_said() -> None:
    with (
        pytest.raises(MpsError, match="/nowhere/control is not installed; it comes with"),
        mps.daemon(program="/nowhere/control"),
    ):
        raise AssertionError("it is no daemon")
    with pytest.raises(MpsError, match="not installed"):
        mps.attached(Path("/nowhere"), program="/nowhere/control")


def test_a_pipe_directory_whose_daemon_has_died_answers_nothing(
    program: str, tmp_path: Path
) -> None:
    control = Control(tmp_path, tmp_path, program)
    (tmp_path / "control").touch()  # what it left behind
    with pytest.raises(MpsError, match="Cannot find MPS control daemon process"):
        control.servers()


def test_answers_that_are_errors_raise_although_the_status_is_0(program: str) -> None:
    with mps.daemon(program=program) as control:
        for absent in (control.clients, control.status, control.percentage):
            with pytest.raises(MpsError, match=r"get_\w+ 99: Server 99 not found \(daemon at"):
                absent(99)
        with pytest.raises(MpsError, match=r"terminate_client 99 1: Server 99 not found"):
            control.terminate_client(99, 1)
        with pytest.raises(MpsError, match=r"set_active\w+ 99 50: Server 99 not found"):
            control.set_percentage(99, 50)
        with pytest.raises(MpsError, match='dance: Unknown command "dance"'):
            control.ask("dance")
        with pytest.raises(MpsError, match="A server PID is required"):
            control.ask("get_server_status")
        with pytest.raises(MpsError, match="is more than one command"):
            control.ask("get_server_list\nquit")
        with pytest.raises(MpsError, match="above 0 and at most 100, got 0"):
            control.set_default_percentage(0)
        control.start_server(0)
        with pytest.raises(MpsError, match="Invalid process 5"):
            control.terminate_client(control.servers()[0], 5)
        assert control.answers


OLDER = """#!/bin/sh
read question
case "$question" in
  get_server_list) echo 7 ;;
  get_server_status*) echo 'Unknown command "get_server_status"' ;;
esac
"""


def test_driver_535_says_in_its_log_that_a_server_is_ready(tmp_path: Path) -> None:
    program, log = tmp_path / "control", tmp_path / "control.log"
    program.write_text(OLDER)
    program.chmod(0o755)
    control = Control(tmp_path, tmp_path, str(program))
    control.start_server(0)  # nothing to read: what is listed counts
    log.write_text("Starting new server 7 for user 0\n")
    with pytest.raises(MpsError, match=r"-uid 0: none is ready after 0\.1 s"):
        control.start_server(0, timeout_s=0.1)
    log.write_text("NEW SERVER 7: Ready\n")
    control.start_server(0, timeout_s=0.1)


@pytest.mark.parametrize(
    ("said", "what"), [("", "'' is no status"), ("7", "'7' is no status"), ("PAUSED", "'PAUSED'")]
)
def test_a_status_and_a_result_that_nobody_knows_are_errors(
    tmp_path: Path, said: str, what: str
) -> None:
    program = tmp_path / "control"
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)
    control = Control(tmp_path, tmp_path, str(program))
    with pytest.raises(MpsError, match=what):
        control.status(1)
    if said:
        with pytest.raises(MpsError, match=f"terminate_client 1 2: it failed with {said}"):
            control.terminate_client(1, 2)


def test_a_percentage_that_is_not_taken_over_and_a_fault_are_noticed(program: str) -> None:
    with (
        mps.daemon(program=program, environment={"STAND_IN": "ignore"}) as control,
        pytest.raises(MpsError, match="the default percentage is 100 after 50 was asked for"),
    ):
        control.set_default_percentage(50)
    with mps.daemon(program=program, environment={"STAND_IN": "fault"}) as control:
        control.start_server(0)
        (server,) = control.servers()
        control.ask(f"_join {server} 77")
        assert control.status(server) == "FAULT"


@pytest.mark.parametrize("fault", ["", "stubborn"])
def test_a_clients_work_ends_before_its_process(program: str, fault: str) -> None:
    with (
        mps.daemon(program=program, environment={"STAND_IN": fault}) as control,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
    ):
        control.start_server(0)
        (server,) = control.servers()
        control.ask(f"_join {server} {process.pid}")
        if fault:
            with pytest.raises(MpsError, match=r"has work in flight .* it was not killed"):
                mps.end_client(control, process, timeout_s=0.1)
            assert process.poll() is None
            process.kill()
        else:
            mps.end_client(control, process)
            assert process.returncode == -9
            assert control.clients(server) == []


def test_a_clients_environment(program: str) -> None:
    control = Control(Path("/p"), Path("/l"), program)
    assert mps.client_environment(control, percent=12.5, visible="GPU-7", memory="0=2G") == {
        "CUDA_MPS_PIPE_DIRECTORY": "/p", "CUDA_MPS_LOG_DIRECTORY": "/l",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "12.5", "CUDA_VISIBLE_DEVICES": "GPU-7",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2G",
    }  # fmt: skip
    with pytest.raises(MpsError, match="by UUID"):
        mps.client_environment(control, percent=10, visible="0")
    with pytest.raises(MpsError, match="one of them"):
        mps.client_environment(control)


def test_what_was_granted_is_read_in_a_client(driver: str) -> None:
    control = Control(Path("/p"), Path("/l"))
    environment = mps.client_environment(control, percent=25)
    assert mps.granted_sms(environment, most=33, library=driver) == 32
    with pytest.raises(MpsError, match="has 32 SMs, 16 were asked for"):
        mps.granted_sms(environment, most=16, library=driver)
    with pytest.raises(MpsError, match="runs without MPS: it found no daemon"):
        mps.granted_sms({}, library=driver)
    with pytest.raises(UnsupportedError, match="cuInit failed with 100"):
        mps.granted_sms({"NO_DEVICE": "1"}, library=driver)
    with pytest.raises(UnsupportedError, match="libnowhere"):
        mps.granted_sms(environment, library="libnowhere.so")


def test_a_plan_keeps_to_the_clients_a_server_takes() -> None:
    def part(name: str, kind: str, units: int, procs: int, **more: str) -> PartitionPlan:
        tenants = (Assignment("a", 1, 1, 9),)
        return PartitionPlan(name, kind, units, tenants, 0, procs, **more)

    full = GpuPlan(0, (part("a", "mps", 50, 24), part("b", "mps", 50, 24)))
    assert not [*_clients(full, 7)]
    over = GpuPlan(0, (*full.partitions, part("c", "mps", 1, 1)))
    assert [str(v) for v in _clients(over, 7)] == [
        "gpu 0: clients: 49 processes, an MPS server takes 48"
    ]
    inside = GpuPlan(0, (part("a", "mig", 1, 1), part("b", "mps", 100, 7, parent="a")))
    (violation,) = _clients(inside, 7)
    assert "7 processes, MPS in 1 slices takes 6" in str(violation)
