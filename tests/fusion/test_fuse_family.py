"""A family in use: tenants join and leave, scripts run without the interpreter lock, memory."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from fuse_models import tenants_of
from torch import Tensor, nn

from spacetime.fusion import Fused, fuse


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    )


@pytest.fixture
def models() -> list[nn.Module]:
    return tenants_of(small, 5)


@pytest.fixture
def fused(models: list[nn.Module]) -> Fused:
    states = [m.state_dict() for m in models[:4]]
    return fuse(models[0], states, example_inputs=(torch.randn(2, 3, 4, 4),))


def alone(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = model(x)
    return y


def assert_tenant(fused: Fused, number: int, model: nn.Module) -> None:
    x = torch.randn(3, 3, 4, 4)
    index = torch.tensor([number] * 3)
    want = alone(model, x)
    for got in (fused(x, index=index), fused.script()(index, x)[0], fused.alone(number)(x)[0]):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_append_gives_the_next_number(fused: Fused, models: list[nn.Module]) -> None:
    script = fused.script()
    assert fused.append(models[4].state_dict()) == 4
    assert fused.tenants == 5
    for number, model in enumerate(models):
        assert_tenant(fused, number, model)
    x = torch.randn(5, 3, 4, 4)
    got = script(torch.tensor([4, 0, 1, 4, 3]), x)[0]
    torch.testing.assert_close(got[3:4], alone(models[4], x[3:4]), rtol=1e-4, atol=1e-5)


def test_remove_keeps_the_other_numbers_and_returns_memory(
    fused: Fused, models: list[nn.Module]
) -> None:
    before = fused.stacks.nbytes
    call = fused.alone(1)
    fused.remove(1)
    assert fused.tenants == 3
    assert fused.stacks.nbytes == before * 3 // 4
    for number in (0, 2, 3):
        assert_tenant(fused, number, models[number])
    x = torch.randn(2, 3, 4, 4)
    for gone in (1, 4, -1):
        with pytest.raises(IndexError, match="not in this family"):
            fused(x, index=torch.tensor([0, gone]))
    with pytest.raises(IndexError, match="tenant 1"):
        fused.remove(1)
    with pytest.raises(IndexError, match="tenant 1"):
        call(x)
    assert fused.append(models[1].state_dict()) == 4
    assert_tenant(fused, 4, models[1])


def test_removed_storage_goes_with_its_last_user(fused: Fused) -> None:
    storage = weakref.ref(fused.stacks.storage[0])
    held = fused.stacks
    fused.remove(0)
    gc.collect()
    assert storage() is not None
    del held
    gc.collect()
    assert storage() is None


def test_neither_the_template_nor_the_state_dicts_stay_alive() -> None:
    models = tenants_of(small, 3)
    fused = fuse(
        models[0], [m.state_dict() for m in models], example_inputs=(torch.randn(2, 3, 4, 4),)
    )
    fused.script()(torch.tensor([0, 1]), torch.randn(2, 3, 4, 4))
    tensors = [weakref.ref(p) for m in models for p in m.parameters()]
    del models
    gc.collect()
    assert [ref for ref in tensors if ref() is not None] == []


def test_memory_stays_within_the_bound_while_tenants_join(models: list[nn.Module]) -> None:
    example = (torch.randn(2, 3, 4, 4),)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=example)
    for joined in range(60):
        fused.append(models[joined % 5].state_dict())
        report = fused.report
        allowed = 1.1 * report.own_bytes_per_tenant * fused.tenants
        assert fused.stacks.nbytes <= allowed + report.own_bytes_per_tenant


def test_calls_are_undisturbed_by_joining_and_leaving(
    fused: Fused, models: list[nn.Module]
) -> None:
    script = fused.script()
    x = torch.randn(2, 3, 4, 4)
    index = torch.tensor([3, 0])
    want = [alone(models[t], x[s : s + 1]) for s, t in enumerate(index.tolist())]
    script(index, x)
    stop = threading.Event()
    wrong: list[Any] = []

    def serve() -> None:
        while not stop.is_set():
            got = script(index, x)[0]
            if not all(torch.allclose(got[s], want[s][0], 1e-4, 1e-5) for s in (0, 1)):
                wrong.append(got)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        fused.remove(fused.append(models[4].state_dict()))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_scripts_release_the_interpreter_lock() -> None:
    """Pure Python counts on while a script runs: the count changes between call and return."""
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(16))).eval()
    fused = fuse(model, [model.state_dict()] * 2, example_inputs=(torch.randn(2, 2048, 256),))
    script = fused.script()
    index, x = torch.tensor([1, 0]), torch.randn(2, 2048, 256)
    script(index, x)
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    progress = []
    for _ in range(7):
        before = counted[0]
        script(index, x)
        progress.append(counted[0] - before)
    done.set()
    thread.join()
    # With the lock held, only a switch in the instants around a call could add to the count.
    assert sorted(progress)[3] > 0, progress


def test_state_dicts_that_do_not_fit_are_refused(fused: Fused, models: list[nn.Module]) -> None:
    good = models[0].state_dict()
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({k: v for k, v in good.items() if k != "4.bias"}, "'4.bias' is missing"),
        ({**good, "4.bias": torch.zeros(6)}, r"'4.bias' is \(6,\)"),
        ({**good, "4.bias": torch.zeros(5).double()}, "float64"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=message):
            fused.append(state)
    assert fused.tenants == 4


def test_a_family_of_one_is_tuned_for_the_tenants_to_come(models: list[nn.Module]) -> None:
    x = torch.randn(4, 3, 4, 4)
    fused = fuse(models[0], [models[0].state_dict()], example_inputs=(x,))
    script = fused.script()
    script(torch.zeros(4, dtype=torch.int64), x)
    numbers = [0, *(fused.append(m.state_dict()) for m in models[1:4])]
    index = torch.tensor(numbers[::-1])
    got = script(index, x)[0]
    for slot, tenant in enumerate(index.tolist()):
        want = alone(models[tenant], x[slot : slot + 1])
        torch.testing.assert_close(got[slot : slot + 1], want, rtol=1e-4, atol=1e-5)


def test_inputs_of_another_shape_or_dtype_are_refused(fused: Fused) -> None:
    for bad in (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 4).double()):
        with pytest.raises(ValueError, match=r"leaf 0 must be .*\[S, 3, 4, 4\]"):
            fused(bad, index=torch.tensor([0, 1]))


def test_bad_indices_are_refused(fused: Fused) -> None:
    x = torch.randn(2, 3, 4, 4)
    others: list[Any] = [
        torch.tensor([0]), torch.tensor([0.0, 1.0]), torch.tensor([False, True]), torch.tensor(0),
        torch.tensor([[0, 1]]), [0], [0, 1.0], [True, False], [0, 1 << 70], "01", 0, None, {0, 1},
    ]  # fmt: skip
    for index in others:
        for call in (lambda i: fused(x, index=i), lambda i: fused.script()(i, x)):
            with pytest.raises(ValueError, match="one whole number for each of 2 samples") as told:
                call(index)
            assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="at least one"):
        fused(x[:0], index=torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one state dict"):
        fuse(small().eval(), [], example_inputs=(x,))


def test_an_index_may_be_any_vector_of_whole_numbers(fused: Fused) -> None:
    x = torch.randn(2, 3, 4, 4)
    expected = fused(x, index=torch.tensor([2, 0]))
    others: list[Any] = [
        [2, 0], (2, 0), range(2, -1, -2), np.array([2, 0], np.uint8), [np.int64(2), 0],
        torch.tensor([2, 0], dtype=torch.int32),
    ]  # fmt: skip
    for index in others:
        assert torch.equal(fused(x, index=index), expected)


def test_a_tenant_that_is_not_there_is_named(models: list[nn.Module]) -> None:
    x = torch.randn(2, 3, 4, 4)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    fused.remove(1)
    for number in (1, -1, len(models), 1 << 62):
        for call in (
            lambda n: fused(x, index=[0, n]),
            lambda n: fused.script()(torch.tensor([0, n]), x),
            lambda n: fused.script()(torch.tensor([n]), x[:1]),
            fused.alone,
        ):
            with pytest.raises(IndexError, match=f" {number}[ :].*not in this family"):
                call(number)


def test_weights_may_be_nan(models: list[nn.Module]) -> None:
    with torch.no_grad():
        next(models[0].parameters()).fill_(float("nan"))
    x = torch.randn(2, 3, 4, 4)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    y = fused(x, index=torch.tensor([0, 1]))
    assert y[0].isnan().all()
    torch.testing.assert_close(y[1:], alone(models[1], x[1:]), rtol=1e-4, atol=1e-5)


def test_shared_buffers_have_to_agree() -> None:
    class Masked(nn.Module):
        def __init__(self, keep: int) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("keep", torch.arange(4) < keep)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.keep  # type: ignore[no-any-return]

    x = torch.randn(2, 4)
    two, three = Masked(2).eval(), Masked(3).eval()
    fused = fuse(two, [two.state_dict()], example_inputs=(x,))
    assert [r.reason for r in fused.report.rows if r.how == "shared"] == ["keep"]
    with pytest.raises(ValueError, match="buffer 'keep' differs"):
        fused.append(three.state_dict())


def test_report_is_a_table_and_json(fused: Fused) -> None:
    fused.tune(4)
    report = fused.report
    text = str(report)
    assert "2 fused" in text
    assert "bytes a tenant" in text
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["how"] == "fused"
    assert all(row.implementation for row in report.rows)
    assert report.bytes_per_tenant == fused.stacks.nbytes // 4


def test_half_precision_weights() -> None:
    models = [m.bfloat16() for m in tenants_of(lambda: nn.Linear(8, 4), 3)]
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    got = fused(x, index=torch.tensor([2, 0, 1]))
    for slot, tenant in enumerate([2, 0, 1]):
        want = alone(models[tenant], x[slot : slot + 1])
        torch.testing.assert_close(got[slot : slot + 1], want, rtol=0.02, atol=0.02)
