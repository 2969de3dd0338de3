"""The recipes and the pages beside them: their code runs as it stands, without a network."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SPACETIME = f'set -e\nspacetime() {{ "{sys.executable}" -m spacetime "$@"; }}\n'
SURROUNDINGS = os.environ | {"PYTHONPATH": str(ROOT)}
PAGES = ("recipes", "planning", "sessions")
ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--json")


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """Each block of a page in a language, with the heading it stands under."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return [
        (section.partition("\n")[0], block)
        for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]
        for block in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    ]


def recipe(heading: str) -> str:
    (block,) = [block for title, block in blocks("recipes", "python") if title == heading]
    return block


PYTHON = [(page, *block) for page in PAGES for block in blocks(page, "python")]
SHELL = [(page, *block) for page in PAGES for block in blocks(page, "sh")]
TEXT = (ROOT / "docs" / "recipes.md").read_text()
ASKS_A_SERVER, IN_FASTAPI = "From Triton", "Two Hugging Face models in FastAPI"
OF_A_PLAN = "Run a plan"
APART = {ASKS_A_SERVER, IN_FASTAPI, OF_A_PLAN}  # they need more than an empty folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which the pages' paths are those of the checkout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def executed(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(block, "recipe", "exec"), names)
    return names


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("title", "block"),
    [(title, block) for _, title, block in PYTHON if title not in APART],
    ids=lambda value: value if len(value) < 60 else "",
)
def test_the_python_runs(title: str, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = executed(block)
    if title == "Limits of memory":
        assert "memory" in capsys.readouterr().out
    if "Classifier" in names:
        deployed = names["Classifier"]()
        with deployed.session:
            assert asyncio.run(deployed(torch.zeros(1, 64))).shape == (1, 10)


def ran(block: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", SPACETIME + block],
        cwd=folder,
        env=SURROUNDINGS,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("block", [block for *_, block in SHELL if "spacetime serve" not in block])
def test_the_commands_run(block: str, folder: Path) -> None:
    done = ran(block, folder)
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"`(\d × a100-80gb)`", TEXT if "s2.yaml" in block else ""):
        assert f"spacetime takes {said}" in done.stdout
    if (report := folder / "out" / "report.json").exists():
        told = json.loads(report.read_text())["overall"]
        assert told["offered"] == told["completed"] + sum(told["dropped"].values()) > 0


def test_a_plan_runs_from_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own commands make the files that its Python reads."""
    for page, title, block in SHELL:
        if (page, title) == ("planning", OF_A_PLAN):
            done = ran(block, folder)
            assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(folder)
    (block,) = [block for _, title, block in PYTHON if title == OF_A_PLAN]
    names = executed(block)
    assert names["tenant"].name == "a"


async def posted(app: Any, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """The status and the decoded body of an ASGI application's answer to a POST."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.usefixtures("folder")
def test_two_hugging_face_models_answer_as_themselves() -> None:
    names = executed(recipe(IN_FASTAPI))
    app, ids = names["app"], [5, 17, 99]

    async def ask() -> list[tuple[int, Any]]:
        async with app.router.lifespan_context(app):
            paths = ("/sentiment", "/topic", "/nobody")
            assert len(names["tenants"]["topic"].family.members) == 2  # they share launches
            return await asyncio.gather(*(posted(app, path, {"ids": ids}) for path in paths))

    *told, (refused, _) = asyncio.run(ask())
    assert refused == 422
    for folder, (status, logits) in zip(("sentiment", "topic"), told, strict=True):
        model = names["AutoModelForSequenceClassification"].from_pretrained(folder).eval()
        with torch.no_grad():
            alone = model(torch.tensor([ids])).logits[0]
        assert status == 200
        torch.testing.assert_close(torch.tensor(logits), alone, rtol=1e-3, atol=1e-3)


@contextmanager
def serving(line: str, folder: Path) -> Iterator[str]:
    """The server of a recipe on a free port; its address."""
    with subprocess.Popen(
        [sys.executable, "-m", *line.split(), *ANY_PORTS],
        cwd=folder,
        env=SURROUNDINGS,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["http"]
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0


def test_tritons_client_asks_the_server(folder: Path) -> None:
    pytest.importorskip("tritonclient.http")
    (line,) = [block for title, block in blocks("recipes", "sh") if title == ASKS_A_SERVER]
    with serving(line, folder) as address:
        port = re.findall(r":(\d+)", address)[0]
        names = executed(recipe(ASKS_A_SERVER).replace("localhost:8000", f"localhost:{port}"))
        assert names["answer"].as_numpy("output_0").shape == (1, 10)
        names["client"].close()
