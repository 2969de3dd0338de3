"""Whose memory an answer is: the caller's alone. And whose an input is: never written to."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spacetime as st
from spacetime.models.flat import own

DEVICES = [("cpu", "thread"), ("cpu", "process"), ("fake:h200", "thread")]


class Returns(nn.Module):
    """What returns, besides or instead of computing, something that somebody holds."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.layer = nn.Linear(4, 3)
        self.register_buffer("table", torch.arange(3.0).reshape(1, 3))

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        returned: dict[str, Callable[[], Any]] = {
            "layer": lambda: y,
            "input": lambda: x,
            "view of the input": lambda: x[:, 1:3],
            "weight": lambda: self.layer.bias.expand(x.shape[0], 3),
            "buffer": lambda: self.table.expand(x.shape[0], 3),
            "views of one": lambda: (y, y[:, :2], y),
            "a part": lambda: torch.cat([y, y], 1)[:, 1:2],
            "numbers": lambda: (y, torch.tensor([2.0, 3.0]).expand(x.shape[0], 2)),
        }
        return returned[self.what]()


WHATS = [
    "layer", "input", "view of the input", "weight", "buffer", "views of one", "a part", "numbers",
]  # fmt: skip


class Keeps(nn.Module):
    """Eager, for it branches on values; keeps its last answer, as a model with a cache does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.layer(x) if float(x.sum()) > 0 else self.layer(-x)
        return self.last


class Writes(nn.Module):
    """Writes to its input before it computes."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.write(x)
        return self.layer(x)


def zero_column(x: Tensor) -> None:
    x[:, 0] = 0


WRITES: list[Callable[[Tensor], object]] = [
    lambda x: x.add_(1), Tensor.relu_, zero_column, lambda x: x.view(-1).mul_(2),
    lambda x: x.data.add_(1), lambda x: torch.neg(x, out=x),
]  # fmt: skip


@pytest.fixture(params=["cpu", "fake:h200"])
def session(request: pytest.FixtureRequest) -> Iterator[st.Session]:
    with st.Session(request.param, lanes=1) as opened:
        yield opened


def tensors(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else [*answer]


def place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def together(tenant: st.Tenant, inputs: Sequence[Tensor]) -> list[Any]:
    return [future.result() for future in [tenant.submit(x) for x in inputs]]


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("samples", [1, 3])
def test_an_answer_owns_its_memory(session: st.Session, what: str, samples: int) -> None:
    model = Returns(what).eval()
    tenant = session.add(model, example_inputs=(torch.randn(1, 4),))
    inputs = [torch.randn(samples, 4) for _ in range(24)]
    before = [x.clone() for x in inputs]
    with torch.no_grad():
        wanted = [tensors(model(x)) for x in inputs]
    answers = [*together(tenant, inputs), tenant(inputs[0])]
    parts = [y for answer in answers for y in tensors(answer)]
    assert len({place(y) for y in parts}) == len(parts)
    assert not {place(y) for y in parts} & {place(x) for x in inputs}
    for y in parts:
        assert y.untyped_storage().nbytes() == y.nbytes
        assert not y.requires_grad
    for answer, want in zip(answers, [*wanted, wanted[0]], strict=True):
        for got, expected in zip(tensors(answer), want, strict=True):
            torch.testing.assert_close(got, expected)
    for y in parts:
        y.fill_(float("nan"))  # the caller's to write to
    assert all(map(torch.equal, inputs, before))
    for x, want in zip(inputs, wanted, strict=True):
        for got, expected in zip(tensors(tenant(x)), want, strict=True):
            torch.testing.assert_close(got, expected)


def test_a_model_that_keeps_its_answer_keeps_its_own(session: st.Session) -> None:
    tenant = session.add(Keeps().eval(), example_inputs=(torch.ones(1, 4),))
    x = torch.ones(1, 4)
    first = tenant(x)
    copy = first.clone()
    tenant(x * 3)
    assert torch.equal(first, copy)


def test_a_saved_answer_is_as_large_as_the_answer() -> None:
    with st.Session("cpu", isolation="process", lanes=1) as session:
        tenant = session.add(nn.Linear(8, 512).eval(), example_inputs=(torch.randn(1, 8),))
        for y in together(tenant, [torch.randn(1, 8) for _ in range(20)]):
            file = io.BytesIO()
            torch.save(y, file)
            assert len(file.getvalue()) < 2 * y.nbytes + 2048
            assert y.untyped_storage().nbytes() == y.nbytes


def test_own_copies_only_what_somebody_else_holds() -> None:
    fresh = torch.randn(4, 4)
    assert own(fresh) is fresh
    view = fresh[:2]
    assert place(own(view)) != place(fresh)
    assert own(fresh) is not fresh  # as long as the view is there
    del view
    assert own(fresh) is fresh
    array = torch.zeros(4).numpy()
    assert place(own(torch.from_numpy(array))) != array.ctypes.data
    weight = nn.Parameter(torch.randn(3))
    with torch.no_grad():
        assert not own(weight).requires_grad
        assert not own(weight[:]).requires_grad
    sparse = torch.eye(3).to_sparse()
    assert torch.equal(own(sparse).to_dense(), torch.eye(3))


@pytest.mark.parametrize("write", WRITES)
def test_inputs_and_examples_are_never_written_to(
    session: st.Session, write: Callable[[Tensor], object]
) -> None:
    model = Writes(write).eval()
    example = torch.randn(2, 4)
    before = example.clone()
    tenant = session.add(model, example_inputs=(example,))
    assert torch.equal(example, before)
    inputs = [torch.randn(1 + i % 2, 4) for i in range(8)]
    copies = [x.clone() for x in inputs]
    with torch.no_grad():
        wanted = [model(x.clone()) for x in inputs]
    for y, want in zip(together(tenant, inputs), wanted, strict=True):
        torch.testing.assert_close(y, want)
    assert all(map(torch.equal, inputs, copies))


def odd_inputs() -> dict[str, Tensor]:
    wide = torch.randn(3, 8)
    turned = torch.randn(3, 4, dtype=torch.complex64).conj()
    return {
        "expanded": torch.randn(1, 4).expand(3, 4),
        "strided": wide[:, ::2],
        "transposed": torch.randn(4, 3).t(),
        "overlapping": torch.randn(6).as_strided((3, 4), (1, 1)),
        "wants a gradient": torch.randn(3, 4, requires_grad=True),
        "was computed": torch.randn(3, 4, requires_grad=True) * 2,
        "a parameter": nn.Parameter(torch.randn(3, 4)),
        "negated": turned.imag,
        "offset": torch.randn(13)[1:].view(3, 4),
    }


@pytest.mark.parametrize(("device", "isolation"), DEVICES)
def test_inputs_of_any_kind_of_memory(device: str, isolation: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    kinds = odd_inputs()
    with st.Session(device, lanes=1, isolation=isolation) as session:
        tenants = [
            session.add(model, example_inputs=(example,))
            for example in (kinds["wants a gradient"], kinds["negated"], kinds["expanded"])
        ]
        for name, x in kinds.items():
            for rows in (x, x[:1]):
                for y in [tenants[0](rows), *[t(rows) for t in tenants[1:]]]:
                    torch.testing.assert_close(y, model(rows).detach(), msg=name)
                    assert not y.requires_grad
        futures = [(x, tenants[i % 3].submit(x)) for i, x in enumerate([*kinds.values()] * 3)]
        for x, future in futures:
            torch.testing.assert_close(future.result(), model(x).detach())


@pytest.mark.parametrize(("device", "isolation"), DEVICES)
def test_complex_inputs_that_are_only_said_to_be_conjugated(device: str, isolation: str) -> None:
    model = nn.Linear(4, 3, dtype=torch.complex64).eval()
    with st.Session(device, lanes=1, isolation=isolation) as session:
        x = torch.randn(2, 4, dtype=torch.complex64)
        tenant = session.add(model, example_inputs=(x,))
        for y in (tenant(x.conj()), *together(tenant, [x.conj()] * 4)):
            torch.testing.assert_close(y, model(x.conj()).detach())
