"""What can be exported, the reason when not, and architectures as fingerprints."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from fuse_models import Net, tenants_of, transformer
from torch import Tensor, nn

from spacetime.fusion import CannotExport, export, fingerprint, fuse

X = torch.randn(2, 6)


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def linear(forward: Callable[..., Any]) -> nn.Module:
    return Net(forward, {"l": lambda: nn.Linear(6, 6)}).eval()


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda n, x: n.l(x) if x.sum() > 0 else x, "data-dependent"),
        (lambda n, x: n.l(x).view(2, 6), "slots|batch"),
        (lambda n, x: n.l(x)[x[:, 0] > 0], "slots|batch|data|symbol|u0|values"),
    ],
)
def test_no_graph_means_one_line_saying_why(
    forward: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception, match=reason) as caught:
        fuse(linear(forward), [linear(forward).state_dict()], example_inputs=(X,))
    assert "\n" not in str(caught.value)
    assert "def forward" not in "".join(capfd.readouterr())


def test_control_flow_on_data_is_cannot_export() -> None:
    with pytest.raises(CannotExport, match="data-dependent"):
        export(linear(lambda n, x: n.l(x) if x.sum() > 0 else x), (X,))


def test_training_mode_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout()).eval()
    model[1].train()
    with pytest.raises(CannotExport, match="module '1' is in training mode"):
        export(model, (X,))


def test_models_that_write_are_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x + self.seen

    with pytest.raises(CannotExport, match="buffer 'seen'"):
        export(Counting().eval(), (X,))
    with pytest.raises(CannotExport, match="input"):
        export(linear(lambda n, x: n.l(x.add_(1))), (X.clone(),))


@pytest.mark.parametrize("example", [(torch.tensor(1.0),), (X, X[:1]), ()])
def test_examples_need_one_batch_size(example: tuple[Tensor, ...]) -> None:
    with pytest.raises(CannotExport, match="batch size"):
        export(linear(lambda n, *x: n.l(x[0])), example)


def test_one_example_sample_serves_any_number() -> None:
    model = linear(lambda n, x: n.l(x))
    fused = fuse(model, [model.state_dict()], example_inputs=(X[:1],))
    x = torch.randn(7, 6)
    with torch.no_grad():
        torch.testing.assert_close(fused(x, index=torch.zeros(7, dtype=torch.int64)), model(x))


STRUCTURES: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda y: (y, y + 1),
    "nested": lambda y: {"a": [y, (y * 2, None)], "b": y},
    "ordered": lambda y: OrderedDict(z=y, a=y + 1),
    "named": lambda y: Pair(y, y - 1),
    "list of one": lambda y: [y],
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_what_the_template_returns(name: str) -> None:
    make = STRUCTURES[name]
    models = tenants_of(lambda: Net(lambda n, x: make(n.l(x)), {"l": lambda: nn.Linear(6, 6)}), 2)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(X,))
    got = fused(X, index=torch.tensor([1, 1]))
    with torch.no_grad():
        want = models[1](X)
    assert type(got) is type(want)
    torch.testing.assert_close(got, want)


def test_nested_inputs_and_keywords() -> None:
    forward = lambda n, d, scale=None, flag=False: n.l(d["x"]) * scale + d["p"][0]  # noqa: E731

    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.l = nn.Linear(6, 6)

        def forward(self, d: Any, *, scale: Any = None, flag: bool = False) -> Any:
            return forward(self, d, scale, flag)

    models = tenants_of(Keyword, 2)
    inputs, kwargs = ({"x": X, "p": (X + 1, X)},), {"scale": X, "flag": True}
    states = [m.state_dict() for m in models]
    fused = fuse(models[0], states, example_inputs=inputs, example_kwargs=kwargs)
    got = fused(*inputs, index=torch.tensor([1, 1]), **kwargs)
    with torch.no_grad():
        torch.testing.assert_close(got, models[1](*inputs, **kwargs))
    with pytest.raises(ValueError, match="was exported as True"):
        fused(*inputs, index=torch.tensor([1, 1]), scale=X, flag=False)
    with pytest.raises(TypeError, match="structure"):
        fused(X, index=torch.tensor([1, 1]))


def test_fingerprint_does_not_see_weights_or_batch_size() -> None:
    models = tenants_of(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU()), 2)
    first = fingerprint(models[0], (X,))
    assert fingerprint(models[1], (torch.randn(5, 6),)) == first
    assert fingerprint(export(models[1], (X[:1],))) == first


def test_fingerprint_sees_everything_else() -> None:
    c = torch.arange(6)
    variants: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (linear(lambda n, x: n.l(x)), (X,)),
        (linear(lambda n, x: n.l(x).relu()), (X,)),
        (linear(lambda n, x: torch.nn.functional.leaky_relu(n.l(x), 0.1)), (X,)),
        (linear(lambda n, x: torch.nn.functional.leaky_relu(n.l(x), 0.2)), (X,)),
        (linear(lambda n, x: {"y": n.l(x)}), (X,)),
        (linear(lambda n, x: n.l(x)), (torch.randn(2, 3, 6),)),
        (linear(lambda n, x: n.l(x)).double(), (X.double(),)),
        (linear(lambda n, x: n.l(x) + c), (X,)),
        (linear(lambda n, x: n.l(x) + c.flip(0)), (X,)),
        (nn.Sequential(OrderedDict(m=nn.Linear(6, 6))).eval(), (X,)),
        (nn.Linear(6, 5).eval(), (X,)),
        (nn.Linear(6, 6, bias=False).eval(), (X,)),
    ]
    prints = [fingerprint(model, example) for model, example in variants]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_equal_fingerprints_of_a_network(name: str) -> None:
    make, example = transformer(name)
    first, second = (fingerprint(model, example) for model in tenants_of(make, 2))
    assert first == second
