"""What can be raised: copied, sent to other processes, caught by its name, read in one line."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from enum import Enum
from typing import Any, get_type_hints

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

import spacetime as st
from spacetime import errors
from spacetime.errors import Carried, reason_of


def raised_anywhere() -> list[type[BaseException]]:
    """Every exception class of the package, by importing all of it."""
    found = set()
    for module in pkgutil.walk_packages(st.__path__, "spacetime."):
        if module.name.endswith(("__main__", "._native")) or ".kernels." in module.name:
            continue
        try:
            room = importlib.import_module(module.name)
        except ImportError:  # an extra that is not installed, such as cupy or tritonclient
            continue
        found |= {
            value
            for value in vars(room).values()
            if isinstance(value, type)
            and issubclass(value, BaseException)
            and value.__module__ == room.__name__
        }
    return sorted(found, key=lambda kind: kind.__qualname__)


CLASSES = raised_anywhere()


def made(kind: type[BaseException]) -> BaseException:
    """One with an argument of the right type for each parameter, a cause and a remark."""
    error = kind(*arguments(kind)) if "__init__" in vars(kind) else kind("one line")
    if isinstance(error, Carried):
        error.__cause__ = OverflowError("beneath")
    vars(error)["remark"] = {"more": [1, 2]}
    return error


def arguments(kind: type[BaseException]) -> Iterator[Any]:
    hints = get_type_hints(kind.__init__)
    for name, parameter in [*inspect.signature(kind.__init__).parameters.items()][1:]:
        if parameter.default is not parameter.empty:
            continue
        wanted = hints[name]
        if wanted in {int, str}:
            yield wanted(7)
        elif issubclass(wanted, Enum):
            yield next(iter(wanted))
        else:
            yield ZeroDivisionError("the model's own")


def same(got: BaseException, want: BaseException) -> None:
    assert type(got) is type(want)
    assert str(got) == str(want)
    assert got.args == want.args
    assert repr(got.__cause__) == repr(want.__cause__)
    assert {k: repr(v) for k, v in vars(got).items()} == {k: repr(v) for k, v in vars(want).items()}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_copied_and_pickled_whole(kind: type[BaseException]) -> None:
    error = made(kind)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        same(pickle.loads(pickle.dumps(error, protocol)), error)
    same(copy.copy(error), error)
    deep = copy.deepcopy(error)
    same(deep, error)
    assert vars(deep)["remark"] is not vars(error)["remark"]


def test_all_were_found() -> None:
    assert len(CLASSES) > 20
    assert {st.SpacetimeError, st.WorkloadError, st.CannotExport} <= set(CLASSES)


def test_what_another_library_raised_may_be_impossible_to_rebuild() -> None:
    class Local(Exception):
        pass

    class Wants(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    for cause in (Local("here only"), Wants(code=3)):
        got = pickle.loads(pickle.dumps(st.ModelError("t", cause)))
        assert str(got) == str(st.ModelError("t", cause))
        assert str(got.cause) == f"{type(cause).__name__}: {cause}"
        assert copy.deepcopy(st.ModelError("t", cause)).cause is cause


def test_an_error_leaves_a_process_pool_as_itself() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool, spawn.Pool(1) as other:
        for name, kind in (
            ("memory", st.OutOfMemory),
            ("lane", st.LaneLost),
            ("input", st.InvalidInput),
            ("model", st.ModelError),
        ):
            with pytest.raises(kind):
                pool.submit(refused, name).result(120)
            with pytest.raises(kind):
                other.apply(refused, (name,))


def test_every_error_of_errors_is_exported_without_torch() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, st.SpacetimeError)
    }
    assert public <= set(st.__all__)
    names = ", ".join(f"spacetime.{name}" for name in sorted(public | {"WorkloadError"}))
    code = f"import sys, spacetime; ({names}); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_refusal_is_one_line_whatever_it_quotes() -> None:
    error = st.InvalidInput("t", "name", "a text", "'a\nb\r\n\u2028c'")
    assert len(str(error).splitlines()) == 1


class Adds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.zeros(3, 3)


def test_the_line_that_says_something_is_quoted() -> None:
    structure = torch.utils._pytree.tree_structure((1, {"a": 2, "b": [3, 4]}))
    with pytest.raises(ValueError, match="unflatten") as caught:
        torch.utils._pytree.tree_unflatten([1], structure)
    assert "length 1" in reason_of(caught.value)
    for model in (torch.jit.script(Adds()), torch.jit.trace(Adds(), torch.zeros(2, 3))):
        with pytest.raises(RuntimeError) as raised:
            model(torch.zeros(2, 5))
        assert "cannot be multiplied" in reason_of(raised.value)
    assert reason_of(KeyError("a\nb")) == r"'a\nb'"
    assert reason_of(ValueError("\n\n  second\n third")) == "second"
    assert reason_of(ValueError(" \n")) == "no message"
    assert len(reason_of(ValueError("x" * 9999))) == 500
    assert isinstance(st.ModelError("t", ValueError()), Carried)
