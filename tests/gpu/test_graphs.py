"""Captured graphs on a real device: they run on the SMs of their capture, wherever launched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from spacetime import _native
from spacetime.models.cuda.capture import Capturer, view

pytestmark = pytest.mark.gpu


class Noted:
    """A program that notes on which SMs its blocks run."""

    def __init__(self, native: _native.CudaDevice) -> None:
        pytest.importorskip("cupy")
        from spacetime.kernels import cuda  # noqa: PLC0415

        self._enqueue, self._kernel = cuda.enqueue, cuda.load("probe", "smid")
        self._ids = torch.full((4 * native.sms,), -1, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()

    def __call__(self) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        places = self._ids.data_ptr(), np.int64(200_000)
        self._enqueue(self._kernel, stream, len(self._ids), 32, *places)

    def taken(self) -> set[int]:
        torch.cuda.synchronize()
        found = set(self._ids.tolist()) - {-1}
        self._ids.fill_(-1)
        torch.cuda.synchronize()
        return found


def run_once(
    native: _native.CudaDevice, partition: _native.SmPartition, graph: _native.GraphExec
) -> tuple[int, int]:
    return timed(runner_of(native, partition, graph))


def runner_of(
    native: _native.CudaDevice, partition: _native.SmPartition, graph: _native.GraphExec
) -> _native.Runner:
    runner = _native.Runner(native, partition, inputs=[4], outputs=[4], buckets=[1])
    runner.add(1, graph)
    return runner


def timed(runner: _native.Runner) -> tuple[int, int]:
    source, target = torch.zeros(1), torch.zeros(1)
    payload = _native.Payload(0, 1, [source.data_ptr()], [target.data_ptr()])
    return runner.time([payload])


def test_a_graph_runs_on_the_sms_of_its_capture(
    native: _native.CudaDevice, capturer: Capturer, sm_ids: Callable[[int], set[int]]
) -> None:
    home, other = native.partition([0, 1]), native.partition([2, 3])
    noted = Noted(native)
    graph = capturer.capture(home, noted)
    noted.taken()  # of the warm-up
    run_once(native, home, graph)
    assert noted.taken() == sm_ids(home.stream)
    run_once(native, other, graph)  # launched elsewhere, it stays at home
    assert noted.taken() == sm_ids(home.stream)


def test_the_warm_up_stays_in_the_partition(
    native: _native.CudaDevice, capturer: Capturer, sm_ids: Callable[[int], set[int]]
) -> None:
    home, noted = native.partition([1]), Noted(native)
    graph = capturer.capture(home, noted)
    assert noted.taken() == sm_ids(home.stream)
    del graph


def test_a_runner_copies_in_launches_and_copies_out(
    native: _native.CudaDevice, capturer: Capturer
) -> None:
    partition = native.partition([0])
    runner = _native.Runner(native, partition, inputs=[12], outputs=[12], buckets=[4])
    source = view(runner.input_block, runner.input_offsets(4)[1], (4, 3), torch.float32, host=False)
    result = view(
        runner.output_block, runner.output_offsets(4)[0], (4, 3), torch.float32, host=False
    )
    runner.add(4, capturer.capture(partition, lambda: result.copy_(source * 2)))
    x, y = torch.randn(3, 3), torch.zeros(3, 3)
    payload = _native.Payload(0, 3, [x.data_ptr()], [y.data_ptr()])
    wall_ns, device_ns = runner.time([payload])
    torch.testing.assert_close(y, 2 * x)
    assert 0 < device_ns < wall_ns


def test_graphs_of_two_partitions_run_at_once(
    native: _native.CudaDevice, capturer: Capturer
) -> None:
    pytest.importorskip("cupy")
    from spacetime.kernels.cuda.latch import Latch  # noqa: PLC0415

    held, free = native.partition([0]), native.partition([1])
    x = torch.zeros(64, device="cuda")

    def counted() -> None:
        x.add_(1)

    graph = capturer.capture(free, counted)
    runner = runner_of(native, free, graph)  # its memory comes and goes with the device at rest
    before = float(x[0])
    with Latch() as latch:
        latch.hold(held.stream)
        timed(runner)  # would wait for ever behind the latch
    assert not latch.gave_up
    assert float(x[0]) == before + 1
