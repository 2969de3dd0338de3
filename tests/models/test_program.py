"""A model becomes a flat callable: same answers, GIL released, honest about what it cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput, ModelError
from spacetime.fusion import Exported, export
from spacetime.models.cpu.program import Program, program_of
from spacetime.models.flat import spread
from spacetime.models.signature import signature_of
from spacetime.models.trial import same_rows


class Structured(nn.Module):
    """Dict in, nested tuple out, with a constant among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: dict[str, Tensor], scale: Tensor) -> tuple[Any, ...]:
        y = self.linear(x["a"]) * scale
        return {"y": y, "none": None}, [y + x["b"], x["a"]]


class BatchMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


def programmed(model: nn.Module, *args: Any, refused: str | None = None) -> Program:
    signature = signature_of("t", args, {})
    leaves: list[Tensor] = pytree.tree_leaves((args, {}))
    exported: Exported | str = refused or export(model.eval(), args)
    return program_of(model.eval(), signature, leaves, exported)


def run(program: Program, *leaves: Tensor) -> Any:
    with torch.no_grad():
        if program.whole:
            return program.call(*leaves)
        return program.outputs.build(list(program.call(*leaves)))


def test_structures_come_back_as_the_model_returns_them() -> None:
    model = Structured().eval()
    x, scale = {"a": torch.randn(3, 4), "b": torch.randn(3, 3)}, torch.randn(3, 1)
    program = programmed(model, x, scale)
    got, want = run(program, x["a"], x["b"], scale), model(x, scale)
    assert got[0]["none"] is None
    assert isinstance(got[1], list)
    assert same_rows([got[0]["y"], *got[1]], [want[0]["y"], *want[1]], tolerance=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 17])
def test_scripted_at_any_batch_size(rows: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    ).eval()
    program = programmed(model, torch.randn(2, 1, 8, 8))
    x = torch.randn(rows, 1, 8, 8)
    assert program.how.startswith("TorchScript")
    assert program.batches
    assert same_rows([run(program, x)], [model(x)])


def test_a_refused_model_runs_eagerly_and_says_why() -> None:
    program = programmed(nn.Linear(2, 2), torch.randn(1, 2), refused="a branch on data")
    assert program.how == "eager"
    assert "a branch on data" in program.why
    assert not program.batches


def test_dependent_rows_are_found() -> None:
    program = programmed(BatchMean(), torch.randn(3, 2))
    assert not program.batches
    assert "mean in the model (BatchMean): it works over the batch" in program.why


def test_nan_weights_are_allowed() -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, float("nan"))
    assert run(programmed(model, torch.randn(1, 2)), torch.ones(1, 2)).isnan().all()


def test_a_model_that_fails_on_its_example_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="tenant t: the model raised RuntimeError"):
        programmed(nn.Linear(3, 3), torch.randn(1, 4), refused="it fails")


class Scalar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "no tensor"


@pytest.mark.parametrize(("model", "got"), [(Scalar(), r"\[\]"), (Text(), "str")])
def test_outputs_need_the_batch_dimension(model: nn.Module, got: str) -> None:
    with pytest.raises(InvalidInput, match=f"outputs must be tensors.*got {got}"):
        programmed(model, torch.randn(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_spread_keeps_values_valid_and_rows_distinct(dtype: torch.dtype) -> None:
    example = (torch.arange(10).reshape(2, 5) + 1).to(dtype)
    (rows,) = spread([example], 7)
    assert rows.shape == (7, 5)
    assert rows.dtype is dtype
    if not dtype.is_floating_point:
        assert set(rows.flatten().tolist()) <= set(example.flatten().tolist())
