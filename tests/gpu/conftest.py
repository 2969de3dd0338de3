"""What the tests on a CUDA device share. Without a device they are skipped, saying why."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator

import pytest
import torch

from spacetime import _native
from spacetime.devices.device import Device, open_device
from spacetime.errors import UnsupportedError
from spacetime.models.cuda.capture import Capturer, capturer_of

# A kernel that is loaded on its first launch would wait for one that spins, as latches do. Read by
# the driver when it is initialised, like the number of queues that open_device() asks for: other
# tests initialise it while they are collected, so that it is set before it is known who runs.
LOADING = "CUDA_MODULE_LOADING"
ASKED_HERE = LOADING not in os.environ
os.environ.setdefault(LOADING, "EAGER")

NAME = "cuda:0"
BLOCKS_AN_SM = 4  # of a kernel that notes where it runs: no SM is left out


def pytest_collection_finish(session: pytest.Session) -> None:
    """Takes the variable back where no test of a device was selected: it is not for the others."""
    if ASKED_HERE and not any(test.get_closest_marker("gpu") for test in session.items):
        del os.environ[LOADING]


@pytest.fixture(scope="session")
def device() -> Device:
    """The opened device; the tests are skipped where there is none."""
    try:
        opened = open_device(NAME)
    except UnsupportedError as reason:
        pytest.skip(str(reason))
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    return opened


@pytest.fixture(scope="session")
def native(device: Device) -> _native.CudaDevice:
    """The native device, which bounds partitions."""
    assert device.native is not None
    assert device.native.why_unbounded == ""
    return device.native


@pytest.fixture(scope="session")
def capturer(native: _native.CudaDevice) -> Capturer:
    """What captures graphs with PyTorch."""
    return capturer_of(native, NAME)


@pytest.fixture
def sm_ids(native: _native.CudaDevice) -> Callable[[int], set[int]]:
    """The SMs on which blocks run that are launched on a stream, by its handle."""
    pytest.importorskip("cupy")
    from spacetime.kernels.cuda.probe import multiprocessors  # noqa: PLC0415

    blocks = BLOCKS_AN_SM * native.sms
    return lambda stream: set(multiprocessors(stream, blocks))


@pytest.fixture(autouse=True)
def settled(device: Device) -> Iterator[None]:
    """Each test starts from a quiet device, and fails if it leaves an error behind."""
    torch.cuda.synchronize()
    yield
    gc.collect()
    torch.cuda.synchronize()
    assert device.native is not None
    assert device.native.lost is None
