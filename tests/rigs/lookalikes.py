"""Pairs of modules that look alike and compute something else, or may not be told apart."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 1.0  # changed between two models, as a program may
TABLE = {"scale": 1.0}
HELD = types.SimpleNamespace(scale=1.0)
Change = Callable[[], None]
PAIRS: dict[str, Callable[[], Iterator[nn.Module]]] = {}


def pair(build: Callable[[], Iterator[nn.Module]]) -> Callable[[], Iterator[nn.Module]]:
    PAIRS[build.__name__] = build
    return build


class Net(nn.Module):
    """A linear layer, then what an attribute says."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        for name, value in attributes.items():
            setattr(self, name, value)


class Scaled(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.relu(y) if self.flag else torch.tanh(y)


class Applied(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self.linear(x))


class Sized(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (2 if x.shape[0] > self.most else 1)


@pair
def a_number() -> Iterator[nn.Module]:
    yield Scaled(scale=1.0)
    yield Scaled(scale=2.0)


@pair
def a_number_of_another_type() -> Iterator[nn.Module]:
    yield Branching(flag=True, scale=1)
    yield Branching(flag=None, scale=True)


@pair
def a_branch() -> Iterator[nn.Module]:
    yield Branching(flag=True)
    yield Branching(flag=False)


@pair
def a_limit_on_the_batch() -> Iterator[nn.Module]:
    yield Sized(most=10**9)
    yield Sized(most=5)


@pair
def a_constant_tensor() -> Iterator[nn.Module]:
    yield Scaled(scale=torch.ones(4))
    yield Scaled(scale=torch.arange(4.0))


class Listed(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.kept["scale"][0]


@pair
def a_constant_in_a_table() -> Iterator[nn.Module]:
    yield Listed(kept={"scale": [torch.ones(4)]})
    yield Listed(kept={"scale": [torch.arange(4.0)]})


class Buffered(Net):
    def __init__(self, value: Tensor, *, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("held", value, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.held


@pair
def a_buffer_outside_the_state() -> Iterator[nn.Module]:
    yield Buffered(torch.ones(4), persistent=False)
    yield Buffered(torch.arange(4.0), persistent=False)


@pair
def an_integer_buffer() -> Iterator[nn.Module]:
    yield Buffered(torch.ones(4, dtype=torch.int64), persistent=True)
    yield Buffered(torch.arange(4), persistent=True)


@pair
def a_buffer_inside_and_outside_the_state() -> Iterator[nn.Module]:
    yield Buffered(torch.ones(4), persistent=True)
    yield Buffered(torch.full((4,), 3.0), persistent=False)


class FromNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.tensor(self.scale.tolist())


@pair
def a_numpy_array() -> Iterator[nn.Module]:
    yield FromNumpy(scale=np.ones(4, dtype=np.float32))
    yield FromNumpy(scale=np.arange(4, dtype=np.float32))


@dataclass
class Config:
    scale: float
    inner: Any = None


class Configured(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.config.inner.scale


@pair
def a_configuration() -> Iterator[nn.Module]:
    yield Configured(config=Config(1.0, Config(1.0)))
    yield Configured(config=Config(1.0, Config(2.0)))


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


@pair
def an_object_with_slots() -> Iterator[nn.Module]:
    yield Configured(config=Config(0.0, Slotted(1.0)))
    yield Configured(config=Config(0.0, Slotted(2.0)))


class Numbers(dict):  # type: ignore[type-arg]
    scale = 1.0


@pair
def attributes_of_a_dict() -> Iterator[nn.Module]:
    for scale in (1.0, 2.0):
        numbers = Numbers(a=1)
        numbers.scale = scale
        yield Configured(config=Config(0.0, numbers))


class Kind(enum.Enum):
    RELU = 1
    TANH = 2


class ByKind(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.relu(y) if self.kind is Kind.RELU else torch.tanh(y)


@pair
def a_member_of_an_enumeration() -> Iterator[nn.Module]:
    yield ByKind(kind=Kind.RELU)
    yield ByKind(kind=Kind.TANH)


@pair
def a_builtin_function() -> Iterator[nn.Module]:
    yield Applied(apply_to=torch.sin)
    yield Applied(apply_to=torch.cos)


def times(scale: Any) -> Callable[[Tensor], Tensor]:
    return lambda y: y * scale


@pair
def what_a_closure_holds() -> Iterator[nn.Module]:
    yield Applied(apply_to=times(1.0))
    yield Applied(apply_to=times(2.0))


@pair
def a_tensor_in_a_closure() -> Iterator[nn.Module]:
    yield Applied(apply_to=times(torch.ones(4)))
    yield Applied(apply_to=times(torch.arange(4.0)))


@pair
def a_closure_changed_between() -> Iterator[nn.Module]:
    held = torch.ones(4)
    function = times(held)
    yield Applied(apply_to=function)
    held.mul_(3)
    yield Applied(apply_to=function)


@pair
def arguments_of_a_partial() -> Iterator[nn.Module]:
    yield Applied(apply_to=functools.partial(F.leaky_relu, negative_slope=0.1))
    yield Applied(apply_to=functools.partial(F.leaky_relu, negative_slope=0.9))


@pair
def a_forward_of_its_own() -> Iterator[nn.Module]:
    yield Scaled(scale=1.0)
    other = Scaled(scale=1.0)
    other.forward = types.MethodType(lambda self, x: self.linear(x).exp(), other)  # type: ignore
    yield other


class Replaced(Net):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.factor


@pair
def an_attribute_of_the_class() -> Iterator[nn.Module]:
    Replaced.factor = 1.0
    yield Replaced()
    Replaced.factor = 2.0
    yield Replaced()


@pair
def the_code_of_the_class() -> Iterator[nn.Module]:
    class Rewritten(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    yield Rewritten()
    Rewritten.forward = lambda self, x: self.linear(x).tanh()  # type: ignore[method-assign]
    yield Rewritten()


class Global(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * scaled()


def scaled() -> float:
    return SCALE * TABLE["scale"] * HELD.scale


@pair
def a_global() -> Iterator[nn.Module]:
    global SCALE  # noqa: PLW0603
    SCALE = 1.0
    yield Global()
    SCALE = 2.0
    yield Global()


@pair
def a_table() -> Iterator[nn.Module]:
    TABLE["scale"] = 1.0
    yield Global()
    TABLE["scale"] = 5.0
    yield Global()


@pair
def an_attribute_of_a_global() -> Iterator[nn.Module]:
    HELD.scale = 1.0
    yield Global()
    HELD.scale = 7.0
    yield Global()


@pair
def epsilon() -> Iterator[nn.Module]:
    for eps in (1e-5, 0.5):
        yield nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, eps=eps))


@pair
def dropout() -> Iterator[nn.Module]:
    for p in (0.1, 0.9):
        yield nn.Sequential(nn.Linear(4, 4), nn.Dropout(p))


@pair
def a_hook() -> Iterator[nn.Module]:
    yield nn.Sequential(nn.Linear(4, 4))
    hooked = nn.Sequential(nn.Linear(4, 4))
    hooked[0].register_forward_hook(lambda part, args, y: y * 2)
    yield hooked


@pair
def other_hooks() -> Iterator[nn.Module]:
    for scale in (2, 3):
        hooked = nn.Sequential(nn.Linear(4, 4))
        hooked.register_forward_pre_hook(lambda part, args, by=scale: (args[0] * by,))
        yield hooked


@pair
def tied_weights() -> Iterator[nn.Module]:
    yield nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    yield tied


class Aliased(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [self.linear.weight.detach()[:, 0]]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.kept[0]


@pair
def a_view_of_its_weight() -> Iterator[nn.Module]:
    yield Aliased()
    yield Aliased()


class Named(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [self.linear.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.kept[0]


@pair
def its_weight_in_a_list() -> Iterator[nn.Module]:
    yield Named()
    yield Named()


class Hidden(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kept = (nn.Linear(4, 4).eval(),)

    def forward(self, x: Tensor) -> Tensor:
        return self.kept[0](self.linear(x))


@pair
def a_part_in_a_tuple() -> Iterator[nn.Module]:
    yield Hidden()
    yield Hidden()


class ByValue(Net):
    def __init__(self) -> None:
        super().__init__()
        self.size = float(self.linear.weight.detach().sum())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (2 if self.size > 0 else 3)


@pair
def a_number_made_of_weights() -> Iterator[nn.Module]:
    yield ByValue()
    other = ByValue()
    other.size = -other.size
    yield other
