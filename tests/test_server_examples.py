"""The examples inside other Python servers: they answer as the models do, many at once.

Each needs its library, which is no dependency of ours: without it the test skips and says so.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples" / "python_servers"
Ask = Callable[[str, list[list[float]]], list[list[float]]]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports an example as its own directory does; our tests have a module `models` too."""
    hidden = sys.modules.pop("models", None)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES}:{EXAMPLES.parent.parent}")
    yield import_module
    for name in ("models", "with_fastapi", "with_litserve", "with_ray_serve"):
        sys.modules.pop(name, None)
    if hidden is not None:
        sys.modules["models"] = hidden


def check(models: Any, ask: Ask, count: int = 60) -> None:
    """Many requests of all models at once: each answer is its model's own."""
    rng = random.Random(0)
    own = {name: models.model(name) for name in models.NAMES}

    def one(number: int) -> None:
        name = models.NAMES[number % len(models.NAMES)]
        rows = torch.randn(1 + number % 3, 16, generator=torch.Generator().manual_seed(number))
        answer = torch.tensor(ask(name, rows.tolist()))
        torch.testing.assert_close(answer, own[name](rows).detach(), rtol=1e-4, atol=1e-4)

    order = rng.sample(range(count), count)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(one, order))) == count


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("with_*.py")), ids=lambda p: p.stem)
def test_an_example_says_what_changes_in_15_lines(path: Path) -> None:
    changed = re.findall(r"# \+", path.read_text())
    assert 5 <= len(changed) - 1 <= 15  # one names the mark itself


def test_fastapi(examples: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install fastapi httpx")
    pytest.importorskip("httpx", reason="httpx is not installed: pip install fastapi httpx")
    from fastapi.testclient import TestClient  # noqa: PLC0415

    with TestClient(examples("with_fastapi").app) as client:

        def ask(name: str, rows: list[list[float]]) -> list[list[float]]:
            answer = client.post(f"/predict/{name}", json=rows)
            assert answer.status_code == 200, answer.text
            return list(answer.json())

        check(import_module("models"), ask)
        assert client.post("/predict/red", json=[[1.0, 2.0]]).status_code == 422
        assert client.post("/predict/grey", json=[[1.0] * 16]).status_code == 404


def test_litserve(examples: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("litserve", reason="litserve is not installed: pip install litserve httpx")
    pytest.importorskip("httpx", reason="httpx is not installed: pip install litserve httpx")
    from fastapi.testclient import TestClient  # noqa: PLC0415
    from litserve.utils import wrap_litserve_start  # noqa: PLC0415

    server = examples("with_litserve").server()
    with wrap_litserve_start(server) as running, TestClient(running.app) as client:

        def ask(name: str, rows: list[list[float]]) -> list[list[float]]:
            answer = client.post("/predict", json={"model": name, "rows": rows})
            assert answer.status_code == 200, answer.text
            return list(answer.json()["rows"])

        check(import_module("models"), ask)


def test_ray_serve(examples: Callable[[str], ModuleType]) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[serve]'")
    serve = pytest.importorskip("ray.serve", reason="ray lacks serve: pip install 'ray[serve]'")
    module = examples("with_ray_serve")
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    try:
        handle = serve.run(module.app)
        check(
            import_module("models"),
            lambda name, rows: handle.predict.remote(name, rows).result(timeout_s=120),
        )
    finally:
        serve.shutdown()
        ray.shutdown()
