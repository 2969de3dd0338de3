"""A server that audits: what its metrics and journal say of answers that are not their models'."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from process import refused, running, send, told, work_file
from serving import serving, tenant
from test_http import ONE, infer
from test_journal import read
from test_metrics import values
from test_tritonclient import client, row

from spacetime.models.cpu.family import CpuFamily
from spacetime.server.serve import Server
from spacetime.session.session import Session

TENANT = (
    'tenants:\n  - {name: a, model: "served_models:affine", slo_ms: 10000, rate_rps: 1, '
    "example_inputs: [{shape: [1, 3], datatype: FP32}]}\n"
)


def spoil(server: Server, name: str) -> None:
    """The program of this tenant answers 0 from now on."""
    family = server.repository.session.tenants[name].family
    assert isinstance(family, CpuFamily)
    family.runner.alone[0] = lambda x: (torch.zeros_like(x),)


def settle(server: Server) -> None:
    auditor = server.repository.session.auditor
    assert auditor is not None
    assert auditor.settle(60)


@pytest.mark.parametrize("stop", [False, True])
def test_a_wrong_answer_is_a_metric_and_a_line_with_tenant_lane_and_request(
    lines: io.StringIO, *, stop: bool
) -> None:
    def opened(_: object) -> Session:
        return Session("cpu", lanes=1, audit=1.0, audit_stop=stop)

    with serving(tenant("affine"), tenant("gate"), opened=opened) as own:
        assert infer(own, "affine", ONE)[1]["outputs"][0]["data"] == [3, 5, 7]
        settle(own)
        before = values(own)
        # The first was asked to learn the model's outputs.
        assert before["spacetime_audit_checked_total", "affine", ""] == 2
        assert before["spacetime_audit_differences_total", "affine", ""] == 0
        spoil(own, "affine")
        assert infer(own, "affine", ONE, id="seven")[1]["outputs"][0]["data"] == [0, 0, 0]
        settle(own)
        with client("grpc", own) as triton:
            got = triton.infer("affine", row("grpc", 1, 2, 3), request_id="eight")
        assert got.as_numpy("output_0").tolist() == ([[3, 5, 7]] if stop else [[0, 0, 0]])
        settle(own)
        after = values(own)
    assert after["spacetime_audit_checked_total", "affine", ""] == 4
    assert after["spacetime_audit_differences_total", "affine", ""] == (1 if stop else 2)
    assert after["spacetime_audit_worst_difference", "affine", ""] == pytest.approx(0.5)
    assert after["spacetime_audit_differences_total", "gate", ""] == 0
    assert after["spacetime_audit_skipped_total", "gate", ""] == 0
    assert after["spacetime_apart", "affine", ""] == int(stop)
    assert after["spacetime_apart", "gate", ""] == 0
    told = read(lines)
    wrong = [line for line in told if line["event"] == "audit"]
    assert [line["request_id"] for line in wrong] == ["seven"] + ["eight"] * (not stop)
    assert (wrong[0]["model"], wrong[0]["lane"], wrong[0]["level"]) == ("affine", 0, "warning")
    assert wrong[0]["worst"] == pytest.approx(0.5)
    apart = [line for line in told if line["event"] == "apart"]
    assert [line["family"] for line in apart] == [["affine"]] * stop


def test_nothing_of_an_audit_is_told_where_there_is_none(server: Server) -> None:
    assert not [name for name, *_ in values(server) if "audit" in name or "apart" in name]


def test_the_command_audits(tmp_path: Path) -> None:
    with running(work_file(tmp_path, TENANT), "--audit", "1", "--audit-stop") as served:
        connection = served.connection()
        send(connection, "a", 1, 2, 3)
        assert told(connection) == (200, [3, 5, 7])
        while served.metrics()["spacetime_audit_checked_total", "a"] < 2:
            pass
        assert served.metrics()["spacetime_audit_differences_total", "a"] == 0


@pytest.mark.parametrize(
    ("option", "named"), [("--audit=2", "audit must be"), ("--audit-stop", "audit_stop")]
)
def test_what_is_no_part_is_refused_in_a_line(tmp_path: Path, option: str, named: str) -> None:
    assert named in refused(work_file(tmp_path, TENANT), option)
