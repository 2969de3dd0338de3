"""Models of every kind are served rightly, or refused in one line that says what to do instead."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from models import mlp
from torch import Tensor, nn
from torch.nn import functional as F

import spacetime as st
from spacetime.models.modules import copied, served

ROWS = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(
        model, (ROWS,), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=False
    )


def loaded(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return torch.jit.load(file)


def compiled_in_place() -> nn.Module:
    model = mlp(0)
    model.compile()
    return model


class Around(nn.Module):
    """Another module inside an eager one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.cond(y.sum() > 0, lambda y: y * 2, lambda y: y - 1, (y,))


class Locked(nn.Module):
    """Has a part that no copy can be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.lock = nn.Linear(6, 3), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.linear(x)


class Comes(nn.Module):
    """Returns more for some inputs than for others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return (y,) if float(y.sum()) > 0 else (y, y * 2)


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(mlp(0), {nn.Linear}, dtype=torch.qint8)


def normed() -> nn.Module:
    """Its forward has left a tensor of the autograd graph behind."""
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 3))).eval()
    model(ROWS)
    return model


SERVED: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(mlp(0)),
    "traced": lambda: torch.jit.trace(mlp(0), ROWS),
    "loaded": lambda: loaded(mlp(0)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(mlp(0))),
    "for inference": lambda: torch.jit.optimize_for_inference(torch.jit.script(mlp(0))),
    "scripted inside": lambda: Around(torch.jit.script(mlp(0))),
    "compiled": lambda: torch.compile(mlp(0)),
    "compiled in place": compiled_in_place,
    "compiled inside": lambda: Around(torch.compile(mlp(0))),
    "exported": lambda: exported(mlp(0)).module(),
    "exported inside": lambda: Around(exported(mlp(0)).module()),
    "program": lambda: exported(mlp(0)),
    "graph": lambda: torch.fx.symbolic_trace(mlp(0)),
    "cond": lambda: Chooses().eval(),
    "no weights": lambda: nn.Softmax(-1).eval(),
    "quantised": quantised,
    "data parallel": lambda: nn.DataParallel(mlp(0)).eval(),
    "normed": normed,
}
NOT_CPU_ONLY = ("scripted", "frozen", "compiled", "exported", "cond", "quantised", "normed")


@pytest.fixture(scope="module", params=["cpu", "fake:h200"])
def session(request: pytest.FixtureRequest) -> Iterator[st.Session]:
    with st.Session(request.param, lanes=1) as opened:
        yield opened


@pytest.mark.parametrize("kind", SERVED)
def test_a_model_is_served_as_itself(session: st.Session, kind: str) -> None:
    if session.device.fake and kind not in NOT_CPU_ONLY:
        pytest.skip("alike on every device")
    torch.manual_seed(3)
    model = SERVED[kind]()
    oracle = model.module() if kind == "program" else model
    if kind.startswith("compiled"):
        oracle = mlp(0) if kind != "compiled inside" else Around(mlp(0))
    tenant = session.add(model, example_inputs=(ROWS[:1],))
    for seed in range(6):
        x = torch.randn(1 + seed % 3, 6, generator=torch.Generator().manual_seed(seed)) * 3
        with torch.no_grad():
            torch.testing.assert_close(tenant(x), oracle(x), rtol=1e-4, atol=1e-5)
    session.remove(tenant)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))


class Bare(nn.Module):
    def __init__(self) -> None:
        pass


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "training": (lambda: mlp(0).train(), r"in eval mode \(call model.eval\(\)\)"),
    "exported in training": (lambda: exported(dropping()).module(), "before torch.export.export"),
    "traced in training": (
        lambda: torch.jit.trace(dropping(), ROWS, check_trace=False),
        "before torch.jit.trace",
    ),
    "lazy": (lambda: nn.LazyLinear(3).eval(), "call the model once on an example"),
    "meta": (lambda: nn.Linear(6, 3, device="meta").eval(), "to_empty"),
    "class": (lambda: nn.Linear, r"an instance: Linear\(...\)"),
    "function": (lambda: F.relu, "the forward of one"),
    "partial": (lambda: functools.partial(F.relu), "the forward of one"),
    "script function": (lambda: torch.jit.trace(F.relu, ROWS), "the forward of one"),
    "path": (lambda: "model.pt", "torch.jit.load"),
    "state": (lambda: mlp(0).state_dict(), "load_state_dict"),
    "nothing": (lambda: None, "got NoneType"),
    "bare": (Bare, "__init__"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_in_a_line(kind: str) -> None:
    make, fix = REFUSED[kind]
    with pytest.raises(st.InvalidInput, match=fix) as caught:
        served("t", make())
    assert len(str(caught.value).splitlines()) == 1
    assert "model" in caught.value.field


def test_the_model_given_is_left_as_it_was() -> None:
    model = compiled_in_place()
    called, inner = model._compiled_call_impl, model[0]
    got = served("t", model)
    assert got is not model
    assert got[0].weight is inner.weight
    assert model._compiled_call_impl is called
    assert model[0] is inner


def test_a_copy_needs_no_autograd_graph_and_keeps_ties() -> None:
    model = normed()
    model.register_parameter("again", model[0].bias)
    twin = copied("t", model)
    assert twin.again is twin[0].bias
    assert twin[0].bias is not model[0].bias
    with pytest.raises(st.InvalidInput, match="deepcopy copies, got TypeError"):
        copied("t", Locked().eval())


def test_a_lane_on_another_device_refuses_what_has_no_copy() -> None:
    with (
        st.Session("fake:h200") as session,
        pytest.raises(st.InvalidInput, match="deepcopy copies"),
    ):
        session.add(Locked().eval(), example_inputs=(ROWS,))


def test_an_output_of_another_structure_is_served_or_said_in_words() -> None:
    torch.manual_seed(0)
    model = Comes().eval()
    said = set()
    with st.Session("cpu", lanes=1) as session:
        tenant = session.add(model, example_inputs=(ROWS[:1],))
        for seed in range(12):
            x = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed))
            try:
                assert len(tenant(x)) == len(model(x))
            except st.ModelError as error:
                said.add(str(error))
    assert all("output's structure differs" in each for each in said)


SCRIPT = """
import torch, spacetime as st
from torch import nn
class Net(nn.Module):
    def forward(self, x): return x + 1
with st.Session("cpu", lanes=1, isolation="process") as session:
    try:
        session.add(Net().eval(), example_inputs=(torch.zeros(1, 2),))
    except st.InvalidInput as error:
        print(error)
"""


@pytest.mark.parametrize("how", ["standard input", "-c"])
def test_a_script_without_a_file_says_why_no_process_can_make_its_model(how: str) -> None:
    command = [sys.executable, *(["-"] if how == "standard input" else ["-c", SCRIPT])]
    done = subprocess.run(
        command, input=SCRIPT, capture_output=True, text=True, timeout=300, check=False
    )
    assert "class Net of an interactive session, standard input or python -c" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_torchscript_reaches_a_lane_in_a_process() -> None:
    model = torch.jit.script(mlp(0))
    with st.Session("cpu", lanes=1, isolation="process") as session:
        tenant = session.add(model, example_inputs=(ROWS,))
        torch.testing.assert_close(tenant(ROWS), model(ROWS).detach())
        with pytest.raises(st.InvalidInput, match="add the module it was made of"):
            session.add(exported(mlp(0)).module(), example_inputs=(ROWS,))
