"""Every export of any plan is what its tool accepts: by a schema, or by its commands' grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts, device
from spacetime.errors import UnsupportedError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.export import dra, mig_parted, mps, nvidia_smi

H100, TURING = device("h100-80gb"), device("rtx-2080ti")
FOLDER = Path(__file__).parents[1] / "rigs/schemas"
NUMBER = r"(?:0|[1-9]\d*)"
SMI = re.compile(
    rf"#[^\n]*|nvidia-smi -i {NUMBER} -mig 1"
    rf"|nvidia-smi mig -i {NUMBER} -cgi {NUMBER}:[0-7](?:,{NUMBER}:[0-7])* -C"
)
FOLDERS = r"/tmp/spacetime-mps/[a-z0-9-]+"
UUID = r'"\$\{MIG_[A-Z0-9_]+:\?UUID of [1-7]g\.\d+gb at [0-7] of gpu \d+\}"'
MPS = re.compile(
    rf"mkdir -p (?P<at>{FOLDERS})/pipe (?P=at)/log && CUDA_VISIBLE_DEVICES=(?:{NUMBER}|{UUID}) "
    r"CUDA_MPS_PIPE_DIRECTORY=(?P=at)/pipe CUDA_MPS_LOG_DIRECTORY=(?P=at)/log "
    r"nvidia-cuda-mps-control -d"
    rf"|#[^\n]*: CUDA_MPS_PIPE_DIRECTORY={FOLDERS}/pipe"
    r"(?: CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=(?:100|[1-9]\d?))?"
    r"|# A MIG instance's UUID is printed by nvidia-smi -L; set it as the variable named\."
)


def schema(name: str) -> Draft202012Validator:
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


PARTED, CLAIM = schema("mig-parted-v1"), schema("resource-claim-v1")
NAMES = st.text(max_size=80) | st.sampled_from(["g0p0", "A b", "a-b", "$(reboot)", "x" * 70, "-"])


def assignment(name: str) -> Assignment:
    return Assignment(name, 8, 10.0, 50.0)


@st.composite
def mig_plans(draw: st.DrawFn) -> Plan:
    ids = iter(draw(st.lists(NAMES, min_size=21, max_size=21, unique=True)))
    gpus = []
    for number in range(draw(st.integers(1, 3))):
        parts = tuple(
            PartitionPlan(next(ids), "mig", units, (assignment(draw(NAMES)),), start,
                          draw(st.integers(1, 3)))
            for units, start in draw(st.sampled_from(mig.maximal_layouts()))
        )  # fmt: skip
        gpus.append(GpuPlan(number, parts))
    return Plan("p", H100.name, tuple(gpus))


@st.composite
def share_plans(draw: st.DrawFn) -> Plan:
    ids = iter(draw(st.lists(NAMES, min_size=8, max_size=8, unique=True)))
    return Plan("p", TURING.name, tuple(
        GpuPlan(number, tuple(
            PartitionPlan(next(ids), "mps", units, (assignment(draw(NAMES)),))
            for units in draw(st.sampled_from([(100,), (50, 50), (20, 30, 40), (1, 99)]))
        ))
        for number in range(draw(st.integers(1, 2)))
    ))  # fmt: skip


def commands(text: str, grammar: re.Pattern[str]) -> None:
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        assert grammar.fullmatch(line), line


def processes(plan: Plan, on: DeviceFacts) -> None:
    try:
        text = mps(plan, on)
    except UnsupportedError as error:
        if not re.search("are both named|side by side", str(error)):
            raise
    else:
        commands(text, MPS)


def claims(plan: Plan, on: DeviceFacts) -> list[dict[str, Any]] | None:
    """The claims, each by the schema; None where two partitions would have one name."""
    try:
        found = list(yaml.safe_load_all(dra(plan, on)))
    except UnsupportedError as error:
        if "are both named" not in str(error):
            raise
        return None
    for claim in found:
        CLAIM.validate(claim)
        names = [request["name"] for request in claim["spec"]["devices"]["requests"]]
        assert len(set(names)) == len(names)
        for config in claim["spec"]["devices"].get("config", []):
            assert set(config["requests"]) <= set(names)
    return found


@settings(max_examples=30, deadline=None)
@given(mig_plans())
def test_plans_of_instances(plan: Plan) -> None:
    PARTED.validate(yaml.safe_load(mig_parted(plan, H100)))
    commands(nvidia_smi(plan, H100), SMI)
    found = claims(plan, H100)
    assert found is None or len(found) == len(plan.gpus)
    processes(plan, H100)


@settings(max_examples=30, deadline=None)
@given(share_plans())
def test_plans_of_shares(plan: Plan) -> None:
    claims(plan, TURING)
    processes(plan, TURING)


@pytest.mark.parametrize(
    ("validator", "wrong"),
    [
        (PARTED, {"version": "v2", "mig-configs": {"a": []}}),
        (PARTED, {"version": "v1", "mig-configs": {"a": [{"devices": [0], "mig-enabled": True}]}}),
        (PARTED, {"version": "v1", "mig-configs": {"a": [
            {"devices": [0], "mig-enabled": True, "mig-devices": {"1g10gb": 1}}]}}),
        (PARTED, {"version": "v1", "mig-configs": {"a": [
            {"devices": "some", "mig-enabled": False}]}}),
        (CLAIM, {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                 "metadata": {"name": "A_b"}, "spec": {}}),
        (CLAIM, {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                 "metadata": {"name": "a"},
                 "spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "x"}]}}}),
    ],
)  # fmt: skip
def test_the_schemas_refuse_what_the_tools_refuse(
    validator: Draft202012Validator, wrong: object
) -> None:
    assert not validator.is_valid(wrong)
