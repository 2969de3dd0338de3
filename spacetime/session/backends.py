"""Which backend a session has: the only file of the room that knows what kinds there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spacetime.devices.device import Device, Units
from spacetime.errors import InvalidInput
from spacetime.models.backend import Backend
from spacetime.models.cpu.backend import CpuBackend
from spacetime.models.cuda.backend import CudaBackend
from spacetime.processes.backend import ProcessBackend


def backend_of(
    isolation: str, device: Device, partitions: Sequence[Units], *, fuses: bool
) -> Backend[Any]:
    """What holds a session's models on `device`, with lanes isolated as `isolation` says.

    partitions: the units of each lane; more may be added later. fuses: whether tenants may share
    launches. Raises InvalidInput naming `isolation`, and UnsupportedError where PyTorch cannot
    drive the device.
    """
    if isolation not in {"thread", "process"}:
        raise InvalidInput("-", "isolation", "'thread' or 'process'", repr(isolation))
    if device.environments:  # each of its shares is seen by a process of its own only
        return ProcessBackend(device)
    if isolation == "process":
        if device.kind != "cores":
            expected = f"'thread' for partitions of kind {device.kind}, which one process holds"
            raise InvalidInput("-", "isolation", expected, repr(isolation))
        return ProcessBackend(device)
    if device.native is not None:
        return CudaBackend(device.native, device.name, fuses=fuses)
    return CpuBackend(partitions, fuses=fuses)
