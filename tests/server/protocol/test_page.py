"""GET /: a page that a person reads in a browser, and what shows there does nothing."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from serving import serving, tenant
from test_http import ONE, ask

from spacetime.server.serve import Server
from spacetime.server.tokens import Tokens
from spacetime.workload.workload import InputSpec

BROWSER = shutil.which("chromium")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOSTILE = "<script>document.title='owned'</script>"
QUOTED = '"><img src=x onerror="document.title=\'owned\'">'
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def shown() -> Iterator[Server]:
    """A server with names that want to be more than names, and a model that is not loaded."""
    inputs = (InputSpec((1, 3), "FP32", "<i>x</i>"),)
    hostile = (tenant(name, *inputs, factory="affine") for name in (HOSTILE, QUOTED))
    with serving(tenant("team/net", factory="affine"), tenant("gone", factory="affine"),
                 *hostile) as own:  # fmt: skip
        ask(own, "POST", "/v2/repository/models/gone/unload")
        assert ask(own, "POST", "/v2/models/team%2Fnet/infer", {"inputs": [ONE]})[0] == 200
        yield own


def page(server: Server, **headers: str) -> tuple[str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    connection.request("GET", "/", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    return answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()}


class Read(HTMLParser):
    """The words of a page, its tags and its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_names_models_lanes_and_where_to_go_on(shown: Server) -> None:
    text, headers = page(shown)
    assert headers["content-type"] == "text/html; charset=utf-8"
    read = Read(text)
    for word in ("team/net", HOSTILE, QUOTED, "gone", "unloaded", "FP32 [-1, 3]", "100.00%", "p99"):
        assert word in read.words
    assert {"/v2", "/v2/models/stats", "/openapi.json", "/v2/models/team%2Fnet"} <= {*read.links}
    assert f"http://127.0.0.1:{shown.metrics_port}/metrics" in read.links
    for link in read.links:
        if link.startswith("/"):
            assert ask(shown, "GET", link)[0] == 200


def test_the_page_runs_and_fetches_nothing(shown: Server) -> None:
    text, headers = page(shown)
    read = Read(text)
    assert not {"script", "img", "i", "link", "iframe", "form"} & {*read.tags}
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ['evil"><b>', "evil b", "evil<", "evil/../y", "evil@x", "evil:b"])
def test_a_host_that_is_none_is_not_shown(shown: Server, host: str) -> None:
    text, _ = page(shown, Host=host)
    assert "evil" not in text
    assert f"http://localhost:{shown.metrics_port}/metrics" in Read(text).links


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json, text/html;q=0.5", True),
        ("text/html;q=0.1, application/json;q=0.2", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/html, application/json", False),
        ("application/json;q=0", False),
        ("application/json;q=x", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_same_as_json_for_who_prefers_that(shown: Server, accept: str, is_json: bool) -> None:
    text, headers = page(shown, Accept=accept)
    assert headers["vary"] == "accept"
    assert (headers["content-type"] == "application/json") == is_json
    if is_json:
        found = json.loads(text)
        models = {one["name"]: one for one in found["models"]}
        assert models["team/net"]["inputs"][0] == {
            "name": "input_0", "datatype": "FP32", "shape": [-1, 3],
        }  # fmt: skip
        assert models["team/net"]["answered"] >= 1
        assert models["gone"]["state"] == "UNAVAILABLE"
        assert len(found["lanes"]) == 2
        assert found["ready"] is True


def test_a_token_opens_the_page_too() -> None:
    token = "a-token-of-enough-characters"
    with serving(tenant("affine"), tokens=Tokens((token.encode(),))) as own:
        assert ask(own, "GET", "/")[0] == 401
        assert "affine" in page(own, Authorization=f"Bearer {token}")[0]


def browsed(folder: Path, server: Server, *options: str) -> str:
    """What a browser makes of the page."""
    done = subprocess.run(
        [str(BROWSER), *QUIET, f"--user-data-dir={folder}/profile", *options,
         f"http://127.0.0.1:{server.http_port}/"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_in_a_browser_nothing_of_a_name_is_executed(shown: Server, tmp_path: Path) -> None:
    found = browsed(tmp_path, shown, "--dump-dom")
    assert "<title>spacetime: 4 models, ready</title>" in found
    assert HOSTILE in Read(found).words
    assert not {"script", "img"} & {*Read(found).tags}


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_a_browser_paints_it_at_the_width_of_a_phone(shown: Server, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browsed(tmp_path, shown, f"--screenshot={picture}", "--window-size=400,900")
    painted = picture.read_bytes()
    assert painted.startswith(PNG)
    assert len(painted) > 10_000  # an empty page has a tenth of it
