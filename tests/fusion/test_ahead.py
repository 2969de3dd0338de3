"""Kernels listed and compiled before a device is there, as Triton's own launch asks for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("triton", reason="Triton is not installed: nothing is compiled")

from test_device_session import X, net
from test_fuse_placed import NO_RUN, graph_of, models, operands

from spacetime import Session, _native
from spacetime.commands.prepare import kernels_for
from spacetime.fusion import Tuner, placed
from spacetime.fusion.ahead import META, kernels_of, without_data
from spacetime.kernels.triton import ahead
from spacetime.kernels.triton.cache import StoredChoices
from spacetime.kernels.triton.configs import Config
from spacetime.kernels.triton.launch import Launch, noting
from spacetime.kernels.triton.linear import linear_launches
from spacetime.models.cuda.capture import TorchCuda

# As a launch on the device asks: Triton's own binder on tensors with data, a stand-in for its
# driver, and its compiler only where the cache has nothing.
LAUNCHED = """
import sys; sys.path[:] = {paths!r}
from test_ahead import launch
from triton import knobs
from triton.runtime.driver import driver
from spacetime.kernels.triton.ahead import _StandIn
driver.set_active(_StandIn(90))
knobs.compilation.listener = lambda *_, cache_hit, **rest: print("hit" if cache_hit else "miss")
for slots in (3, 5):
    given = launch(slots)
    options = {{"num_warps": given.warps, "num_stages": given.stages}}
    given.kernel.warmup(**given.arguments, grid=(1,), **options)
"""


def launch(slots: int, points: int = 5, outputs: int = 24) -> Launch:
    x, w, b = torch.ones(slots, points, 32), torch.ones(4, outputs, 32), torch.ones(4, outputs)
    rows = torch.zeros(slots, dtype=torch.int64)
    config = Config(16, 16, 16, 4, 2)
    return linear_launches(rows, x, w, b, precision="ieee", sms=4, config=config)[1][0]


def test_numbers_that_compile_alike_are_listed_once() -> None:
    assert ahead.wanted(launch(3)) == ahead.wanted(launch(5))
    assert ahead.wanted(launch(3)) != ahead.wanted(launch(16))  # divides by 16
    assert ahead.wanted(launch(3)) != ahead.wanted(launch(1))  # a constant
    assert ahead.wanted(launch(3)) != ahead.wanted(launch(3, outputs=40))
    bare = launch(3)
    shifted = torch.ones(3 * 5 * 32 + 1)[1:].view(15, 32, 1, 1)
    assert ahead.wanted(bare) != ahead.wanted(
        Launch(bare.kernel, 1, {**bare.arguments, "x": shifted}, bare.warps, bare.stages)
    )


def test_what_was_compiled_ahead_is_what_a_launch_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = [ahead.wanted(launch(3))]
    first, second = (ahead.compile_all(kernels, 90) for _ in range(2))
    assert (first.compiled, first.cached, first.failed) == (1, 0, ())
    assert (second.compiled, second.cached, second.processes) == (0, 1, 1)
    code = LAUNCHED.format(paths=sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["hit"], done.stderr  # the second is Triton's own memory's


def test_what_does_not_compile_is_told_and_the_rest_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    good = ahead.wanted(launch(3))
    bad = json.dumps({**json.loads(good), "kernel": "gemm.nothing"})
    done = ahead.compile_all([bad, good], 90, processes=1)
    assert done.compiled == 1
    assert len(done.failed) == 1
    assert "nothing" in done.failed[0]
    assert "1 failed: AttributeError" in done.line()
    ended = ahead.compile_all(["no kernel"], 90)
    assert ended.failed[0].startswith("JSONDecodeError")


def test_a_list_of_kernels_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, kernels = tmp_path / "kernels.json", [ahead.wanted(launch(n)) for n in (3, 16)]
    path.write_text(ahead.written(kernels))
    assert ahead.read(path) == sorted(kernels)
    for text in ("", "{}", '{"format": "other", "kernels": []}'):
        path.write_text(text)
        assert ahead.main([str(path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_nothing_is_timed_that_was_not_listed(tmp_path: Path) -> None:
    """The tuner on operands with data, and the list on the same without: ours first, and last."""
    tenants, rows = models(), [2, 0, 1, 2]
    graph = graph_of(tenants)
    given = operands(graph, tenants, torch.randn(4, 3, 8, 8), rows)
    bare = [x if x is NO_RUN else without_data(x) for x in given]
    listed = kernels_of(placed(graph, META), bare, sms=2, capability=90)
    assert listed
    for ours in (True, False):
        timed: set[str] = set()

        def seconds(call: Callable[[], object], ours: bool = ours, to: set[str] = timed) -> float:
            with noting() as launches:
                call()
            to |= {ahead.wanted(each) for each in launches}
            return 1.0 if bool(launches) == ours else 2.0

        module = placed(graph, torch.device("cpu"))
        with noting():  # what was chosen runs, too
            choices = StoredChoices(tmp_path / f"{ours}.json")
            Tuner(seconds, choices, sms=2, capability=90).tune(module, given)
        assert timed
        assert timed <= listed


def test_a_session_on_the_simulated_device_says_what_a_real_one_compiles() -> None:
    found = kernels_for([(net(0), (X,)), (net(1), (X,))], "h200", sizes=[48, 84], max_batch=2)
    assert found
    assert all(json.loads(kernel)["kernel"] in {"gemm.gemm", "epilogue.finish"} for kernel in found)
    assert found == kernels_for([(net(2), (X,))], "h200", sizes=[48, 84], max_batch=2)
    alone = nn.Sequential(nn.Flatten()).eval()  # nothing of it has weights
    assert kernels_for([(alone, (X,))], "h200", max_batch=2) == set()


def test_a_device_compiles_each_kernel_once_in_a_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with Session("fake:h200") as session:
        native = session.device.native
        assert isinstance(native, _native.FakeCudaDevice)
        choices = StoredChoices(tmp_path / "choices.json")
        capturer = TorchCuda(native, META, {}, choices)  # type: ignore
        kernels = {ahead.wanted(launch(3))}
        first, second = (capturer.compile(lambda: kernels) for _ in range(2))
    assert first.startswith("1 compiled ahead in ")
    assert second == "0 compiled ahead in 0.0 s by 0 processes, 1 found in the cache"


def test_a_kernel_that_refuses_its_operands_ends_no_list() -> None:
    """Boxes take channels-last operands only; what follows such a layer is listed all the same."""
    layers = (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, 10)).eval().bfloat16()
    example = (torch.randn(1, 64, 8, 8).bfloat16(),)
    listed = [
        json.loads(kernel)
        for kernel in kernels_for([(model, example)], "h200", sizes=(132,), max_batch=2)
    ]
    sizes = {
        (kernel["kernel"], kernel["arguments"]["OUTPUTS"])
        for kernel in listed
        if "OUTPUTS" in kernel["arguments"]
    }
    assert {("gemm.gemm", 64), ("gemm.gemm", 32), ("gemm.gemm", 10), ("tma.boxes", 32)} <= sizes
    boxes = next(json.dumps(kernel) for kernel in listed if kernel["kernel"] == "tma.boxes")
    assert ahead.compile_all([boxes], 90).failed == ()
