"""Every loader, given anything, reads it or refuses it in one line: no traceback, no hang."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacetime.cli.root import status
from spacetime.errors import SpacetimeError
from spacetime.plan import plan_json
from spacetime.profiles import profile_import
from spacetime.profiles.profile_file import read_profiles
from spacetime.workload import recorded
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload_file import read_workload

WORKLOAD = """\
tenants:
  - {name: eye, model: resnet, slo_ms: 50, rate_rps: 1e2, batch_sizes: [1, 2]}
  - {name: ear, model: m, slo_ms: 20.5, rate_rps: 7, batch_mix: {1: 3, 8: 1}}
arrivals: {process: gamma, cv: 2}
seed: 3
"""
AS_JSON = json.dumps({"tenants": [{"name": "a", "model": "m", "slo_ms": 5, "rate_rps": 1}]})
PROFILE = """\
model,device,kind,units,batch,procs,latency_ms,throughput_rps,source
m,a100-80gb,mig,1,8,1,40,200,measured
m,a100-80gb,mig,2,8,1,20,400,measured
"""
PARVAGPU = """\
Mig instance,Batch size,Workload Number,Throughput,Latency
1,8,1,200,0.04
2,8,1,400,0.02
"""
GPULET = "model,batch,share_percent,latency_ms\nm,8,20,40\nm,8,40,20\n"
SCENARIOS = "scenario,model,slo_ms,rate_rps\nS1,m,50,10\nS1,n,50,10\n"
INVOCATIONS = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11.5,0.25\n"
LLM = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.979,10,20\n"
TWITTER = "12\n7\n3.5\n"
PLAN = json.dumps(
    {
        "format": "spacetime.plan/1",
        "planner": "p",
        "device": "a100-80gb",
        "gpus": [
            {
                "id": 0,
                "partitions": [
                    {
                        "id": "g0p0",
                        "kind": "mig",
                        "units": 1,
                        "start": 0,
                        "procs": 1,
                        "tenants": [{"tenant": "t", "batch": 8, "rate_rps": 10, "latency_ms": 100}],
                    }
                ],
            }
        ],
    }
)


def _plan(path: Path) -> object:
    return plan_json.loads(path.read_text(encoding="utf-8", errors="replace"), where=str(path))


# Name of a sound file -> its text, and what reads it.
LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "w.yaml": (WORKLOAD, read_workload),
    "w.json": (AS_JSON, read_workload),
    "p.csv": (PROFILE, read_profiles),
    "parvagpu.csv": (PARVAGPU, profile_import.parvagpu),
    "gpulet.csv": (GPULET, profile_import.gpulet),
    "s.csv": (SCENARIOS, read_scenarios),
    "f2021.csv": (INVOCATIONS, functools.partial(recorded.read, form="azure-functions-2021")),
    "llm.csv": (LLM, functools.partial(recorded.read, form="azure-llm")),
    "tweets.txt": (TWITTER, functools.partial(recorded.read, form="twitter")),
    "plan.json": (PLAN, _plan),
}
TOKENS = (
    *(b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n", b"\t", b'"', b"'", b","),
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"-0", b"9" * 5000, b"0x" + b"f" * 5000, b"1_0"),
    *(b"{", b"}", b"[", b"]", b"[" * 3000, b"&a ", b"*a", b"!!int x", b"!!bool x", b"!!int ''"),
    *(b"!!timestamp x", b"<<: ", b"? [a]\n: b\n", b"2020-01-01", b"true", b"null", b"\xe2\x80\xa8"),
    *("\u0661".encode(), b"x" * 200_000, b"seconds"),
)


def judged(path: Path, load: Callable[[Path], object]) -> str | None:
    """The refusal, or None where the file was read."""
    try:
        load(path)
    except SpacetimeError as error:
        text = str(error)
        assert "\n" not in text
        assert "\r" not in text
        assert path.name in text
        assert len(text) < 1000
        return text
    return None


@pytest.mark.parametrize("name", LOADERS)
def test_the_sound_file_is_read_also_with_a_mark_and_with_other_line_ends(
    name: str, tmp_path: Path
) -> None:
    text, load = LOADERS[name]
    path = tmp_path / name
    for content in (text, text.replace("\n", "\r\n")):
        path.write_bytes(content.encode())
        assert judged(path, load) is None
        if name != "plan.json":
            path.write_bytes(b"\xef\xbb\xbf" + content.encode())
            assert judged(path, load) is None
    for wrong in (b"", b"\x80\x81\x82" * 40, bytes(range(256)), b"\x00" * 100):
        path.write_bytes(wrong)
        assert judged(path, load) is not None


@pytest.mark.parametrize("name", LOADERS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_anything_is_read_or_refused_in_one_line(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    text, load = LOADERS[name]
    content = text.encode()
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        at = data.draw(st.integers(0, len(content)), label="at")
        length = data.draw(st.sampled_from([0, 0, 1, 3, 10, len(content)]), label="cut")
        put = data.draw(st.sampled_from(TOKENS) | st.binary(max_size=8), label="put")
        content = content[:at] + put + content[at + length :]
    path = tmp_path / name
    path.write_bytes(content)
    judged(path, load)


def bomb(levels: int, first: str, other: str) -> str:
    """Each level names the last nine times."""
    more = (f"a{n}: &a{n} {other.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, levels))
    return "\n".join([f"a0: &a0 {first}", *more])


@pytest.mark.parametrize(
    "text",
    [
        bomb(12, "[x]", "[{}]") + "\ntenants: *a11\n",
        bomb(12, "{x: 1}", "{{<<: [{}]}}") + "\ntenants: [*a11]\n",
        bomb(12, "[x]", "[{}]") + "\n? *a11\n: 1\n",
        "tenants: &a [*a]",
        "tenants: [{name: a, model: m, slo_ms: 0x" + "f" * 5000 + ", rate_rps: 1}]",
        "tenants: " + "[" * 50_000,
        "a\nb: 1\n'x\n\n y': 2",
    ],
)
def test_yaml_made_to_hurt_is_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    begin = time.process_time()
    assert judged(path, read_workload) is not None
    assert time.process_time() - begin < 5


def test_a_trace_with_a_field_beyond_any_size(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_ms,tenant\n0,a\n" + "9" * 200_000 + ",a\n")
    path = tmp_path / "w.json"
    path.write_text(
        json.dumps(json.loads(AS_JSON) | {"arrivals": {"process": "trace", "file": "t.csv"}})
    )
    assert "t.csv:3: row: is not CSV: field larger" in (judged(path, read_workload) or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"headroom": 10**400}, "headroom: must be a number of fewer digits"),
        ({"a\nb": 1}, "a b: is not a field here"),
        ({"policy": ["x"]}, "policy: must be one of"),
    ],
)
def test_plans_that_are_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpacetimeError) as caught:
        plan_json.loads(json.dumps(json.loads(PLAN) | change), where="plan.json")
    assert str(caught.value).startswith(f"plan.json: {message}")
    assert "\n" not in str(caught.value)
    with pytest.raises(SpacetimeError, match=r"plan.json: device: is given twice"):
        plan_json.loads(PLAN[:-1] + ', "device": "x"}', where="plan.json")


def test_the_command_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("w.yaml", "p.csv", "plan.json"):
        (tmp_path / name).write_bytes(b"\xff\x00" * 9)
    load, profiles, plan = (str(tmp_path / name) for name in ("w.yaml", "p.csv", "plan.json"))
    (tmp_path / "good.json").write_text(AS_JSON)
    for words in (
        ["plan", load, "--profiles", profiles],
        ["plan", str(tmp_path / "good.json"), "--profiles", profiles],
        ["simulate", plan, "--workload", load, "--profiles", profiles],
        ["compare", load, "--profiles", profiles],
        ["profile", profiles, "--import", "gpulet", "--out", str(tmp_path / "o.csv")],
    ):
        monkeypatch.setattr("sys.argv", ["spacetime", *words])
        assert status() == 2
        said = capsys.readouterr().err
        assert said.startswith("spacetime: ")
        assert said.count("\n") == 1


def test_a_recording_of_nothing_but_its_header(tmp_path: Path) -> None:
    for name in ("llm.csv", "f2021.csv"):
        text, load = LOADERS[name]
        (tmp_path / name).write_text(text.split("\n")[0] + "\n")
        assert "recording: holds no request" in (judged(tmp_path / name, load) or "")
