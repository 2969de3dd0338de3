"""Devices whose partitions are processes: shares of MPS, or MIG instances that exist.

`Session` takes what these functions return as its device. Each share becomes a lane; the lane's
process is started with the share's environment, and opens the device inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from spacetime.devices.device import Device
from spacetime.errors import InvalidInput
from spacetime.isolation.mig_control import Instance
from spacetime.isolation.mps import client_environment, terminate
from spacetime.isolation.mps_control import Control

# By name: each lane's process loads it, and only there; it opens a session of its own.
HOST = "spacetime.isolation.hosted_device:HostedDevice"


def mps_shares(
    control: Control,
    percents: Sequence[float],
    *,
    visible: str | None = None,
    within: str = "cuda:0",
) -> Device:
    """Returns a device with one share of MPS for each percentage.

    control: of the daemon that serves the device or MIG instance. percents: the most of its threads
    that each share may use, a cap; together they may be more than 100. visible: the device's UUID,
    where the daemon serves several. within: the device that each process opens.
    Each process checks that MPS is on. Raises InvalidInput without percentages, MpsError for a
    wrong one.
    """
    if not percents:
        raise InvalidInput("-", "percents", "at least one", "none")
    environments = tuple(client_environment(control, percent=p, visible=visible) for p in percents)
    sizes = tuple(round(p) for p in percents)
    device = _device("mps", sizes, environments, within, f"MPS at {control.pipe}")
    # A client's work has to be ended through the daemon before its process is killed.
    return replace(device, before_kill=partial(terminate, control))


def mig_shares(
    instances: Mapping[str, Instance], units: Mapping[str, int], *, within: str = "cuda:0"
) -> Device:
    """Returns a device with one lane for each MIG instance, by name, as mig_control.placed returns.

    units: the compute slices of each instance. within: the device that each process opens; it sees
    its own instance only, as its first device. Raises InvalidInput without instances.
    """
    if not instances:
        raise InvalidInput("-", "instances", "at least one", "none")
    environments = tuple({"CUDA_VISIBLE_DEVICES": i.uuid} for i in instances.values())
    sizes = tuple(units[name] for name in instances)
    return _device("mig", sizes, environments, within, f"instances {', '.join(instances)}")


def _device(
    kind: str,
    sizes: tuple[int, ...],
    environments: tuple[Mapping[str, str], ...],
    within: str,
    chosen: str,
) -> Device:
    units = tuple(range(len(sizes)))
    name = f"{within} by {kind}"
    return Device(
        name,
        kind,
        units,
        sizes,
        chosen,
        environments=environments,
        host=HOST,
        within=within,
    )
