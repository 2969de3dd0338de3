"""The processes of lanes: how they start, wait to start again, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as hst

import spacetime as st
from spacetime.errors import LaneLost
from spacetime.processes.keeper import backoff_s
from spacetime.processes.lanes import LaneProcesses


@given(hst.integers(0, 10_000))
def test_waiting_before_a_restart_grows_and_is_bounded(failures: int) -> None:
    assert 0 <= backoff_s(failures) <= backoff_s(failures + 1) <= 5
    assert backoff_s(0) == 0 < backoff_s(1) < backoff_s(2)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/python"], "could not be started: .*No such file"),
        ([sys.executable, "-c", "raise SystemExit(9)"], "did not start: it ended with status 9"),
        ([sys.executable, "-c", "import os; os.abort()"], "did not start: it was ended by SIGABRT"),
    ],
)
def test_a_process_that_does_not_start_is_one_clear_error(command: list[str], why: str) -> None:
    with pytest.raises(LaneLost, match=rf"^lane \d: its process {why}[^\n]*$"):
        LaneProcesses([(0,), (0,)], command=command)


def test_isolation_is_checked() -> None:
    with pytest.raises(st.InvalidInput, match="isolation must be 'thread' or 'process', got 'vm'"):
        st.Session("cpu", isolation="vm")
    with pytest.raises(st.InvalidInput, match="isolation must be 'thread' for partitions of kind"):
        st.Session("fake:h200", isolation="process")
    with (
        st.Session("cpu", lanes=1) as session,
        pytest.raises(st.InvalidInput, match="lane must be of cores, in a process of its own"),
    ):
        session.move_lane(0, session.device.cores)


OWN = """
    import torch, spacetime as st
    class Own(torch.nn.Module):
        def forward(self, x):
            return x * 3
    def run():
        with st.Session("cpu", isolation="process", lanes=1) as session:
            x = torch.ones(1, 2)
            print(float(session.add(Own().eval(), example_inputs=(x,))(x).sum()))
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_model_of_the_script_itself(tmp_path: Path, *, guarded: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(OWN) + ("if __name__ == '__main__':\n    run()\n" if guarded else "run()\n")
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment,
        check=False, timeout=120,
    )  # fmt: skip
    if guarded:
        assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    else:
        assert 'put what the script runs below `if __name__ == "__main__":`' in done.stderr


SCRIPT = """
    import os, signal, sys, torch, spacetime as st
    from models import X
    from proc_models import Troubled
    session = st.Session("cpu", isolation="process", lanes=1)
    tenant = session.add(Troubled().eval(), example_inputs=(X,))
    print(session.backend.lanes.pids[0], flush=True)
"""


@pytest.mark.parametrize("end", ["interrupt", "kill", "exit"])
def test_no_process_outlives_the_one_that_started_it(end: str) -> None:
    # A shell that starts jobs behind itself leaves SIGINT ignored; a terminal does not.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    body = heard + textwrap.dedent(SCRIPT) + {
        "interrupt": "try:\n    sys.stdin.read()\nfinally:\n    session.close()\n",
        "kill": "sys.stdin.read()\n",
        "exit": "sys.stdin.read()\nkept = [tenant.submit(torch.randn(16, 6)) for _ in range(99)]\n",
    }[end]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in (parent.pid, child.pid))
        assert "memfd:spacetime" in mapped
        named = {word for word in mapped.split() if word.startswith("/dev/shm/")}
        if end != "exit":
            parent.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGKILL)
        _, said = parent.communicate(timeout=60)
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not [name for name in named if Path(name).exists()]
    assert parent.returncode == {"interrupt": -2, "kill": -9, "exit": 0}[end] or "Interrupt" in said
