"""Partitions of SMs on a real device: disjoint, as large as granted, and dropped in any order."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch

from spacetime import _native

pytestmark = pytest.mark.gpu
Ids = Callable[[int], set[int]]


@pytest.fixture
def ids_of_units(native: _native.CudaDevice, sm_ids: Ids) -> list[set[int]]:
    parts = [native.partition([unit]) for unit in range(len(native.unit_sms))]
    return [sm_ids(part.stream) for part in parts]


def test_units_are_disjoint_and_as_large_as_granted(
    native: _native.CudaDevice, ids_of_units: list[set[int]]
) -> None:
    assert [len(ids) for ids in ids_of_units] == native.unit_sms
    for first, second in combinations(ids_of_units, 2):
        assert not first & second
    assert len(set().union(*ids_of_units)) == native.sms == sum(native.unit_sms)


def test_every_rung_runs_on_its_units_alone(
    native: _native.CudaDevice, sm_ids: Ids, ids_of_units: list[set[int]]
) -> None:
    made = [rung for rung in native.ladder() if not native.why_not(rung)]
    assert len(made) >= len(native.ladder()) - 2, native.refused  # a small remainder at most
    for rung in made:
        partition = native.partition(rung)
        assert partition.bounded
        assert partition.sms == sum(native.unit_sms[unit] for unit in rung)
        assert sm_ids(partition.stream) == set().union(*(ids_of_units[unit] for unit in rung))


def test_a_rung_and_its_complement_share_no_sm(native: _native.CudaDevice, sm_ids: Ids) -> None:
    units = len(native.unit_sms)
    for k in (1, units // 2, units - 1):
        low, high = (native.partition([*part]) for part in (range(k), range(k, units)))
        assert not sm_ids(low.stream) & sm_ids(high.stream)


def test_all_streams_of_a_partition_are_on_its_sms(native: _native.CudaDevice, sm_ids: Ids) -> None:
    partition = native.partition([0, 1])
    streams = (partition.stream, partition.capture_stream, partition.warm_stream)
    assert len(set(streams)) == 3
    homes = [sm_ids(stream) for stream in streams]
    assert homes[0] == homes[1] == homes[2]
    assert partition.__cuda_stream__() == (0, partition.stream)


def test_masks_that_are_no_rung_are_made_when_asked_for(
    native: _native.CudaDevice, sm_ids: Ids, ids_of_units: list[set[int]]
) -> None:
    draw = random.Random(0)
    before = native.contexts
    for _ in range(24):  # more than are kept
        mask = sorted(draw.sample(range(len(native.unit_sms)), 3))
        partition = native.partition(mask)
        assert sm_ids(partition.stream) == set().union(*(ids_of_units[unit] for unit in mask))
        del partition
    assert native.contexts - before <= 17


def test_a_held_partition_does_not_hold_the_others(native: _native.CudaDevice) -> None:
    pytest.importorskip("cupy")
    from spacetime.kernels.cuda.latch import Latch  # noqa: PLC0415

    held, free = native.partition([0]), native.partition([1])
    streams = [torch.cuda.ExternalStream(part.stream) for part in (held, free)]
    x = torch.zeros(1024, device="cuda")
    x.add_(0)  # its kernel is loaded before the latch: loading may wait for the whole device
    torch.cuda.synchronize()
    with Latch() as latch:
        latch.hold(held.stream)
        with torch.cuda.stream(streams[1]):
            x.add_(1)
        streams[1].synchronize()  # returns although the other partition is held
        assert not streams[0].query()
    assert not latch.gave_up
    assert float(x.sum()) == 1024


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_what_belongs_to_a_device_is_dropped_in_any_order(order: tuple[int, ...]) -> None:
    device = _native.CudaDevice.open(0)
    partition = device.partition([0])
    runner = _native.Runner(device, partition, inputs=[4], outputs=[4], buckets=[1])
    arena = _native.Arena(device, row_bytes=4096, rows=4)
    arena.map(0)
    held = {0: device, 1: partition, 2: runner, 3: arena}
    del device, partition, runner, arena
    for place in order:
        del held[place]
        gc.collect()
    torch.cuda.synchronize()
    assert _native.CudaDevice.open(0).lost is None


def test_dropped_partitions_give_their_contexts_back(native: _native.CudaDevice) -> None:
    for _ in range(2):  # the first round makes what stays
        parts = [native.partition([unit]) for unit in range(4) for _ in range(8)]
        del parts
        gc.collect()
        torch.cuda.synchronize()
        left = native.memory()[0]
    parts = [native.partition([unit]) for unit in range(4) for _ in range(8)]
    del parts
    gc.collect()
    torch.cuda.synchronize()
    assert abs(native.memory()[0] - left) <= 2**21


def test_more_units_than_there_are_is_refused(native: _native.CudaDevice) -> None:
    with pytest.raises(ValueError, match="not available"):
        native.partition([len(native.unit_sms)])
