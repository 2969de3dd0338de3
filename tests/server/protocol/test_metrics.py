"""Metrics read back with Prometheus' own parser, and `top` made of them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from served_models import Gate
from serving import serving, settled, tenant
from test_http import ONE, change, infer

from spacetime.cli.root import cli
from spacetime.commands.top import parse, summary
from spacetime.server.serve import Server

# What Triton documents for a model; perf_analyzer and dashboards look for these.
TRITON = {
    f"nv_inference_{name}"
    for name in (
        "request_success", "request_failure", "count", "exec_count", "request_duration_us",
        "queue_duration_us", "compute_input_duration_us", "compute_infer_duration_us",
        "compute_output_duration_us", "pending_request_count",
    )
}  # fmt: skip


def text(server: Server) -> str:
    address = server.addresses()["metrics"]
    with urllib.request.urlopen(address) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def values(server: Server) -> dict[tuple[str, str, str], float]:
    """By name, model or lane, and reason."""
    found = {}
    for family in text_string_to_metric_families(text(server)):
        assert family.documentation
        for named, labels, value, *_ in family.samples:
            # The parser gives every counter a `_total`; Triton's have none.
            name = named.removesuffix("_total") if named.startswith("nv_") else named
            of = labels.get("model", labels.get("lane", ""))
            found[name, of, labels.get("reason", "")] = value
    return found


def test_the_counts_are_what_happened(gate: type[Gate]) -> None:
    with serving(tenant("affine"), tenant("breaks"), tenant("gate"), lanes=1, queue=1) as own:
        before = values(own)
        lines = text(own).splitlines()
        assert {line.partition("{")[0] for line in lines} >= TRITON
        three = change(shape=[3, 3], data=[1] * 9)
        assert [infer(own, "affine", each)[0] for each in (ONE, three, change(shape=[1]))] == [
            200, 200, 400,
        ]  # fmt: skip
        assert infer(own, "breaks", change(data=[101, 0, 0]))[0] == 500
        held = own.repository.model("gate").tenant.submit(Gate.example + 101)
        assert gate.held.wait(60)
        assert infer(own, "gate", ONE, parameters={"timeout": 1000})[0] == 504
        waiting = own.repository.model("gate").tenant.submit(Gate.example)
        assert infer(own, "gate", ONE)[0] == 429
        now = values(own)
        assert now["nv_inference_pending_request_count", "gate", ""] == 2
        gate.open.set()
        held.result(60)
        waiting.result(60)
        after = values(own)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["nv_inference_request_success", "affine", ""] == 2
    assert grown["nv_inference_count", "affine", ""] == 4
    assert grown["nv_inference_exec_count", "affine", ""] == 2
    assert grown["nv_inference_request_failure", "affine", "OTHER"] == 1
    assert grown["nv_inference_request_failure", "breaks", "BACKEND"] == 1
    assert grown["nv_inference_request_failure", "gate", "REJECTED"] == 2
    assert grown["spacetime_slo_miss_total", "gate", "deadline"] == 1
    assert grown["spacetime_slo_miss_total", "gate", "queue-full"] == 1
    assert grown["spacetime_slo_met_total", "gate", ""] == 2
    assert grown["spacetime_launches_total", "0", ""] == 5
    assert grown["spacetime_launch_tenants_total", "0", ""] == 5
    assert after["spacetime_units", "0", ""] >= 1
    durations = [
        grown[f"nv_inference_{part}_duration_us", "gate", ""] for part in ("queue", "compute_infer")
    ]
    whole = grown["nv_inference_request_duration_us", "gate", ""]
    assert sum(durations) == pytest.approx(whole)


def test_tenants_of_a_launch_units_and_readiness(gate: type[Gate]) -> None:
    with serving(
        tenant("a", factory="affine"), tenant("b", factory="affine"), tenant("gate"), lanes=1
    ) as own:
        models = own.repository.models
        held = models["gate"].tenant.submit(Gate.example + 101)
        assert gate.held.wait(60)
        before = values(own)
        waiting = [models[name].tenant.submit(Gate.example) for name in "ab"]
        gate.open.set()
        for future in (held, *waiting):
            future.result(60)
        settled(own)
        now = values(own)
        grown = {
            name: now[name, "0", ""] - before[name, "0", ""] for name, lane, _ in now if lane == "0"
        }
        assert grown["spacetime_launches_total"] == 1  # the other was counted when it began
        assert grown["spacetime_launch_tenants_total"] == 2
        assert grown["spacetime_launch_samples_total"] == 2
        assert grown["spacetime_units_used_seconds_total"] > 0
        assert now["spacetime_latency_p99_seconds", "gate", ""] > 0
        assert now["spacetime_ready", "", ""] == 1
        assert own.repository.drain(60)
        assert values(own)["spacetime_ready", "", ""] == 0


def test_no_client_adds_a_label() -> None:
    with serving(tenant("affine")) as own:
        before = set(values(own))
        for n in range(20):
            assert infer(own, f"nobody-{n}", ONE)[0] == 404
            assert infer(own, "affine", ONE, id=f"{n}")[0] == 200
        assert set(values(own)) == before


def test_top_shows_one_reading() -> None:
    with serving(tenant("affine")) as own:
        infer(own, "affine", ONE)
        address = own.addresses()["metrics"]
        shown = CliRunner().invoke(cli, ["top", "--url", address, "--once"], env={"COLUMNS": "120"})
        bare = address.removesuffix("/metrics")
        told = CliRunner().invoke(cli, ["top", "--url", bare, "--json"])
    assert shown.exit_code == 0, shown.output
    assert "affine" in shown.output
    assert "tenants/launch" in shown.output
    found = json.loads(told.output)
    assert found["tenants"]["affine"]["attainment"] == 1
    assert found["lanes"]["0"]["units"] >= 1


def test_top_shows_rates_between_two_readings(server: Server) -> None:
    first = parse(text(server), 10.0)
    for _ in range(4):
        infer(server, "affine", ONE)
    shown = summary(parse(text(server), 12.0), first)
    assert shown["tenants"]["affine"]["answered_rps"] == 2
    assert shown["tenants"]["affine"]["mean_batch"] == 1
    assert shown["tenants"]["breaks"]["answered_rps"] == 0
    assert sum(lane["launches_ps"] for lane in shown["lanes"].values()) == 2


def test_an_address_that_is_none(server: Server, tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", f"http://127.0.0.1:{server.http_port}/v2"):
        refused = CliRunner().invoke(cli, ["top", "--url", url, "--once"])
        assert refused.exit_code != 0
        assert "url must be" in str(refused.exception)
