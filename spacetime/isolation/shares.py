"""Devices whose partitions are processes: shares of MPS, or MIG instances that exist.

What these return is what Session takes as its device: each share becomes a lane, whose process is
started with the share's environment and opens the device inside it.
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
    """A share of each percentage, of the device or MIG instance that `control`'s daemon serves.

    A percentage is a cap: shares may add up to more than 100. Each process checks that MPS is on.
    visible: the device's UUID, where the daemon serves several. within: what a process opens.
    """
    if not percents:
        raise InvalidInput("-", "percents", "at least one", "none")
    environments = tuple(client_environment(control, percent=p, visible=visible) for p in percents)
    sizes = tuple(round(p) for p in percents)
    made = _device("mps", sizes, environments, within, f"MPS at {control.pipe}")
    return replace(made, before_kill=partial(terminate, control))


def mig_shares(
    instances: Mapping[str, Instance], units: Mapping[str, int], *, within: str = "cuda:0"
) -> Device:
    """A lane for each instance, such as mig_control.placed finds; `units`: compute slices of each.

    A process sees its own instance only, as the first device.
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
