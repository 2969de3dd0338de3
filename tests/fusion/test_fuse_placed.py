"""A slot graph as a device runs it: what may be captured, and how implementations are chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from columns import Columns
from torch import Tensor, nn

from spacetime.fusion import SlotGraph, Tuner, placed, slot_graph
from spacetime.fusion.choice.by_pointer import NAME, in_words
from spacetime.fusion.choice.operation import SlotOperation
from spacetime.fusion.choice.super_kernels import super_kernel, super_kernels
from spacetime.fusion.on_device import HOST_ONLY
from spacetime.fusion.stacks import empty
from spacetime.kernels import cublas

NO_RUN = torch.tensor(-1)


def models() -> list[nn.Module]:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.second = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.second(nn.functional.hardswish(self.first(x))) + x)

    def one(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            Residual(),
            nn.Flatten(),
            nn.Linear(128, 5),
            nn.GELU(),
        ).eval()

    return [one(seed) for seed in range(3)]


def graph_of(tenants: list[nn.Module]) -> SlotGraph:
    x = torch.randn(2, 3, 8, 8)
    return slot_graph(tenants[0], [m.state_dict() for m in tenants], example_inputs=(x,))


def operands(
    graph: SlotGraph, tenants: list[nn.Module], x: Tensor, rows: list[int]
) -> list[Tensor]:
    stacks = empty(graph.plain.weights).with_tenants([m.state_dict() for m in tenants])
    return [torch.tensor(rows), NO_RUN, *stacks.values, x]


def operations(module: nn.Module) -> list[SlotOperation]:
    return [part for part in module.modules() if isinstance(part, SlotOperation)]


def check(seconds: Callable[[Callable[[], object]], float], *, wanted: str = "") -> dict[str, str]:
    """A graph tuned with this clock answers as the models alone, by implementations `wanted`."""
    tenants, rows = models(), [2, 0, 0, 1]
    graph = graph_of(tenants)
    module = placed(graph, torch.device("cpu"))
    x = torch.randn(4, 3, 8, 8)
    given = operands(graph, tenants, x, rows)
    known: dict[str, str] = {}

    class Choices:
        def get(self, key: str) -> str | None:
            return known.get(key)

        def put(self, key: str, value: str) -> None:
            known[key] = value

    Tuner(seconds, Choices(), sms=2, capability=90).tune(module, given)
    assert all(value.startswith(wanted) for value in known.values()), known
    assert len(known) == 4
    again = placed(graph, torch.device("cpu"))

    def never(call: Callable[[], object]) -> float:
        raise AssertionError("what is known is not timed again")

    Tuner(never, Choices(), sms=2, capability=90).tune(again, given)
    assert [op.chosen for op in operations(again)] == [op.chosen for op in operations(module)]
    with torch.no_grad():
        (got,) = again(*given)
        expected = torch.cat([tenants[row](x[i : i + 1]) for i, row in enumerate(rows)])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return known


def test_what_follows_a_product_is_done_with_it() -> None:
    module = placed(graph_of(models()), torch.device("cpu"))
    ends = [op.key.rpartition(")")[2].removeprefix("linear") for op in operations(module)]
    assert [end.strip() for end in ends] == ["relu", "hardswish", "+ residual relu", "gelu"]
    left = {node.name for node in module.graph.nodes if node.op == "call_function"}
    assert not [name for name in left if name.startswith(("relu", "add", "hardswish", "gelu"))]


def test_nothing_that_reads_rows_on_the_host_is_left() -> None:
    module = placed(graph_of(models()), torch.device("cpu"))
    assert operations(module)
    for operation in operations(module):
        assert operation.implementations
        assert not HOST_ONLY & set(operation.implementations)


def test_placing_leaves_the_graph_itself_alone() -> None:
    graph = graph_of(models())
    before = [list(op.implementations) for op in operations(graph.lowered.module)]
    placed(graph, torch.device("cpu"))
    assert [list(op.implementations) for op in operations(graph.lowered.module)] == before


def test_the_fastest_that_works_is_chosen_and_remembered() -> None:
    took = iter(range(1000, 0, -1))

    def later_is_faster(call: Callable[[], object]) -> float:
        call()  # Triton's kernels fail here, without a device, and are left out
        return float(next(took))

    check(later_is_faster)


def test_products_by_pointer_fit_the_graph_and_answer_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a cuBLAS of the host's; the depthwise layer is no product and keeps its own way."""
    columns = Columns()
    library = columns.library()
    monkeypatch.setattr(cublas, "library", lambda: library)

    def by_pointer_first(call: Callable[[], object]) -> float:
        before = len(columns.calls)
        call()
        return 0.0 if len(columns.calls) > before else 1.0

    known = check(by_pointer_first)
    assert sorted(known.values()) == [*["cuBLAS by pointer"] * 3, "grouped"]


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built for CUDA")
def test_without_cublas_there_is_no_such_way_and_the_reason_is_told() -> None:
    module = placed(graph_of(models()), torch.device("cpu"))
    for operation in operations(module):
        assert super_kernel(operation, NAME, sms=8) is None
    assert "weights by pointer array: this PyTorch" in in_words()
    assert "is built without CUDA" in in_words()


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_half_precision_windows_are_offered_to_the_accelerator() -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1).bfloat16().eval()
    x = torch.randn(2, 64, 8, 8).bfloat16()
    graph = slot_graph(layer, [layer.state_dict()], example_inputs=(x,))
    (operation,) = operations(placed(graph, torch.device("cpu")))
    stacks = empty(graph.plain.weights).with_tenants([layer.state_dict()])
    args = (torch.tensor([0, 0]), NO_RUN, x, *stacks.values)
    for capability, count in ((90, 2), (80, 0)):
        offered = super_kernels(operation, args, sms=132, capability=capability)
        found = [name for name in offered if name.startswith("triton boxes ")]
        assert len(found) == count
        assert all(super_kernel(operation, name, sms=132) is not None for name in found)
    assert super_kernel(operation, "triton boxes 64x64x32 w4 s3", sms=132) is None
    single = (*args[:2], x.float(), *(v.float() for v in stacks.values))
    assert not any("boxes" in name for name in super_kernels(
        operation, single, sms=132, capability=90
    ))  # fmt: skip


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_super_kernels_fit_the_graph_and_answer_alike() -> None:
    """In Triton's interpreter, which has to be chosen before Triton is imported."""
    code = """
from test_fuse_placed import check
def super_kernels_first(call):
    named = str(call.args[0] if call.args else "") + call.func.__module__
    return 0.0 if "triton" in named else 1.0
check(super_kernels_first, wanted="triton ")
"""
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
