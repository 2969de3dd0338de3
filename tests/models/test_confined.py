"""A graph whose kernels leave their partition is refused, and the model runs another way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from spacetime import Session, _native
from spacetime.devices.device import on_device
from spacetime.models.cuda import confined
from spacetime.models.cuda.confined import LeavesPartition, check

X = torch.randn(2, 3, 8, 8)


def convolution(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def opened(*, libraries_fork: bool) -> _native.FakeCudaDevice:
    return _native.FakeCudaDevice(_native.FakeDriver("h200", libraries_fork=libraries_fork))


@pytest.fixture(params=[2, 15], ids=["a partition", "the remainder"])
def partition(request: pytest.FixtureRequest) -> tuple[_native.FakeCudaDevice, int]:
    return opened(libraries_fork=False), request.param


def test_a_kernel_beside_the_partition_is_found(
    partition: tuple[_native.FakeCudaDevice, int],
) -> None:
    device, unit = partition
    home = device.partition([unit])
    inside = device.capture(home, flops=1, nbytes=1)
    assert _native.kernel_contexts(device, inside.graph) == [home.context]
    check(device, inside.graph, home.context)
    outside = device.capture(home, flops=1, nbytes=1, apart=True)
    assert home.context not in _native.kernel_contexts(device, outside.graph)
    with pytest.raises(LeavesPartition, match="1 of its 1 kernels would leave the partition"):
        check(device, outside.graph, home.context)
    check(device, outside.graph, 0)  # a driver that does not tell


def test_a_graph_of_another_partition_is_foreign_too() -> None:
    device = opened(libraries_fork=False)
    one, other = device.partition([0]), device.partition([1])
    graph = device.capture(one, flops=1, nbytes=1)
    with pytest.raises(LeavesPartition):
        check(device, graph.graph, other.context)


@pytest.mark.parametrize("share", [True, False], ids=["over slots", "alone"])
def test_cudnn_is_left_out_where_it_leaves_the_partition(*, share: bool) -> None:
    policy = "space-time" if share else "space-only"
    device = on_device("fake", opened(libraries_fork=True))
    with Session(device, policy=policy, lanes=2, max_batch=2) as session, torch.no_grad():
        tenants = [session.add(convolution(seed), example_inputs=(X,)) for seed in range(2)]
        for seed, tenant in enumerate(tenants):
            torch.testing.assert_close(tenant(X), convolution(seed)(X), rtol=1e-4, atol=1e-5)
        told = session.explain()
    assert "note: a graph was captured without cuDNN: with it 1 of its 1 kernels would" in told
    assert "captured graph a lane" in told
    assert torch.backends.cudnn.enabled  # as it was


def test_what_has_no_convolution_is_told_nothing() -> None:
    device = on_device("fake", opened(libraries_fork=True))
    with Session(device, lanes=1, max_batch=1) as session:
        session.add(nn.Linear(3, 2).eval(), example_inputs=(torch.randn(1, 3),))
        assert "cuDNN" not in session.explain()


def test_a_model_that_leaves_either_way_runs_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confined, "without_cudnn", nullcontext)
    native = opened(libraries_fork=True)
    with Session(on_device("fake", native), lanes=1, max_batch=1) as session, torch.no_grad():
        tenant = session.add(convolution(0), example_inputs=(X,))
        torch.testing.assert_close(tenant(X), convolution(0)(X), rtol=1e-4, atol=1e-5)
        told = session.explain()
    assert "PyTorch, eagerly on the lane's stream" in told
    assert "because: not captured: 1 of its 1 kernels would leave the partition" in told


def test_streams_that_bound_nothing_leave_nothing() -> None:
    old = _native.FakeDriver("h200", driver_version=12000, libraries_fork=True)
    device = on_device("fake", _native.FakeCudaDevice(old))
    with Session(device, lanes=1, max_batch=1) as session:
        session.add(convolution(0), example_inputs=(X,))
        assert "cuDNN" not in session.explain()


@pytest.mark.parametrize("leaves", [0, 1, 2])
def test_without_cudnn_is_the_second_try_and_the_last(leaves: int) -> None:
    tried: list[bool] = []

    def capture() -> Tensor:
        tried.append(torch.backends.cudnn.enabled)
        if len(tried) <= leaves:
            raise LeavesPartition("all of them")
        return X

    notes: list[str] = []
    attempt: Callable[[], Tensor] = lambda: confined.confined(capture, notes)  # noqa: E731
    if leaves == 2:
        with pytest.raises(LeavesPartition):
            attempt()
    else:
        assert attempt() is X
    assert tried == [True, False][: min(leaves, 1) + 1]
    assert len(notes) == (leaves == 1)
