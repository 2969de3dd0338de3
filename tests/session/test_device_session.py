"""A session on a device with memory of its own: the fake, by the very path of a real one."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spacetime import Session, _native
from spacetime.devices.device import on_device, open_device
from spacetime.errors import (
    DriverError,
    InvalidInput,
    ModelError,
    OutOfMemory,
    SpacetimeError,
    UnsupportedError,
)
from spacetime.models.cuda.capture import TorchFake
from spacetime.session.tenant import Tenant

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MIB = 2**20
ASSERT = 710  # CUDA_ERROR_ASSERT
ILLEGAL_ADDRESS = 700


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 5),
    ).eval()


def inputs(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def session() -> Iterator[Session]:
    with Session("fake:h200", max_batch=4) as opened:
        yield opened


def fake(session: Session) -> _native.FakeCudaDevice:
    device = session.device.native
    assert isinstance(device, _native.FakeCudaDevice)
    return device


def test_every_mixture_is_answered_as_by_the_models_alone(session: Session) -> None:
    models = [net(seed) for seed in range(3)]
    tenants = [session.add(model, example_inputs=(X,)) for model in models]
    assert len(session.families) == 1
    sizes = [1, 2, 3, 4, 5, 9, 1, 1]  # also more samples than the largest graph holds
    wanted, futures = [], []
    for i, count in enumerate(sizes * 3):
        x = inputs(count, i)
        futures.append(tenants[i % 3].submit(x))
        with torch.no_grad():
            wanted.append(models[i % 3](x))
    for future, expected in zip(futures, wanted, strict=True):
        torch.testing.assert_close(future.result(timeout=20), expected, rtol=1e-4, atol=1e-5)


def test_joining_and_leaving_capture_nothing_and_move_memory_exactly(session: Session) -> None:
    first = session.add(net(0), example_inputs=(X,))
    driver, device = fake(session).driver, fake(session)
    live, free = driver.live, device.memory()[0]
    second = session.add(net(1), example_inputs=(X,))
    row = free - device.memory()[0]
    assert row == session.families[0].weights.row_bytes  # type: ignore[union-attr]
    assert driver.live == {**live, "mappings": 2, "physical": 2}
    session.remove(second)
    assert device.memory()[0] == free
    assert driver.live == live
    third = session.add(net(2), example_inputs=(X,))
    assert third.member == second.member  # the row is used again
    with torch.no_grad():
        torch.testing.assert_close(third(X), net(2)(X), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first(X), net(0)(X), rtol=1e-4, atol=1e-5)


def test_the_last_member_takes_the_graphs_with_it(session: Session) -> None:
    free = fake(session).memory()[0]
    before = fake(session).driver.live
    tenant = session.add(net(0), example_inputs=(X,))
    session.remove(tenant)
    assert session.families == []
    del tenant
    gc.collect()
    after = fake(session).driver.live
    assert fake(session).memory()[0] == free
    assert {k: after[k] for k in ("graphs", "graph execs", "mappings", "allocations")} == {
        k: before[k] for k in ("graphs", "graph execs", "mappings", "allocations")
    }


class Doubtful(nn.Module):
    """Its path depends on its input: no graph can hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -x


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.rand_like(x)


class Centred(nn.Module):
    """Rows depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) * self.scale


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Doubtful(), "not exported"),
        (Noisy(), "random"),
        (Centred(), "not proven that samples are apart"),
    ],
)
def test_what_no_graph_can_hold_runs_eagerly(
    session: Session, model: nn.Module, reason: str
) -> None:
    x = torch.ones(3, 4)
    tenant = session.add(model.eval(), example_inputs=(x,))
    answer = tenant(x)
    assert reason in session.explain()
    with torch.no_grad():
        tolerance = 2.0 if "random" in reason else 1e-5
        torch.testing.assert_close(answer, model(x), atol=tolerance, rtol=0)


def test_attention_without_dropout_is_not_taken_for_random(session: Session) -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 24)
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.project(x).chunk(3, -1)
            return self.dropout(nn.functional.scaled_dot_product_attention(q, k, v))

    model, x = Attend().eval(), torch.randn(2, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(session.add(model, example_inputs=(x,))(x), model(x))
    assert "super-kernels over slots" in session.explain()


def test_structures_and_kinds_pass_through(session: Session) -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, ids: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
            values = self.table(ids) * scale[:, None, None]
            return {"sum": values.sum((1, 2)), "most": values.argmax(-1)}

    model = Many().eval()
    ids, scale = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([0.5, 2.0])
    tenant = session.add(model, example_inputs=(ids,), example_kwargs={"scale": scale})
    got, want = tenant(ids, scale=scale), model(ids, scale=scale)
    assert torch.equal(got["most"], want["most"])
    torch.testing.assert_close(got["sum"], want["sum"])


def test_a_tenant_that_does_not_fit_is_refused_and_the_others_run() -> None:
    driver = _native.FakeDriver("h200", memory_bytes=16 * MIB)
    native = _native.FakeCudaDevice(driver)
    with Session(on_device("fake", native), max_batch=2) as session:

        def add(seed: int) -> Tenant:
            return session.add(net(seed), example_inputs=(X,))

        kept = [add(0)]
        needs = r"needs 2,097,152 bytes and the device leaves [\d,]+;"
        with pytest.raises(OutOfMemory, match=needs):
            kept.extend(map(add, range(1, 20)))
        assert 2 <= len(kept) < 10
        for seed, tenant in enumerate(kept):
            with torch.no_grad():
                torch.testing.assert_close(tenant(X), net(seed)(X), rtol=1e-4, atol=1e-5)
        session.remove(kept.pop())
        session.add(net(30), example_inputs=(X,))


def test_graphs_that_do_not_fit_are_refused_with_bytes() -> None:
    native = _native.FakeCudaDevice(_native.FakeDriver("h200", memory_bytes=8 * MIB))
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with Session(on_device("fake", native), max_batch=4) as session:
        with pytest.raises(OutOfMemory, match=r"needs [\d,]+ bytes and its graphs' buffers aside"):
            session.add(model, example_inputs=(torch.zeros(1, 3, 512, 512),))
        assert session.add(net(0), example_inputs=(X,))(X).shape == (1, 5)


def test_a_partition_too_small_for_a_cluster_is_named() -> None:
    driver = _native.FakeDriver("h200")
    native = _native.FakeCudaDevice(driver)
    with Session(on_device("fake", native), sizes=[8], max_batch=1) as session:
        driver.fail(1, 912, call="cuGraphLaunch")
        with pytest.raises(UnsupportedError, match="a partition of 8 SMs cannot hold"):
            session.add(net(0), example_inputs=(X,))


def test_priorities_are_the_streams_own() -> None:
    with Session("fake:h200", lanes=[[0, 1], [1, 2]], priorities=[0, 5]) as session:
        assert session.add(net(0), example_inputs=(X,))(X).shape == (1, 5)
    with pytest.raises(InvalidInput, match="one for each of 1 lanes, from 0 to 5"):
        Session("fake:h200", lanes=1, priorities=[6])
    with pytest.raises(InvalidInput, match="from 0 to 0"):
        Session("cpu", lanes=1, priorities=[1])


@pytest.mark.parametrize(("fails", "how"), [(1, "the model alone, one"), (2, "eagerly")])
def test_what_cannot_be_captured_runs_another_way_and_says_so(
    session: Session, monkeypatch: pytest.MonkeyPatch, fails: int, how: str
) -> None:
    """PyTorch refuses some operations while it captures: only a real one does, so it is injected"""
    captured = TorchFake.capture
    left = [fails]

    def capture(self: TorchFake, *args: Any) -> _native.GraphExec:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return captured(self, *args)

    monkeypatch.setattr(TorchFake, "capture", capture)
    free = fake(session).memory()[0]
    tenant = session.add(net(0), example_inputs=(X,))
    with torch.no_grad():
        torch.testing.assert_close(tenant(X), net(0)(X), rtol=1e-4, atol=1e-5)
    assert how in session.explain()
    assert "because: not captured: operation not permitted when stream is" in session.explain()
    session.remove(tenant)
    gc.collect()
    assert fake(session).memory()[0] == free


def test_a_memory_limit_is_held(session: Session) -> None:
    free = fake(session).memory()[0]
    with pytest.raises(OutOfMemory, match="its memory limit leaves 1,048,576;") as refused:
        session.add(net(0), example_inputs=(X,), memory_limit_mib=1)
    assert (refused.value.needed, refused.value.free) == (2 * MIB, MIB)
    gc.collect()
    assert fake(session).memory()[0] == free
    session.add(net(0), example_inputs=(X,), memory_limit_mib=2)
    with pytest.raises(InvalidInput, match="memory_limit_mib must be a positive number"):
        session.add(net(1), example_inputs=(X,), memory_limit_mib=-1)


def test_a_lost_device_fails_each_caller_once_and_refuses_the_rest() -> None:
    session = Session("fake:h200", max_batch=4)
    tenants = [session.add(net(seed), example_inputs=(X,)) for seed in range(2)]
    fake(session).driver.poison(ILLEGAL_ADDRESS)
    futures = []
    with contextlib.suppress(DriverError):  # as soon as the loss is known
        for i in range(50):
            futures.append(tenants[i % 2].submit(X))  # noqa: PERF401
    errors = [future.exception(timeout=20) for future in futures]
    assert all(isinstance(error, (DriverError, type(None))) for error in errors)
    lost = [error for error in errors if isinstance(error, DriverError)]
    assert lost
    assert {error.code for error in lost} == {ILLEGAL_ADDRESS}
    assert "one in a new process" in str(lost[-1])
    with pytest.raises(DriverError, match="the device is lost"):
        tenants[0].submit(X)
    with pytest.raises(DriverError, match="the device is lost"):
        session.add(net(3), example_inputs=(X,))
    session.close()
    with Session("fake:h200") as again:
        assert again.add(net(0), example_inputs=(X,))(X).shape == (1, 5)


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(x)


class Quotient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 6 // x


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (nn.Sequential(nn.Embedding(4, 3)), torch.tensor([[1, 2]]), torch.tensor([[1, 99]])),
        (nn.EmbeddingBag(4, 3, mode="max"), torch.tensor([[1, 2]]), torch.tensor([[-1, 2]])),
        (Inverse(), torch.eye(3)[None], torch.zeros(1, 3, 3)),
        (Quotient(), torch.tensor([[1, 2]]), torch.tensor([[1, 0]])),
    ],
)
def test_what_a_model_raises_is_its_callers_and_loses_no_device(
    session: Session, model: nn.Module, good: Tensor, bad: Tensor
) -> None:
    tenants = [session.add(model.eval(), example_inputs=(good,)) for _ in range(2)]
    futures = [tenants[i % 2].submit(bad if i % 5 == 2 else good) for i in range(12)]
    for i, future in enumerate(futures):
        if i % 5 == 2:
            with pytest.raises(ModelError):
                future.result(timeout=20)
        else:
            assert torch.equal(future.result(timeout=20), model(good))
    assert fake(session).lost is None


def test_driver_versions_decide_the_mechanism() -> None:
    old = _native.FakeCudaDevice(_native.FakeDriver("h200", driver_version=12000))
    with Session(on_device("fake", old), lanes=1) as session:
        tenant = session.add(net(0), example_inputs=(X,))
        assert tenant(X).shape == (1, 5)
        said = session.explain()
    assert "streams with priorities, on all SMs: the driver (CUDA 12.0) has no" in said


@pytest.mark.parametrize("driver_version", [12040, 12050, 12090, 13000])
@pytest.mark.parametrize("model", ["h200", "a100-80gb", "b200", "v100"])
def test_partitions_are_granted_as_the_split_gives_them(model: str, driver_version: int) -> None:
    device = _native.FakeCudaDevice(_native.FakeDriver(model, driver_version=driver_version))
    if driver_version < 12050:
        assert "cuGreenCtxStreamCreate" in device.why_unbounded
        return
    assert sum(device.unit_sms) == device.sms
    for rung in device.ladder():
        assert device.partition(rung).sms == sum(device.unit_sms[u] for u in rung)


def test_sizes_round_up_to_units_and_say_so() -> None:
    with Session("fake:h200", sizes=[20, 100]) as session:
        assert [session.device.size(p) for p in session.partitions] == [20, 104]
        assert "partition of 104 SMs" in session.explain()
    wrong = r"lanes\[1\]: 120 SMs are not there; .*15 groups of 8"
    with pytest.raises(UnsupportedError, match=wrong):
        Session("fake:h200", sizes=[20, 120])
    with pytest.raises(InvalidInput, match="sizes must be given without lanes"):
        Session("fake:h200", sizes=[20], lanes=2)


@pytest.mark.parametrize("order", [["session", "tenant"], ["tenant", "session"]])
@pytest.mark.parametrize("close", [True, False])
def test_whatever_is_dropped_first_nothing_is_left(order: list[str], close: bool) -> None:
    driver = _native.FakeDriver("h200")
    native = _native.FakeCudaDevice(driver)
    held: dict[str, object] = {"session": Session(on_device("fake", native), max_batch=2)}
    held["tenant"] = held["session"].add(net(0), example_inputs=(X,))  # type: ignore[attr-defined]
    if close:
        held["session"].close()  # type: ignore[attr-defined]
    del native
    for name in order:
        del held[name]
        gc.collect()
    assert set(driver.live.values()) == {0}


def test_nothing_opens_the_fake_unasked() -> None:
    assert not open_device("auto").fake
    with pytest.raises(UnsupportedError, match="fake:tpu"):
        open_device("fake:tpu")


def test_errors_of_the_driver_carry_call_and_code() -> None:
    error = DriverError("cuGraphLaunch", 700, "text")
    assert isinstance(error, SpacetimeError)
    assert (error.call, error.code, str(error)) == ("cuGraphLaunch", 700, "text")
    assert not isinstance(error, ModelError)
