"""MIG instances through the driver's own library, by nvidia-ml-py (extra `mig`), loaded when used.

It has not run on a device yet. Calls: NVML API reference, "Multi Instance GPU Management".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from spacetime.devices import facts as devices
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import MigError, UnsupportedError
from spacetime.isolation.mig_control import GpuState, Instance

# Words of the driver's name for a device, and our name; the first row whose words all fit counts.
NAMES = (
    (("A100", "80GB"), "a100-80gb"),
    (("A100", "40GB"), "a100-40gb"),
    (("H200",), "h200-141gb"),
    (("H100", "80GB"), "h100-80gb"),
    (("B200",), "b200-180gb"),
)
_SLICES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}  # NVML_*_INSTANCE_PROFILE_<n>_SLICE


def open_nvml() -> DriverNvml:
    """Returns the driver of this machine. Raises UnsupportedError saying what is missing."""
    if find_spec("pynvml") is None:
        raise UnsupportedError("MIG instances need nvidia-ml-py: pip install 'spacetime[mig]'")
    return DriverNvml(import_module("pynvml"))


class DriverNvml:
    """The module `pynvml` behind the interface mig_control.Nvml. Raises UnsupportedError."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as why:
            raise UnsupportedError(f"NVML: {why}; is a driver of NVIDIA's installed?") from None

    def states(self) -> Sequence[GpuState]:
        """Returns every device, with its instances where MIG mode is on."""
        return [self._state(n) for n in range(self._call("nvmlDeviceGetCount"))]

    def set_mode(self, gpu: int, *, on: bool) -> bool:
        """Turns MIG mode on or off, as root, on a device that no process uses.

        Returns False where that comes only with the next reset.
        """
        handle = self._handle(gpu)
        self._call("nvmlDeviceSetMigMode", handle, int(on))
        now, _ = self._call("nvmlDeviceGetMigMode", handle)
        return bool(now) == on

    def create(self, gpu: int, profile: int, start: int) -> Instance:
        """Creates a GPU instance, and the compute instance of all its slices; both or neither."""
        state = self._state(gpu)
        row = next((r for r in state.facts.mig if r.id == profile), None) if state.facts else None
        if row is None:
            raise MigError("NVML_ERROR_INVALID_ARGUMENT", f"gpu {gpu}: no profile {profile}")
        handle = self._handle(gpu)
        place = self._nvml.c_nvmlGpuInstancePlacement_t(start, row.shape.memory)
        instance = self._call(
            "nvmlDeviceCreateGpuInstanceWithPlacement", handle, profile, ctypes.byref(place)
        )
        try:
            whole = self._call(
                "nvmlGpuInstanceGetComputeInstanceProfileInfo", instance, _SLICES[row.units], 0
            )
            self._call("nvmlGpuInstanceCreateComputeInstance", instance, whole.id)
        except MigError:
            self._call("nvmlGpuInstanceDestroy", instance)
            raise
        number = self._call("nvmlGpuInstanceGetInfo", instance).id
        return next(i for i in self._state(gpu).instances if i.id == number)

    def destroy(self, gpu: int, instance: int) -> None:
        """Destroys an instance by its id: its compute instances first, then itself."""
        handle = self._handle(gpu)
        held = self._call("nvmlDeviceGetGpuInstanceById", handle, instance)
        for slices in _SLICES.values():
            try:
                info = self._call("nvmlGpuInstanceGetComputeInstanceProfileInfo", held, slices, 0)
            except MigError:
                continue  # more slices than the instance has
            for compute in self._several(
                "nvmlGpuInstanceGetComputeInstances", held, info.id, info.instanceCount,
                self._nvml.c_nvmlComputeInstance_t,
            ):  # fmt: skip
                self._call("nvmlComputeInstanceDestroy", compute)
        self._call("nvmlGpuInstanceDestroy", held)

    def _state(self, gpu: int) -> GpuState:
        handle = self._handle(gpu)
        name = _text(self._call("nvmlDeviceGetName", handle))
        facts = facts_of(name)
        try:
            now, pending = self._call("nvmlDeviceGetMigMode", handle)
        except MigError:  # a device without MIG
            now = pending = 0
        if not now:
            return GpuState(gpu, name, facts, False, bool(pending), (), self._pids(handle))
        return GpuState(gpu, name, facts, True, bool(pending), self._instances(handle, facts))

    def _instances(self, handle: Any, facts: DeviceFacts | None) -> tuple[Instance, ...]:
        instances = []
        devices_of = self._mig_devices(handle)
        for row in facts.mig if facts else ():
            for instance in self._several(
                "nvmlDeviceGetGpuInstances", handle, row.id, row.most,
                self._nvml.c_nvmlGpuInstance_t,
            ):  # fmt: skip
                info = self._call("nvmlGpuInstanceGetInfo", instance)
                uuid, pids = devices_of.get(info.id, ("", ()))
                instances.append(
                    Instance(info.id, info.profileId, info.placement.start, uuid, pids)
                )
        return tuple(sorted(instances, key=lambda instance: instance.start))

    def _mig_devices(self, handle: Any) -> dict[int, tuple[str, tuple[int, ...]]]:
        """Returns UUID and process numbers of each MIG device, by the id of its GPU instance."""
        by_instance = {}
        for n in range(self._call("nvmlDeviceGetMaxMigDeviceCount", handle)):
            try:
                device = self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle, n)
            except MigError:
                continue  # there are fewer devices than there could be
            number = self._call("nvmlDeviceGetGpuInstanceId", device)
            by_instance[number] = (
                _text(self._call("nvmlDeviceGetUUID", device)),
                self._pids(device),
            )
        return by_instance

    def _several(self, name: str, owner: Any, profile: int, most: int, kind: Any) -> list[Any]:
        """Returns the handles of a call that fills an array of at most `most` of type `kind`."""
        array, count = (kind * most)(), ctypes.c_uint(most)
        self._call(name, owner, profile, array, ctypes.byref(count))
        return [array[n] for n in range(count.value)]

    def _pids(self, handle: Any) -> tuple[int, ...]:
        return tuple(p.pid for p in self._call("nvmlDeviceGetComputeRunningProcesses", handle))

    def _handle(self, gpu: int) -> Any:
        return self._call("nvmlDeviceGetHandleByIndex", gpu)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Returns what a function of NVML returns. Raises MigError with the driver's code."""
        call: Callable[..., Any] = getattr(self._nvml, name)
        try:
            return call(*arguments)
        except self._nvml.NVMLError as why:
            raise MigError(self._code(why.value), f"{name}: {why}") from None

    def _code(self, value: int) -> str:
        """Returns NVML's own name for the number of an error."""
        names = [name for name in dir(self._nvml) if name.startswith("NVML_ERROR_")]
        return next((n for n in names if getattr(self._nvml, n) == value), f"NVML error {value}")


def facts_of(name: str) -> DeviceFacts | None:
    """Returns a device's facts by the driver's name for it; None where they are not known here."""
    ours = next((ours for parts, ours in NAMES if all(part in name for part in parts)), None)
    return None if ours is None else devices.device(ours)


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told
