"""Indexes that callers give, in and out of bounds: every tenant answers, or raises, as its module.

Past a tenant's own weights lie the next tenant's, so what the module raises has to be raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from fuse_models import Net, tenants_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from spacetime.fusion import (
    CannotFuse,
    Fused,
    export,
    fuse,
    guards_of,
    placed,
    placed_alone,
    slot_graph,
    within_bounds,
)
from spacetime.fusion.stacks import empty

ROWS, WIDTH = 7, 5
EXTREMES = [-(2**63), -(2**31), -ROWS - 1, -ROWS, -1, ROWS - 1, ROWS, ROWS + 1, 2**31, 2**63 - 1]


def rows(i: Tensor) -> Tensor:
    """Indexes [S, 3] for each column of a table."""
    return i[:, :, None].expand(-1, -1, WIDTH)


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH))


def put(n: Any, i: Tensor) -> Tensor:
    y = n.w.sum(1).expand(i.shape[0], -1).clone()
    y[torch.arange(i.shape[0])[:, None], i] += 1
    return y


def emptied(n: Any, i: Tensor) -> Tensor:
    """Each sample has its own table, changed where it says."""
    return n.w.expand(i.shape[0], -1, -1).scatter(1, rows(i), 0.0)


def counted(n: Any, i: Tensor) -> Tensor:
    hits = torch.zeros(i.shape[0], ROWS).scatter_add(1, i, torch.ones(i.shape))
    return hits @ n.w


LOOK_UPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "embedding": lambda n, i: n.e(i),
    "embedding with padding": lambda n, i: F.embedding(i, n.w, padding_idx=2),
    "embedding, samples second": lambda n, i: n.e(i.t()).transpose(0, 1),
    "index": lambda n, i: n.w[i],
    "index of columns": lambda n, i: n.w.t()[:, i].permute(1, 2, 0),
    "index of both": lambda n, i: n.w[i, i % WIDTH],
    "index_select": lambda n, i: n.w.index_select(0, i.flatten()).unflatten(0, (-1, 3)),
    "gather": lambda n, i: n.w.gather(0, rows(i)[:, 0]),
    "gather of expanded": lambda n, i: n.w.expand(i.shape[0], -1, -1).gather(1, rows(i)),
    "take": lambda n, i: n.w.sum(1).take(i),
    "one hot": lambda n, i: F.one_hot(i, ROWS).float() @ n.w,
    "scatter": emptied,
    "scatter_add": counted,
    "index_put": put,
    "two tables": lambda n, i: n.e(i) + n.w[i],
    "expression": lambda n, i: F.embedding(i, n.w[:, :1] * n.long),
}
PARTS = {"w": matrix, "e": lambda: nn.Embedding(ROWS, WIDTH), "long": lambda: nn.Parameter(
    torch.randn(1, 400)
)}  # fmt: skip
EXAMPLE = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.fixture(params=LOOK_UPS, scope="module")
def known(request: pytest.FixtureRequest) -> tuple[list[nn.Module], Fused]:
    models = tenants_of(lambda: Net(LOOK_UPS[request.param], PARTS), 3)
    return models, fuse(models[0], [m.state_dict() for m in models], example_inputs=(EXAMPLE,))


def outcome(call: Callable[[], Any]) -> Tensor | tuple[type, str]:
    """What is answered; or the kind of what is raised, and its text."""
    try:
        with torch.no_grad():
            answer = call()
    except Exception as error:
        return type(error), str(error)
    return answer[0] if isinstance(answer, tuple) else answer


def assert_alike(got: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert isinstance(got, Tensor), got
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    else:
        assert got == expected


def assert_as_alone(models: Sequence[nn.Module], fused: Fused, index: list[int], x: Tensor) -> None:
    """The whole launch answers as the modules, or raises what the first that raises does."""
    alone = [outcome(lambda: models[n](x[s : s + 1])) for s, n in enumerate(index)]  # noqa: B023
    raised = [one for one in alone if not isinstance(one, Tensor)]
    expected = raised[0] if raised else torch.cat([y for y in alone if isinstance(y, Tensor)])
    assert_alike(outcome(lambda: fused(x, index=index)), expected)
    assert_alike(outcome(lambda: fused.script()(torch.tensor(index), x)), expected)
    assert_alike(outcome(lambda: fused.alone(index[0])(x[:1])), alone[0])


def test_one_beyond_its_table_raises_as_the_module_does(known: Any) -> None:
    models, fused = known
    for extreme in EXTREMES:
        x = EXAMPLE.clone()
        x[1, 2] = extreme
        assert_as_alone(models, fused, [2, 1], x)
        assert_as_alone(models, fused, [2], x[1:])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_mixture_of_indexes_and_tenants(known: Any, data: st.DataObject) -> None:
    models, fused = known
    slots = data.draw(st.integers(1, 4))
    index = data.draw(st.lists(st.integers(0, 2), min_size=slots, max_size=slots))
    one = st.one_of(st.integers(0, ROWS - 1), st.integers(-ROWS, ROWS), st.sampled_from(EXTREMES))
    ids = data.draw(st.lists(one, min_size=3 * slots, max_size=3 * slots))
    assert_as_alone(models, fused, index, torch.tensor(ids).view(slots, 3))


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_captured_graph_raises_nothing_and_says_whose_index_was_beyond(
    known: Any, data: st.DataObject
) -> None:
    """In the graph of a device an index is clamped, its slot has a code, the others are right."""
    models, fused = known
    graph = slot_graph(fused.exported, [m.state_dict() for m in models])
    try:
        module = placed(graph, torch.device("cpu"))
    except CannotFuse:
        return  # alone in a graph: the next test
    guards = guards_of(graph.lowered.module)
    stacks = empty(graph.plain.weights).with_tenants([m.state_dict() for m in models])
    apart = [torch.stack([*v, v[0]])[:-1] for v in stacks.values]
    index = torch.tensor(data.draw(st.permutations(range(3))))
    ids = data.draw(st.lists(st.sampled_from([*range(ROWS), *EXTREMES]), min_size=9, max_size=9))
    x = torch.tensor(ids).view(3, 3)
    with torch.no_grad():
        *outputs, codes = module.forward(index, torch.tensor(-1), *apart, x)
    for slot, number in enumerate(index.tolist()):
        expected = outcome(lambda: models[number](x[slot : slot + 1]))  # noqa: B023
        code = int(codes[slot])
        if isinstance(expected, Tensor):
            assert code == 0
            assert_alike(outputs[0][slot : slot + 1], expected)
        else:
            assert type(guards[code - 1].raised()) is expected[0]


def test_the_graph_of_one_tenant_has_codes_too() -> None:
    (model,) = tenants_of(lambda: Net(lambda n, i: n.b(i), {"b": lambda: nn.EmbeddingBag(9, 4)}), 1)
    exported = export(model, (EXAMPLE,))
    module, guards = placed_alone(exported, torch.device("cpu"))
    weights = [model.state_dict()[key] for key in exported.weights.values()]
    x = torch.tensor([[0, 8, 3], [9, 1, 1], [1, -1, 2]])
    with torch.no_grad():
        y, codes = module.forward(torch.zeros(3, dtype=torch.int64), *weights, x)
        torch.testing.assert_close(y[:1], model(x[:1]))
    assert codes.tolist() == [0, 1, 1]
    assert isinstance(guards[0].raised(), RuntimeError)


def test_an_eager_module_stays_within_bounds(known: Any) -> None:
    """As on a device, where an index beyond would be the end: nothing that runs is given one."""
    models, _ = known
    for extreme in EXTREMES:
        x = EXAMPLE.clone()
        x[0, 1] = extreme
        got, expected = (outcome(call) for call in (
            lambda: within_bounds(models[0], [x]), lambda: models[0](x),  # noqa: B023
        ))  # fmt: skip
        if isinstance(expected, Tensor):
            assert_alike(got, expected)
        else:
            assert got[0] is expected[0]


def test_an_index_among_all_samples_of_a_batch_is_refused() -> None:
    """Alone it would raise; beside others it would read another caller's sample."""

    def flat(n: Any, x: Tensor, i: Tensor) -> Tensor:
        first = torch.arange(x.shape[0])[:, None] * 3
        return n.l(x.flatten(0, 1)[i + first])  # type: ignore[no-any-return]

    model = Net(flat, {"l": lambda: nn.Linear(4, 2)}).eval()
    inputs = torch.randn(2, 3, 4), torch.tensor([[0, 2], [1, 1]])
    with pytest.raises(CannotFuse, match="picks among the samples of the batch"):
        fuse(model, [model.state_dict()], example_inputs=inputs)


def test_ids_of_32_bits() -> None:
    models = tenants_of(lambda: nn.Embedding(ROWS, WIDTH), 3)
    example = EXAMPLE.int()
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(example,))
    for extreme in (-(2**31), -1, 0, ROWS - 1, ROWS, 2**31 - 1):
        x = example.clone()
        x[0, 0] = extreme
        assert_as_alone(models, fused, [1, 0], x)


def test_no_ids_at_all() -> None:
    models = tenants_of(lambda: nn.Embedding(ROWS, WIDTH), 2)
    x = torch.zeros(2, 0, dtype=torch.int64)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    assert fused(x, index=[0, 1]).shape == (2, 0, WIDTH)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor([4]))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.levels  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("make", [Scaled, nn.ReLU, lambda: nn.BatchNorm1d(6, affine=False)])
def test_modules_without_a_weight(make: Callable[[], nn.Module]) -> None:
    models = tenants_of(make, 3)
    x = torch.randn(2, 6)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    fused.append(models[0].state_dict())
    fused.remove(1)
    expected = torch.cat([models[3 % 3](x[:1]), models[2](x[1:])])
    for answer in (
        fused(x, index=[3, 2]), fused.script()(torch.tensor([3, 2]), x)[0],
        torch.cat([fused.alone(3)(x[:1])[0], fused.script()(torch.tensor([2]), x[1:])[0]]),
    ):  # fmt: skip
        torch.testing.assert_close(answer, expected)
    for index in ([0, 1], [0, 4], [-1, 0]):
        with pytest.raises(IndexError):
            fused.script()(torch.tensor(index), x)
