"""Lanes that are processes with a device of their own: shares of MPS and MIG instances."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import Branch, X, mlp
from signals import stop
from test_mps import program

import spacetime as st
from spacetime.errors import LaneLost
from spacetime.isolation import mps
from spacetime.isolation.mig_control import Instance
from spacetime.isolation.shares import mig_shares, mps_shares

__all__ = ["program"]  # a fixture


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def session(program: str) -> Iterator[st.Session]:
    with mps.daemon(program=program) as control:
        device = mps_shares(control, [25, 50], within="fake:h200")
        with st.Session(device) as session:
            yield session


def test_a_share_is_a_lane_with_its_environment(session: st.Session) -> None:
    first, second = (
        dict(
            line.split("=", 1)
            for line in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in line
        )
        for pid in session.lane_pids
    )
    assert first["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
    assert second["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert first["CUDA_MPS_PIPE_DIRECTORY"] == second["CUDA_MPS_PIPE_DIRECTORY"]
    text = session.explain()
    assert "device fake:h200 by mps: 75 percent" in text
    assert "lane 0: partition of 25 percent, units [0], its process sees 132 SMs" in text


def test_models_run_on_the_device_in_the_process(session: st.Session) -> None:
    models = [mlp(0), mlp(1), Branch().eval()]
    tenants = [session.add(m, example_inputs=(X,)) for m in models]
    asked = []
    for i in range(60):
        x = torch.randn(1 + i % 3, 6)
        asked.append((i % 3, x, tenants[i % 3].submit(x)))
    for i, x, future in asked:
        same(future.result(60), models[i](x).detach())
    assert "family of 2: tenant-0, tenant-1" in session.explain()
    pid = session.lane_pids[0]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for i, x, _ in asked[:20]:
        same(tenants[i](x), models[i](x).detach())
    for tenant in tenants:
        session.remove(tenant)


def test_a_share_that_hangs_is_ended_through_the_daemon_first(program: str) -> None:
    with mps.daemon(program=program) as control:
        control.start_server(0)
        (server,) = control.servers()
        with st.Session(mps_shares(control, [50], within="fake:h200")) as session:
            tenant = session.add(Branch().eval(), example_inputs=(X,))
            (pid,) = session.lane_pids
            assert pid is not None
            control.ask(f"_join {server} {pid}")  # as CUDA would
            stop(pid)
            same(tenant(X), X - 1)  # by the process that came after
            assert session.lane_pids != [pid]
            assert control.clients(server) == []


def test_an_instance_is_a_lane_that_sees_only_itself() -> None:
    instances = {"g0p0": Instance(1, 9, 0, "MIG-aaaa"), "g0p1": Instance(2, 9, 4, "MIG-bbbb")}
    device = mig_shares(instances, {"g0p0": 3, "g0p1": 3})
    assert [e["CUDA_VISIBLE_DEVICES"] for e in device.environments] == ["MIG-aaaa", "MIG-bbbb"]
    assert (device.kind, device.sizes, device.within) == ("mig", (3, 3), "cuda:0")
    with pytest.raises(st.InvalidInput, match="instances must be at least one"):
        mig_shares({}, {})


def test_shares_that_cannot_be_opened_are_one_line(program: str) -> None:
    with mps.daemon(program=program) as control:
        nowhere = mps_shares(control, [50], within="cuda:7")
        with pytest.raises(LaneLost, match=r"^lane 0: its process did not start: [^\n]*$"):
            st.Session(nowhere)
        with pytest.raises(st.InvalidInput, match="lanes must be left out, for each share"):
            st.Session(replace(nowhere, within="fake:h200"), lanes=1)
        with pytest.raises(st.InvalidInput, match="percents must be at least one"):
            mps_shares(control, [])
