"""Models whose names need care in a path: each is reached over HTTP as over gRPC, or refused."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tritonclient.http.aio
from process import refused, work_file
from prometheus_client.parser import text_string_to_metric_families
from serving import serving, tenant
from test_http import ONE, ask
from test_tritonclient import KINDS, client, row

from spacetime.server.paths import check_names, place_of
from spacetime.server.serve import Server
from spacetime.workload.workload import WorkloadError

SLASHED = ("team/resnet-50", "a/b/c", "load/unload", "versions/1/x", "über/straße", "x/y%2Fz")
PLAIN = (
    *("two words", "1+1=2", "100%", "a%2Fb", "why?", "c#", "semi;colon", "a&b", "it's", '"', "`$`"),
    *("ready", "infer", "config", "versions", "index", "load", "v2", "models", "...", "模型", "🙂"),
    *("<b>bold</b>", "back\\slash", "{curly}", " padded ", "a:b@c", "~", "x" * 1000),
)
NAMES = (*SLASHED, *PLAIN)


@pytest.fixture(scope="module")
def named() -> Iterator[Server]:
    """A server whose models have all of these names, and one of a name they begin with."""
    names = (*NAMES, "team", "a")
    with serving(*(tenant(name, factory="affine") for name in names)) as own:
        yield own


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_encoded_segment(named: Server, name: str) -> None:
    for version in ("", "/versions/1"):
        at = f"/v2/models/{quote(name, safe='')}{version}"
        assert ask(named, "GET", at)[1]["name"] == name
        assert ask(named, "GET", f"{at}/ready")[0] == 200
        assert ask(named, "GET", f"{at}/config")[1]["name"] == name
        assert ask(named, "GET", f"{at}/stats")[1]["model_stats"][0]["name"] == name
        status, body, _ = ask(named, "POST", f"{at}/infer", {"inputs": [ONE]})
        assert (status, body["model_name"]) == (200, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_tritons_clients_reach_it(named: Server, name: str, kind: str) -> None:
    as_json = {"as_json": True} if kind == "grpc" else {}
    with client(kind, named) as triton:
        for version in ("", "1"):
            assert triton.is_model_ready(name, version)
            assert triton.get_model_metadata(name, version, **as_json)["name"] == name
            stats = triton.get_inference_statistics(name, version, **as_json)
            assert stats["model_stats"][0]["name"] == name
            config = triton.get_model_config(name, version, **as_json)
            assert config.get("config", config)["name"] == name
            result = triton.infer(name, row(kind, 1, 2, 3), version)
            np.testing.assert_array_equal(result.as_numpy("output_0"), [[3, 5, 7]])
        for wrong in (f"{name}/nobody", f"nobody/{name}", f"{name}x"):
            assert not triton.is_model_ready(wrong)
        assert not triton.is_model_ready(name, "2")


@pytest.mark.parametrize("kind", KINDS)
def test_it_leaves_and_comes_back(named: Server, kind: str) -> None:
    with client(kind, named) as triton:
        for name in ("team/resnet-50", "load/unload", "a%2Fb", "index"):
            triton.unload_model(name)
            assert not triton.is_model_ready(name)
            assert triton.is_model_ready("team")
            assert triton.is_model_ready("a")
            triton.load_model(name)
            assert triton.is_model_ready(name)


def test_tritons_client_for_asyncio_reaches_it(named: Server) -> None:
    async def ready() -> None:
        address = f"127.0.0.1:{named.http_port}"
        async with tritonclient.http.aio.InferenceServerClient(address) as triton:
            for name in SLASHED[:5]:
                assert await triton.is_model_ready(name)
                assert (await triton.get_model_metadata(name))["name"] == name

    asyncio.run(ready())


def test_the_journal_and_the_metrics_tell_them_apart(named: Server, lines: io.StringIO) -> None:
    address = f"http://127.0.0.1:{named.metrics_port}/metrics"
    text = urllib.request.urlopen(address).read().decode()
    seen = {
        labels["model"]
        for family in text_string_to_metric_families(text)
        for _, labels, *_ in family.samples
        if "model" in labels
    }
    assert seen == {*NAMES, "team", "a"}
    with serving(tenant("team/resnet", factory="affine"), log_requests=True) as own:
        for spelled in ("team%2Fresnet", "team/resnet"):
            ask(own, "POST", f"/v2/models/{spelled}/infer", {"inputs": [ONE]})
            ask(own, "GET", f"/v2/models/{spelled}/ready")
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    asked = [one for one in found if one["event"] == "request"]
    assert [one["model"] for one in asked] == ["team/resnet"] * 4
    assert asked[0]["path"] == "/v2/models/team%2Fresnet/infer"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stats", "/v2/models/stats is the statistics of all models"),
        ("a/ready", "/ready at its end asks something of another model"),
        ("a/b/infer", "/b/infer at its end"),
        ("a/versions", "/versions at its end"),
        ("a/versions/1", "/versions/1 at its end"),
        ("a/versions/1/stats", "/versions/1/stats at its end"),
        ("..", "clients take . and .. out of a path"),
        ("a/./b", "clients take . and .. out"),
        ("/a", "begins or ends with a slash"),
        ("a/", "begins or ends with a slash"),
        ("a//b", "has two together"),
        ("a\tb", "control character"),
        ("a\u2028b", "control character"),
        ("a\x7f", "control character"),
        ("\ud83d", "control character"),
        ("ü" * 501, "more than 1000 bytes"),
    ],
)
def test_a_name_that_no_path_can_carry_is_refused(name: str, says: str) -> None:
    with pytest.raises(WorkloadError) as wrong:
        check_names(["fine", name])
    assert says in str(wrong.value)
    assert str(wrong.value).startswith(f"tenant {name!r:.80}: name: ")
    assert str(wrong.value).isprintable()


def test_no_two_names_share_a_path() -> None:
    """Every path of a name, with its slashes as they are or not, is of no other that can be."""
    ends = ("", "/ready", "/infer", "/versions/1", "/versions/ready", "/versions/versions/config")
    for name in NAMES:
        for spelled in (quote(name), quote(name, safe="")):
            assert place_of(f"/v2/repository/models/{spelled}/load").model == name
            for end in ends:
                asked = place_of(f"/v2/models/{spelled}{end}").model
                if asked != name:
                    with pytest.raises(WorkloadError):
                        check_names([asked])


def test_the_start_is_refused_in_one_line(tmp_path: Path) -> None:
    one = "slo_ms: 100, rate_rps: 1, example_inputs: [{shape: [1, 3], datatype: FP32}]"
    text = f'tenants: [{{name: "a/ready", model: "served_models:affine", {one}}}]\n'
    says = refused(work_file(tmp_path, text), "--http-port", "0")
    assert says.startswith("spacetime: tenant 'a/ready': name: no path can carry it, for /ready at")
