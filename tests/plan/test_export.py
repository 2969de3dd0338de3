"""Exports: exact texts by hand, and the fields each tool's own schema asks for."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from spacetime.devices import mig
from spacetime.devices.facts import device
from spacetime.errors import UnsupportedError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.export import EXPORTS, dra, mig_parted, mps, nvidia_smi

A100, TURING = device("a100-80gb"), device("rtx-2080ti")


def part(name: str, kind: str, units: int, start: int | None = None, procs: int = 1, *,
         tenant: str = "a") -> PartitionPlan:  # fmt: skip
    return PartitionPlan(name, kind, units, (Assignment(tenant, 8, 10, 50),), start, procs)


def plan(*devices: tuple[PartitionPlan, ...], name: str = "a100-80gb") -> Plan:
    return Plan("hand", name, tuple(GpuPlan(n, parts) for n, parts in enumerate(devices)))


MIG = plan(
    (part("g0p0", "mig", 2, 0), part("g0p1", "mig", 3, 4, 2), part("g0p2", "mig", 2, 2)),
    (part("g1p0", "mig", 7, 0),),
)
SHARES = plan((part("g0p0", "mps", 40), part("g0p1", "mps", 60, tenant="b\nrm -rf x")),
              name="rtx-2080ti")  # fmt: skip


def test_mig_parted_counts_instances_by_device() -> None:
    assert mig_parted(MIG, A100) == (
        "version: v1\n"
        "mig-configs:\n"
        "  spacetime:\n"
        "  - devices:\n    - 0\n    mig-enabled: true\n"
        "    mig-devices:\n      2g.20gb: 2\n      3g.40gb: 1\n"
        "  - devices:\n    - 1\n    mig-enabled: true\n"
        "    mig-devices:\n      7g.80gb: 1\n"
    )


def test_nvidia_smi_places_every_instance() -> None:
    assert nvidia_smi(MIG, A100).splitlines()[1:] == [
        "nvidia-smi -i 0 -mig 1",
        "nvidia-smi mig -i 0 -cgi 9:4,14:0,14:2 -C",
        "nvidia-smi -i 1 -mig 1",
        "nvidia-smi mig -i 1 -cgi 0:0 -C",
    ]
    sizes = {profile.id: profile.units for profile in A100.mig}
    for tuples in re.findall(r"-cgi (\S+)", nvidia_smi(MIG, A100)):
        pairs = [tuple(map(int, each.split(":"))) for each in tuples.split(",")]
        assert mig.fits(mig.Placement(sizes[number], start) for number, start in pairs)


def test_mps_has_a_daemon_where_processes_run_side_by_side() -> None:
    lines = mps(MIG, A100).splitlines()[1:]
    assert len(lines) == 2
    assert 'CUDA_VISIBLE_DEVICES="${MIG_G0P1:?UUID of 3g.40gb at 4 of gpu 0}"' in lines[0]
    assert lines[0].endswith("nvidia-cuda-mps-control -d")
    assert lines[1] == (
        "# a on 3 slices, 2 processes: CUDA_MPS_PIPE_DIRECTORY=/tmp/spacetime-mps/g0p1/pipe"
    )


def test_mps_shares_are_variables_of_each_process() -> None:
    lines = mps(SHARES, TURING).splitlines()[1:]
    assert len(lines) == 3
    assert "CUDA_VISIBLE_DEVICES=0 " in lines[0]
    assert [line.rpartition(" ")[2] for line in lines[1:]] == [
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=40", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=60",
    ]  # fmt: skip
    assert all(line.startswith("#") for line in lines[1:])  # a tenant's name runs nothing


@pytest.mark.parametrize("form", ["nvidia-smi", "mps"])
def test_commands_are_a_shell_script(form: str) -> None:
    text = EXPORTS[form](MIG, A100)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)


def test_a_resource_claim_keeps_a_device_together() -> None:
    first, second = yaml.safe_load_all(dra(MIG, A100))
    assert (first["apiVersion"], first["kind"]) == ("resource.k8s.io/v1", "ResourceClaim")
    devices = first["spec"]["devices"]
    assert [each["name"] for each in devices["requests"]] == ["g0p0", "g0p1", "g0p2"]
    for request in devices["requests"]:
        assert set(request) == {"name", "exactly"}
        assert request["exactly"]["deviceClassName"] == "mig.nvidia.com"
    (selector,) = devices["requests"][1]["exactly"]["selectors"]
    assert selector["cel"]["expression"] == (
        "device.attributes['gpu.nvidia.com'].profile == '3g.40gb'"
    )
    assert devices["constraints"] == [
        {"requests": [], "matchAttribute": "gpu.nvidia.com/parentUUID"}
    ]
    (config,) = devices["config"]
    assert config["requests"] == ["g0p1"]
    assert config["opaque"]["parameters"]["sharing"] == {"strategy": "MPS"}
    assert "config" not in second["spec"]["devices"]


def test_a_claim_of_shares_has_a_default_percentage_only_where_all_agree() -> None:
    (unequal,) = yaml.safe_load_all(dra(SHARES, TURING))
    (config,) = unequal["spec"]["devices"]["config"]
    assert config["opaque"]["parameters"]["sharing"] == {"strategy": "MPS"}
    halves = plan((part("x", "mps", 50), part("y", "mps", 50)), name="rtx-2080ti")
    (equal,) = yaml.safe_load_all(dra(halves, TURING))
    (config,) = equal["spec"]["devices"]["config"]
    assert config["opaque"]["parameters"]["sharing"]["mpsConfig"] == {
        "defaultActiveThreadPercentage": 50
    }


def test_what_a_tool_cannot_express_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="export mig-parted: gpu 0 has partitions that are"):
        mig_parted(SHARES, TURING)
    with pytest.raises(UnsupportedError, match="export nvidia-smi: gpu 0 has partitions that are"):
        nvidia_smi(SHARES, TURING)
    with pytest.raises(UnsupportedError, match="export mps: no partition of the plan runs proc"):
        mps(plan((part("p", "mig", 7, 0),)), A100)
    with pytest.raises(UnsupportedError, match="export dra: gpu 0 has partitions other than mig"):
        dra(plan((part("p", "sm", 66),)), A100)
