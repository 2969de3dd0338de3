"""What a family is tuned and timed with: the weights of distinct tenants, from a cold L2."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from test_device_session import MIB, X, net
from torch import Tensor, fx

from spacetime import Session, _native
from spacetime.devices.device import on_device
from spacetime.errors import OutOfMemory
from spacetime.models.cuda.backend import CudaBackend
from spacetime.models.cuda.capture import TorchFake
from spacetime.models.cuda.family import CudaFamily


@dataclass(frozen=True)
class Watching(TorchFake):
    """A fake device's capturer that notes what it was asked to tune with, and when to flush."""

    tuned: list[tuple[list[int], list[Tensor]]] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)

    def tune(
        self, partition: _native.SmPartition, module: fx.GraphModule, operands: Sequence[Tensor]
    ) -> None:
        rows = operands[0].tolist()
        self.tuned.append((rows, [stack[rows].clone() for stack in operands[2:-1]]))

    def flush(self, partition: _native.SmPartition) -> None:
        self.flushed.append(partition.sms)


def watched(session: Session) -> Watching:
    backend = session.backend
    assert isinstance(backend, CudaBackend)
    lanes = backend.lanes
    capturer = Watching(lanes.native, lanes.capturer.device)  # type: ignore[arg-type]
    backend.lanes = replace(lanes, capturer=capturer)
    return capturer


def family_of(session: Session) -> Any:
    family = session.families[0]
    assert isinstance(family, CudaFamily)
    return family


def test_a_mixture_is_tuned_with_as_many_tenants_as_it_has_slots() -> None:
    with Session("fake:h200", sizes=[48, 84], max_batch=4) as session:
        capturer, device = watched(session), session.device.native
        assert device is not None
        tenant = session.add(net(0), example_inputs=(X,))
        family = family_of(session)
        assert sorted(len(rows) for rows, _ in capturer.tuned) == [1, 1, 2, 2, 4, 4]
        for rows, weights in capturer.tuned:
            assert len(set(rows)) == len(rows)
            for stack in weights:  # what a tenant lends is the first member's: nobody reads garbage
                assert torch.equal(stack, stack[:1].expand_as(stack))
        assert family.weights.rows == {0}
        assert family.weights.arena.mapped_bytes == family.weights.row_bytes
        assert "measured with the weights of 4 tenants, from a cold L2\n" in session.explain()
        assert torch.allclose(tenant(X), net(0)(X), rtol=1e-4, atol=1e-5)
        second = session.add(net(1), example_inputs=(X,))
        assert torch.allclose(second(X), net(1)(X), rtol=1e-4, atol=1e-5)


def test_every_timed_launch_finds_the_l2_cold() -> None:
    with Session("fake:h200", sizes=[48], max_batch=2) as session:
        capturer = watched(session)
        session.add(net(0), example_inputs=(X,))
        assert capturer.flushed == [48] * 6  # two buckets, three times each


def test_where_memory_is_short_fewer_tenants_are_lent() -> None:
    native = _native.FakeCudaDevice(_native.FakeDriver("h200", memory_bytes=16 * MIB))
    with Session(on_device("fake", native), max_batch=8) as session:
        capturer = watched(session)
        session.add(net(0), example_inputs=(X,))
        most = max((rows for rows, _ in capturer.tuned), key=len)
        assert len(most) == 8
        assert 1 < len(set(most)) < 8
        assert "tenants, from a cold L2, for memory is short" in session.explain()
        assert family_of(session).weights.arena.mapped_bytes == family_of(session).weights.row_bytes


def test_what_was_lent_goes_back_where_a_capture_fails() -> None:
    driver = _native.FakeDriver("h200")
    native = _native.FakeCudaDevice(driver)
    with Session(on_device("fake", native), max_batch=4) as session:
        before = native.memory()[0]
        driver.fail(1, 2, call="cuGraphLaunch")
        with pytest.raises(OutOfMemory, match="needs"):
            session.add(net(0), example_inputs=(X,))
        gc.collect()  # the error's traceback holds the family
        assert native.memory()[0] == before
        session.add(net(0), example_inputs=(X,))
