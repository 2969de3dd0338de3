"""A session on a real device: the answers of every tenant alone, memory that comes and goes."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import nn

import spacetime as st
from spacetime import _native
from spacetime.errors import OutOfMemory
from spacetime.models.cuda.cuda_function import LaneStream

pytestmark = pytest.mark.gpu


def tiny(seed: int, width: int = 64) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4)).eval()


def test_inputs_and_answers_may_lie_on_the_device(native: _native.CudaDevice) -> None:
    model, x = tiny(0), torch.randn(3, 16)
    with st.Session("cuda:0") as session:
        tenant = session.add(model, example_inputs=(x[:1],))
        answer = tenant(x.cuda())
        assert answer.device.type == "cuda"
        with torch.no_grad():
            torch.testing.assert_close(answer.cpu(), model(x), rtol=1e-3, atol=1e-3)


def test_a_tenant_that_leaves_gives_its_memory_back(native: _native.CudaDevice) -> None:
    x = torch.randn(1, 16)
    wide = 2**20  # 80 MiB of weights
    with st.Session("cuda:0", lanes=1, max_batch=4) as session:
        held_by = session.device.native
        assert held_by is not None
        first = session.add(tiny(0, wide), example_inputs=(x,))
        session.remove(session.add(tiny(1, wide), example_inputs=(x,)))  # makes what stays
        gc.collect()
        torch.cuda.empty_cache()
        before = held_by.memory()[0]
        second = session.add(tiny(2, wide), example_inputs=(x,))
        held = before - held_by.memory()[0]
        assert held >= 4 * 20 * wide
        session.remove(second)
        torch.cuda.empty_cache()
        assert held_by.memory()[0] == before
        assert first(x).shape == (1, 4)


def test_a_tenant_over_its_limit_is_refused_and_the_others_run_on(
    native: _native.CudaDevice,
) -> None:
    x = torch.randn(1, 16)
    with st.Session("cuda:0") as session:
        first = session.add(tiny(0), example_inputs=(x,))
        with pytest.raises(OutOfMemory, match="need"):
            session.add(tiny(1, 2**20), example_inputs=(x,), memory_limit_mib=1.0)
        with torch.no_grad():
            torch.testing.assert_close(first(x), tiny(0)(x), rtol=1e-3, atol=1e-3)


def test_lanes_are_granted_as_asked_and_explained(native: _native.CudaDevice) -> None:
    units = len(native.unit_sms)
    with st.Session("cuda:0", lanes=[[0], [*range(1, units)]]) as session:
        told = session.explain()
    assert f"partition of {native.unit_sms[0]} SMs" in told
    assert "green contexts" in told


FAULT = """
import cupy, torch
import spacetime as st
from spacetime.errors import SpacetimeError

model = torch.nn.Linear(16, 4).eval()
x = torch.randn(1, 16)
session = st.Session("cuda:0")
tenant = session.add(model, example_inputs=(x,))
tenant(x)
wild = cupy.RawKernel('extern "C" __global__ void wild(int* p) { *p = 1; }', "wild")
wild((1,), (1,), (cupy.uint64(8),))  # an illegal address: every later call fails
try:
    cupy.cuda.runtime.deviceSynchronize()
except cupy.cuda.runtime.CUDARuntimeError as error:
    print("the device is lost:", error)
seen = []
for _ in range(3):
    try:
        tenant.submit(x).result(timeout=30)
        seen.append("answered")
    except SpacetimeError as error:
        seen.append(type(error).__name__)
        if type(error).__name__ == "DriverError":
            print("code", error.code)
print(seen)
try:
    session.close(drain=False)
finally:
    import os, sys
    sys.stdout.flush()
    os._exit(0)  # torch's own teardown aborts on a lost device
"""

AFTER = """
import torch
import spacetime as st
model = torch.nn.Linear(16, 4).eval()
x = torch.randn(1, 16)
with st.Session("cuda:0") as session:
    print(session.add(model, example_inputs=(x,))(x).shape)
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(200)  # two processes that import everything and open a session
def test_a_lost_device_tells_its_callers_and_a_new_process_can_use_it(
    native: _native.CudaDevice,
) -> None:
    pytest.importorskip("cupy")
    said = python(FAULT)
    assert "answered" not in said
    assert "DriverError" in said
    assert "code 7" in said  # 700 illegal address, or 719 and its like
    assert "torch.Size([1, 4])" in python(AFTER)


@pytest.mark.parametrize("library", ["cupy", "numba"])
def test_a_function_of_another_library_runs_on_its_lane(library: str) -> None:
    pytest.importorskip(library)
    seen: list[int] = []

    def by_cupy(stream: LaneStream, x: torch.Tensor) -> object:
        cupy = import_module("cupy")
        seen.append(stream.handle)
        with stream.cupy():
            return cupy.asarray(x) * 2

    def by_numba(stream: LaneStream, x: torch.Tensor) -> object:
        cuda, y = import_module("numba.cuda"), torch.empty_like(x)

        @cuda.jit  # type: ignore[untyped-decorator]
        def twice(x, y):  # type: ignore[no-untyped-def]
            i = cuda.grid(1)
            y[i] = 2 * x[i]

        seen.append(stream.handle)
        twice[1, x.numel(), stream.numba()](x.view(-1), y.view(-1))
        return y

    x = torch.randn(3, 5)
    with st.Session("cuda:0", lanes=1) as session:
        function = by_cupy if library == "cupy" else by_numba
        tenant = session.add(st.CudaFunction(function), example_inputs=(x,))
        seen.clear()
        for _ in range(3):
            assert torch.equal(tenant.submit(x).result(), 2 * x)
        assert 0 not in seen  # not the device's default stream
        assert len(set(seen)) == 1
