"""Plans as what other tools take. Texts to read and apply by hand: nothing here runs anything.

`mig-parted`: NVIDIA's mig-parted configuration (counts; it finds the placements itself).
`nvidia-smi`: commands that create the instances where the plan has them.
`mps`: commands that start one MPS daemon a device or MIG instance, and each process's variables.
`dra`: Kubernetes resource claims (resource.k8s.io/v1) for NVIDIA's driver, one a device of the
plan, so that its partitions stay together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import UnsupportedError
from spacetime.plan.plan import GpuPlan, PartitionPlan, Plan

MPS_FOLDER = "/tmp/spacetime-mps"
PARENT = "gpu.nvidia.com/parentUUID"  # the attribute MIG devices of one GPU share


def mig_parted(plan: Plan, device: DeviceFacts) -> str:
    """A configuration `spacetime` for `nvidia-mig-parted apply -c spacetime`."""
    entries = [
        {
            "devices": [gpu.id],
            "mig-enabled": True,
            "mig-devices": dict(Counter(_profile(part, device) for part in parts)),
        }
        for gpu, parts in _mig_devices(plan, "mig-parted")
    ]
    return _yaml({"version": "v1", "mig-configs": {"spacetime": entries}})


def nvidia_smi(plan: Plan, device: DeviceFacts) -> str:
    """Commands that enable MIG and create instances with their compute instances (needs root)."""
    lines = ["# Needs root and idle devices; existing instances are not removed."]
    for gpu, parts in _mig_devices(plan, "nvidia-smi"):
        tuples = ",".join(
            f"{device.mig_profile(part.units).id}:{part.start}"
            for part in sorted(parts, key=lambda part: -part.units)
        )
        lines += [f"nvidia-smi -i {gpu.id} -mig 1", f"nvidia-smi mig -i {gpu.id} -cgi {tuples} -C"]
    return _text(lines)


def mps(plan: Plan, device: DeviceFacts) -> str:
    """Commands that start daemons; a MIG instance's UUID is asked of the environment."""
    _distinct(plan, "mps")
    lines = ["# A MIG instance's UUID is printed by nvidia-smi -L; set it as the variable named."]
    before = len(lines)
    for gpu in plan.gpus:
        shares = [part for part in gpu.partitions if part.kind == "mps" and part.parent is None]
        if shares:
            lines.append(_daemon(f"gpu{gpu.id}", str(gpu.id)))
        lines += [_process(f"gpu{gpu.id}", part) for part in shares]
        for part in gpu.partitions:
            inner = [partition for partition in gpu.partitions if partition.parent == part.id]
            if part.kind == "mig" and (part.procs > 1 or inner):
                what = f"UUID of {_profile(part, device)} at {part.start} of gpu {gpu.id}"
                lines.append(_daemon(_label(part.id), f'"${{{_variable(part.id)}:?{what}}}"'))
                lines += [_process(_label(part.id), partition) for partition in inner or [part]]
    if len(lines) == before:
        raise UnsupportedError("export mps: no partition of the plan runs processes side by side")
    return _text(lines)


def dra(plan: Plan, device: DeviceFacts) -> str:
    """One ResourceClaim a device; a container names the request, the partition, it uses."""
    _distinct(plan, "dra")
    return "---\n".join(_yaml(_claim(gpu, device)) for gpu in plan.gpus)


def _claim(gpu: GpuPlan, device: DeviceFacts) -> dict[str, Any]:
    outer = [part for part in gpu.partitions if part.parent is None]
    kinds = {part.kind for part in outer}
    if not outer or not kinds <= {"mig", "mps"}:
        raise UnsupportedError(f"export dra: gpu {gpu.id} has partitions other than mig and mps")
    notes = {f"spacetime/{_label(part.id)}": _note(part) for part in gpu.partitions}
    if kinds == {"mps"}:
        devices: dict[str, Any] = {
            "requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}],
            "config": [_sharing(["gpu"], "GpuConfig", {part.units for part in outer})],
        }
    else:
        devices = _mig_requests(outer, device)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": f"spacetime-gpu{gpu.id}", "annotations": notes},
        "spec": {"devices": devices},
    }


def _mig_requests(parts: list[PartitionPlan], device: DeviceFacts) -> dict[str, Any]:
    wanted = "device.attributes['gpu.nvidia.com'].profile == '{}'"
    requests = [
        {
            "name": _label(part.id),
            "exactly": {
                "deviceClassName": "mig.nvidia.com",
                "selectors": [{"cel": {"expression": wanted.format(_profile(part, device))}}],
            },
        }
        for part in parts
    ]
    side_by_side = [_label(part.id) for part in parts if part.procs > 1]
    return {
        "requests": requests,
        "constraints": [{"requests": [], "matchAttribute": PARENT}],
        **({"config": [_sharing(side_by_side, "MigDeviceConfig", set())]} if side_by_side else {}),
    }


def _sharing(requests: list[str], kind: str, percents: set[int]) -> dict[str, Any]:
    """MPS for these requests; a default percentage only where all partitions have the same."""
    sharing: dict[str, Any] = {"strategy": "MPS"}
    if len(percents) == 1:
        sharing["mpsConfig"] = {"defaultActiveThreadPercentage": min(percents)}
    parameters = {"apiVersion": "resource.nvidia.com/v1beta1", "kind": kind, "sharing": sharing}
    return {
        "requests": requests,
        "opaque": {"driver": "gpu.nvidia.com", "parameters": parameters},
    }


def _mig_devices(plan: Plan, form: str) -> Iterator[tuple[GpuPlan, list[PartitionPlan]]]:
    for gpu in plan.gpus:
        parts = [part for part in gpu.partitions if part.parent is None]
        if any(part.kind != "mig" for part in parts):
            raise UnsupportedError(
                f"export {form}: gpu {gpu.id} has partitions that are not MIG instances"
            )
        yield gpu, parts


def _daemon(name: str, visible: str) -> str:
    folder = f"{MPS_FOLDER}/{name}"
    return (
        f"mkdir -p {folder}/pipe {folder}/log && CUDA_VISIBLE_DEVICES={visible} "
        f"CUDA_MPS_PIPE_DIRECTORY={folder}/pipe CUDA_MPS_LOG_DIRECTORY={folder}/log "
        "nvidia-cuda-mps-control -d"
    )


def _process(name: str, part: PartitionPlan) -> str:
    percent = f" CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={part.units}" if part.kind == "mps" else ""
    return f"# {_note(part)}: CUDA_MPS_PIPE_DIRECTORY={MPS_FOLDER}/{name}/pipe{percent}"


def _note(part: PartitionPlan) -> str:
    tenants = ", ".join(assignment.tenant for assignment in part.tenants) or "no tenant"
    size = f"{part.units} %" if part.kind == "mps" else f"{part.units} slices"
    return f"{' '.join(tenants.split())} on {size}, {part.procs} processes"


def _profile(part: PartitionPlan, device: DeviceFacts) -> str:
    return device.mig_profile(part.units).name


def _label(name: str) -> str:
    """A name as Kubernetes and file systems take it: at most 63 letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-") or "part"


def _distinct(plan: Plan, form: str) -> None:
    """Refuse partitions whose names are one where these are written."""
    seen: dict[str, str] = {}
    for gpu in plan.gpus:
        for part in gpu.partitions:
            label = _label(part.id)
            if (first := seen.setdefault(label, part.id)) != part.id:
                raise UnsupportedError(
                    f"export {form}: partitions {first!r:.40} and {part.id!r:.40} are both named "
                    f"{label}; rename one"
                )


def _variable(name: str) -> str:
    return "MIG_" + _label(name).replace("-", "_").upper()


def _yaml(data: object) -> str:
    return str(yaml.safe_dump(data, sort_keys=False, width=100))


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


EXPORTS: dict[str, Callable[[Plan, DeviceFacts], str]] = {
    "mig-parted": mig_parted,
    "nvidia-smi": nvidia_smi,
    "mps": mps,
    "dra": dra,
}
