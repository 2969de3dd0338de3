"""MIG instances of devices that do not exist, by the driver's rules: for rehearsals and tests.

What it refuses and with which code follows NVML's documentation: profiles start where the device's
table allows, memory slices do not overlap, compute slices add up to at most seven, an instance or
a device in use changes nothing, and an Ampere takes MIG mode only at its next reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import NAMESPACE_OID, uuid5

from spacetime.devices import facts as devices
from spacetime.devices.facts import DeviceFacts
from spacetime.devices.mig import COMPUTE_SLICES, MigProfile
from spacetime.errors import MigError, UnsupportedError
from spacetime.isolation.mig_control import GpuState, Instance

# The numbers instances get, as on A100 and H100: the lowest free one from here.
_FIRST_ID = {7: 0, 4: 1, 3: 1, 2: 3, 1: 7}


@dataclass(slots=True)
class _Gpu:
    facts: DeviceFacts
    mig: bool = False
    pending: bool = False
    instances: list[Instance] = field(default_factory=list)
    pids: tuple[int, ...] = ()


class FakeNvml:
    """`count` devices of one kind, MIG mode off. Raises UnsupportedError for one without MIG."""

    def __init__(self, device: str = "h200-141gb", count: int = 1) -> None:
        facts = devices.device(device)
        if not facts.mig:
            raise UnsupportedError(f"device {facts.name} has no MIG instances")
        self._gpus = [_Gpu(facts) for _ in range(count)]
        self._created = 0  # instances so far: each has a UUID of its own

    def states(self) -> Sequence[GpuState]:
        """Returns every device as it is."""
        return [
            GpuState(n, f"fake {g.facts.name}", g.facts, g.mig, g.pending, (*g.instances,), g.pids)
            for n, g in enumerate(self._gpus)
        ]

    def set_mode(self, gpu: int, *, on: bool) -> bool:
        """Turns MIG mode on or off: an Ampere at its next reset, others now.

        Raises MigError while processes or instances exist.
        """
        device = self._gpu(gpu)
        if device.pids or device.instances:
            raise MigError("NVML_ERROR_IN_USE", f"gpu {gpu}: clients or instances exist")
        device.pending = on
        if device.facts.architecture != "ampere":
            device.mig = on
        return device.mig == on

    def reset(self, gpu: int) -> None:
        """Does what `nvidia-smi -r` does: the pending mode comes, and instances go.

        Raises MigError while processes compute.
        """
        device = self._gpu(gpu)
        if device.pids or any(instance.pids for instance in device.instances):
            raise MigError("NVML_ERROR_IN_USE", f"gpu {gpu}: clients exist")
        device.mig, device.instances = device.pending, []

    def create(self, gpu: int, profile: int, start: int) -> Instance:
        """Creates an instance of a profile at a memory slice.

        Raises MigError where the device lacks the profile, the place or free slices.
        """
        device = self._gpu(gpu)
        if not device.mig:
            raise MigError("NVML_ERROR_NOT_SUPPORTED", f"gpu {gpu}: MIG mode is off")
        row = self._row(device, profile)
        if row is None or start not in row.shape.starts:
            what = f"profile {profile} at {start}"
            raise MigError("NVML_ERROR_INVALID_ARGUMENT", f"gpu {gpu}: there is no {what}")
        rows = [self._row_of(device, instance) for instance in device.instances]
        pairs = zip(device.instances, rows, strict=True)
        taken = [range(i.start, i.start + r.shape.memory) for i, r in pairs]
        own = range(start, start + row.shape.memory)
        full = (
            any(own.start < t.stop and t.start < own.stop for t in taken)
            or sum(r.units for r in rows) + row.units > COMPUTE_SLICES
            or sum(r.id == row.id for r in rows) >= row.most
        )
        if full:
            text = f"gpu {gpu}: no room for {row.name} at {start}"
            raise MigError("NVML_ERROR_INSUFFICIENT_RESOURCES", text)
        used = {instance.id for instance in device.instances}
        number = next(n for n in range(_FIRST_ID[row.units], 100) if n not in used)
        self._created += 1
        uuid = f"MIG-{uuid5(NAMESPACE_OID, str(self._created))}"
        instance = Instance(number, profile, start, uuid)
        device.instances.append(instance)
        return instance

    def destroy(self, gpu: int, instance: int) -> None:
        """Destroys an instance by its id. Raises MigError while processes compute on it."""
        device = self._gpu(gpu)
        there = self._instance(gpu, instance)
        if there.pids:
            raise MigError("NVML_ERROR_IN_USE", f"gpu {gpu}: instance {instance} is in use")
        device.instances.remove(there)

    def occupy(self, gpu: int, instance: int | None, *pids: int) -> None:
        """Makes exactly these processes compute on an instance; on the whole device if it is None.

        Without any they have all ended.
        """
        device = self._gpu(gpu)
        if instance is None:
            device.pids = pids
            return
        there = self._instance(gpu, instance)
        device.instances[device.instances.index(there)] = replace(there, pids=pids)

    def _gpu(self, gpu: int) -> _Gpu:
        if not 0 <= gpu < len(self._gpus):
            raise MigError("NVML_ERROR_INVALID_ARGUMENT", f"gpu {gpu}: there is none")
        return self._gpus[gpu]

    def _instance(self, gpu: int, number: int) -> Instance:
        instance = next((i for i in self._gpu(gpu).instances if i.id == number), None)
        if instance is None:
            raise MigError("NVML_ERROR_NOT_FOUND", f"gpu {gpu}: no instance {number}")
        return instance

    @staticmethod
    def _row(gpu: _Gpu, profile: int) -> MigProfile | None:
        return next((row for row in gpu.facts.mig if row.id == profile), None)

    @staticmethod
    def _row_of(gpu: _Gpu, instance: Instance) -> MigProfile:
        return next(row for row in gpu.facts.mig if row.id == instance.profile)
