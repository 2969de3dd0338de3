"""Functions that launch kernels of their own, as tenants: what they are given and what they return.

Numba's kernels run in its simulator, CuPy's only where a device is (tests/gpu).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import spacetime as st
from spacetime.models.cuda.cuda_function import LaneStream

DEVICES = ["cpu", "fake:h200"]
EXAMPLE = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")


def answers(device: str, function: Callable[..., Any], *requests: Tensor) -> list[Any]:
    with st.Session(device, lanes=1) as session:
        tenant = session.add(st.CudaFunction(function), example_inputs=(EXAMPLE,))
        futures = [tenant.submit(x) for x in requests]
        return [future.result(timeout=60) for future in futures]


@pytest.mark.parametrize("device", DEVICES)
def test_each_request_is_answered_as_it_was_asked(device: str) -> None:
    requests = [torch.randn(rows, 6) for rows in (1, 3, 2, 1)]
    found = answers(device, lambda stream, x: np.exp(x) - 1, *requests)
    for x, y in zip(requests, found, strict=True):
        torch.testing.assert_close(y, torch.expm1(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_memory_that_a_function_uses_again_changes_no_answer(device: str) -> None:
    held = np.empty((1, 6), np.float32)

    def overwrites(stream: LaneStream, x: np.ndarray) -> dict[str, Any]:
        if len(x) != 1:
            return {"twice": 2 * x, "half": torch.from_numpy(x / 2)}
        np.multiply(x, 2, out=held)
        return {"twice": held, "half": torch.from_numpy(x / 2)}

    requests = [torch.full((1, 6), float(value)) for value in range(5)]
    for x, found in zip(requests, answers(device, overwrites, *requests), strict=True):
        assert found.keys() == {"twice", "half"}
        assert torch.equal(found["twice"], 2 * x)
        assert torch.equal(found["half"], x / 2)


@pytest.mark.parametrize("device", DEVICES)
def test_a_function_may_fail_for_one_request_alone(device: str) -> None:
    def picky(stream: LaneStream, x: np.ndarray) -> np.ndarray:
        if (x == 7).any():
            raise RuntimeError("no seven")
        return x + 1

    with st.Session(device, lanes=1) as session:
        tenant = session.add(st.CudaFunction(picky), example_inputs=(EXAMPLE,))
        bad, good = tenant.submit(torch.full((1, 6), 7.0)), tenant.submit(torch.zeros(1, 6))
        with pytest.raises(st.ModelError, match="no seven"):
            bad.result(timeout=60)
        assert torch.equal(good.result(timeout=60), torch.ones(1, 6))


@pytest.mark.parametrize("device", DEVICES)
def test_it_is_said_how_it_runs(device: str) -> None:
    with st.Session(device, lanes=1) as session:
        session.add(st.CudaFunction(lambda stream, x: x + 1), example_inputs=(EXAMPLE,))
        assert "a CudaFunction is not exported or traced" in session.explain()


def test_a_stream_speaks_the_protocol() -> None:
    assert LaneStream(0x70).__cuda_stream__() == (0, 0x70)
    assert LaneStream(0).numba() == 0
    with pytest.raises(TypeError, match="function: must be callable, got int"):
        st.CudaFunction(3)  # type: ignore[arg-type]


def in_simulator(*command: str) -> str:
    """A process of its own: numba reads the variable once, when it is imported."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_numba
def test_the_example_runs_in_the_simulator() -> None:
    assert in_simulator("examples/own_kernels.py", "cpu") == "numba: as PyTorch's softplus\n"


@needs_numba
def test_a_kernel_of_numba_shares_a_session_with_modules() -> None:
    code = """
import sys, torch, spacetime as st
sys.path.insert(0, "examples")
from own_kernels import by_numba
x, linear = torch.randn(3, 6), torch.nn.Linear(6, 2).eval()
with st.Session("fake:h200", lanes=1) as session:  # the simulator runs one kernel at a time
    own = session.add(st.CudaFunction(by_numba), example_inputs=(x,))
    other = session.add(linear, example_inputs=(x,))
    pairs = [(own.submit(x * k), other.submit(x * k)) for k in range(4)]
    for k, (a, b) in enumerate(pairs):
        torch.testing.assert_close(a.result(), torch.nn.functional.softplus(x * k))
        torch.testing.assert_close(b.result(), linear(x * k).detach())
"""
    in_simulator("-c", code)
