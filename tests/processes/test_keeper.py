"""Who keeps the lanes' processes: starts that fail, lanes that move meanwhile, forks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from signals import stop

from spacetime.errors import LaneLost
from spacetime.processes import keeper
from spacetime.processes.keeper import KeptLane
from spacetime.processes.lanes import LaneProcesses
from spacetime.processes.process import ChildProcess

# Each start takes one file out of a folder, if there is any: an empty one makes it fail, a FIFO
# holds it until somebody has written there.
GATED = """
import os, sys
folder, *given = sys.argv[1:]
for gate in sorted(os.listdir(folder)):
    mine = os.path.join(folder, "..", f"taken-{os.getpid()}")
    os.rename(os.path.join(folder, gate), mine)
    if not open(mine).read():
        raise SystemExit(9)
    break
os.execv(sys.executable, [sys.executable, "-m", "spacetime.processes.child", *given])
"""


def until(lanes: LaneProcesses, is_so: Callable[[KeptLane], object]) -> None:
    keeping = lanes._keeping
    with keeping.changed:
        assert keeping.changed.wait_for(lambda: is_so(keeping.lanes[0]), 60)


def kill(lanes: LaneProcesses) -> int:
    """Ends the first lane's process, and returns once its keeper has noticed."""
    (child,) = lanes._keeping.children
    os.kill(child.pid, signal.SIGKILL)
    child._popen.wait()
    noticed = threading.Event()
    while lanes._keeping.lanes[0].child is child:
        noticed.wait(0.001)
    return child.pid


OTHERS: set[psutil.Process] = set()  # of other tests: torch's compiler keeps its workers


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS.clear()
    OTHERS.update(psutil.Process().children())


def started() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in OTHERS]


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


@pytest.fixture
def lanes(gates: Path, others: None) -> Iterator[LaneProcesses]:
    """One lane whose starts go through `gates`."""
    before = len(os.listdir("/proc/self/fd"))
    lanes = LaneProcesses([(0,)], command=[sys.executable, "-c", GATED, str(gates)])
    yield lanes
    lanes.close()
    assert not started()
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # 0 to 2 are taken; poll(2) needs one
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_after_five_failed_starts_a_lane_stays_down_until_it_is_moved(lanes: LaneProcesses) -> None:
    with no_descriptors():  # every start fails at once
        kill(lanes)
        until(lanes, lambda lane: lane.given_up)
    assert lanes.pids == [None]
    with pytest.raises(LaneLost, match=r"no process can be started: .*Too many open files"):
        lanes.lines(0)
    lanes.replace(0, [0])
    assert None not in lanes.pids
    was = kill(lanes)  # and it is kept again
    until(lanes, lambda lane: lane.child is not None)
    assert was not in lanes.pids
    assert lanes.restarts == 1


def test_a_young_death_is_no_failed_start(
    lanes: LaneProcesses, gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_STARTS", 2)
    for gate in ([], ["fails"]):
        for name in gate:
            (gates / name).touch()
        was = kill(lanes)  # moments after it was born
        until(lanes, lambda lane: lane.child is not None or lane.given_up)
        assert lanes.pids not in ([None], [was])
    assert not list(gates.iterdir())


def test_a_lane_that_moves_while_its_process_is_restarted_has_one_process(
    lanes: LaneProcesses, gates: Path
) -> None:
    os.mkfifo(gates / "holds")
    was = kill(lanes)
    gate = gates.parent / "gate"
    while not (held := list(gates.parent.glob("taken-*"))):  # the keeper's start
        threading.Event().wait(0.001)
    gate = held[0]
    lanes.replace(0, [0])  # its start finds no gate
    moved = lanes.pids
    assert moved not in ([None], [was])
    gate.write_text("go on")
    psutil.wait_procs([child for child in started() if child.pid not in moved], timeout=60)
    assert [child.pid for child in started()] == moved == lanes.pids
    assert lanes.restarts == 0


def test_a_session_that_has_ended_moves_no_lane() -> None:
    lanes = LaneProcesses([(0,)])
    lanes.close()
    with pytest.raises(LaneLost, match="the session has ended its process"):
        lanes.replace(0, [0])
    assert not started()


def test_a_session_that_ends_starts_no_process_more(
    lanes: LaneProcesses, gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "backoff_s", lambda _: 0.0)  # as after a life of 10 s
    (gates / "of the next start").touch()
    lanes.close()
    assert list(gates.iterdir())


FORKS = """
    import os, torch, spacetime as st
    from models import X, mlp
    session = st.Session("cpu", isolation="process", lanes=1)
    tenant = session.add(mlp(0), example_inputs=(X,))
    pids = session.lane_pids
    forked = os.fork()
    if not forked:
        session.close()
        raise SystemExit(0)  # finalizers run there too
    assert os.waitpid(forked, 0)[1] == 0
    assert tenant.submit(X).result(60).shape == (1, 3)
    assert session.lane_pids == pids
    session.close()
    print("served")
"""


def test_a_process_forked_from_the_session_ends_none_of_its_lanes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "served\n", done.stderr


def test_a_process_that_hangs_while_it_is_told_of_a_model_is_ended() -> None:
    child = ChildProcess(0, [0])  # no lane's yet: no keeper watches it
    stop(child.pid)
    with pytest.raises(LaneLost, match=rf"its process {child.pid} was ended by SIGKILL"):
        child.tell("lines", tenant=0)
    child.release()
