"""Nothing accepted is lost: lanes die and stop, models misbehave, callers give up, clocks jump."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from chaos import Books, Every, bursts, cancel_storm, open_session, trouble
from models import X
from proc_models import Troubled

from spacetime.processes.backend import ProcessBackend


@pytest.mark.parametrize(
    "seconds",
    [8.0, pytest.param(300.0, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
    ids=["short", "long"],
)
def test_every_accepted_request_is_answered_once_whatever_dies(seconds: float) -> None:
    books, did = Books(), Counter[str]()
    with open_session() as session:
        add = {"model": Troubled().eval(), "example_inputs": (X,)}
        plain = session.add(**add, name="plain")
        hurried = session.add(**add, name="hurried", slo_ms=150)
        limited = session.add(**add, name="limited", queue_limit=4)
        fickle = session.add(**add, name="fickle")
        poison = session.add(**add, name="poison")
        assert isinstance(session.backend, ProcessBackend)
        lanes = session.backend.lanes
        threads = [
            Every(40, bursts(books, [plain, hurried, limited]), seed=1),
            Every(5, cancel_storm(books, fickle), seed=2),
            Every(max(1.2, 10 / seconds), trouble(books, poison, lambda: lanes.pids, did), seed=3),
        ]
        threading.Event().wait(seconds)
        for thread in reversed(threads):
            thread.stop()
        changed = lanes._keeping.changed
        with changed:
            assert changed.wait_for(lambda: None not in lanes.pids, 120)
        assert lanes.restarts > 0
        for tenant in session.tenants.values():
            books.ask(tenant, 1.0)
        restarts = lanes.restarts
    became = books.balance(session)
    print(f"{dict(became)} after {dict(did)}, {restarts} restarts")
    assert set(did) == {"SIGKILL", "SIGSTOP", "exit", "segfault"}
    assert became["completed"] > 0
    assert became["cancelled"] > 0
    assert became["failed"] > 0
    assert became["refused"] > 0


JUMPS = """
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {  /* an hour ahead and a day back, in turn */
  static atomic_long calls;
  return atomic_fetch_add(&calls, 1) % 2 ? 3600 : -86400;
}
int clock_gettime(clockid_t clock, struct timespec* at) {
  long failed = syscall(SYS_clock_gettime, clock, at);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += jump();
  return (int)failed;
}
time_t time(time_t* out) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (out) *out = at.tv_sec;
  return at.tv_sec;
}
int gettimeofday(struct timeval* restrict at, void* restrict zone) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  at->tv_sec = precise.tv_sec;
  at->tv_usec = precise.tv_nsec / 1000;
  return 0;
}
"""
UNDER_JUMPS = """
import os, sys, time
from pathlib import Path
import pytest, torch
import spacetime as st
from models import X, mlp
from proc_models import HOLDS, Troubled
from spacetime.processes.backend import ProcessBackend

walls = [time.time() for _ in range(4)]
assert max(walls) - min(walls) > 80_000, "the clock does not jump"
gate = Path(sys.argv[1])
began = time.monotonic()
with st.Session("cpu", isolation=sys.argv[2], lanes=1) as session:
    model = Troubled(gate).eval()
    tenant = session.add(model, example_inputs=(X,))
    small = session.add(mlp(0), example_inputs=(X,), slo_ms=5000)
    hold = tenant.submit(torch.full((1, 6), HOLDS))
    for ms in (50, 300):
        asked = time.monotonic()
        with pytest.raises(st.DeadlineExceeded):
            small.submit(X, deadline_ms=ms).result(60)
        assert ms / 1000 <= time.monotonic() - asked < 30, ms
    hurried = small.submit(X, deadline_ms=60_000)
    gate.write_bytes(b"")
    hold.result(60)
    for future in [hurried, *(small.submit(X) for _ in range(200))]:
        assert future.result(60).shape == (1, 3)
    if isinstance(session.backend, ProcessBackend):
        assert session.backend.lanes.restarts == 0
    report = session.report()
assert 0.3 < report["seconds"] < time.monotonic() - began
assert report["tenants"][small.name]["attainment"] > 0.9
print("kept")
"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_wall_clock_that_jumps_moves_no_deadline(isolation: str, tmp_path: Path) -> None:
    source, library, gate = (tmp_path / name for name in ("jumps.c", "jumps.so", "gate"))
    source.write_text(JUMPS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    os.mkfifo(gate)
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", UNDER_JUMPS, str(gate), isolation],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == "kept\n", done.stderr
