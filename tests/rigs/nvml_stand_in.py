"""A stand-in for the module `pynvml`, over the fake with the driver's rules. Not a test module.

Names, arguments, arrays by reference and error values as in nvidia-ml-py 13.615; handles are
numbers. It has GPU instances and their compute instances apart, as the driver does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from spacetime.errors import MigError
from spacetime.isolation.mig_fake import FakeNvml

SLICES = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}
A_GPU = 1000  # a GPU instance's handle is its device's number times this, and its own


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class Placement(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint), ("size", ctypes.c_uint))


class StandIn:
    """`nvmlX(...)` for every X that spacetime.isolation.nvml calls."""

    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_IN_USE = 19
    NVML_ERROR_INSUFFICIENT_RESOURCES = 23
    NVMLError = NVMLError
    c_nvmlGpuInstancePlacement_t = Placement
    c_nvmlGpuInstance_t = ctypes.c_int
    c_nvmlComputeInstance_t = ctypes.c_int

    def __init__(self, fake: FakeNvml, name: str) -> None:
        self.fake, self.name = fake, name
        self.computes: set[int] = set()  # handles of GPU instances that have their compute one
        self.refuse_compute = False

    def _do(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except MigError as why:
            raise NVMLError(getattr(self, why.code)) from None

    def _of(self, handle: int) -> Any:
        gpu, number = divmod(handle, A_GPU)
        return next(i for i in self.fake.states()[gpu].instances if i.id == number)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.fake.states())

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.name.encode()

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        state = self.fake.states()[handle]
        return [int(state.mig), int(state.pending)]

    def nvmlDeviceSetMigMode(self, handle: int, mode: int) -> int:
        self._do(self.fake.set_mode, handle, on=bool(mode))
        return 0

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        pids = self._of(handle[1]).pids if isinstance(handle, tuple) else (
            self.fake.states()[handle].pids)  # fmt: skip
        return [SimpleNamespace(pid=pid) for pid in pids]

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, gpu: int, profile: int, place: Any) -> int:
        where = ctypes.cast(place, ctypes.POINTER(Placement)).contents
        return gpu * A_GPU + int(self._do(self.fake.create, gpu, profile, where.start).id)

    def nvmlGpuInstanceDestroy(self, instance: int) -> int:
        if instance in self.computes:
            raise NVMLError(self.NVML_ERROR_IN_USE)
        self._do(self.fake.destroy, *divmod(instance, A_GPU))
        return 0

    def nvmlDeviceGetGpuInstances(self, gpu: int, profile: int, array: Any, count: Any) -> int:
        found = [i.id for i in self.fake.states()[gpu].instances if i.profile == profile]
        for n, number in enumerate(found):
            array[n] = gpu * A_GPU + number
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = len(found)
        return 0

    def nvmlDeviceGetGpuInstanceById(self, gpu: int, number: int) -> int:
        if all(i.id != number for i in self.fake.states()[gpu].instances):
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return gpu * A_GPU + number

    def nvmlGpuInstanceGetInfo(self, instance: int) -> Any:
        own = self._of(instance)
        place = SimpleNamespace(start=own.start)
        return SimpleNamespace(id=own.id, profileId=own.profile, placement=place)

    def nvmlGpuInstanceGetComputeInstanceProfileInfo(
        self, instance: int, profile: int, engine: int
    ) -> Any:
        facts = self.fake.states()[instance // A_GPU].facts
        assert facts is not None
        own = next(row for row in facts.mig if row.id == self._of(instance).profile)
        if SLICES[profile] > own.units:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(id=profile, instanceCount=own.units // SLICES[profile])

    def nvmlGpuInstanceCreateComputeInstance(self, instance: int, profile: int) -> int:
        if self.refuse_compute:
            raise NVMLError(self.NVML_ERROR_INSUFFICIENT_RESOURCES)
        self.computes.add(instance)
        return instance

    def nvmlGpuInstanceGetComputeInstances(
        self, instance: int, profile: int, array: Any, count: Any
    ) -> int:
        facts = self.fake.states()[instance // A_GPU].facts
        assert facts is not None
        own = next(row for row in facts.mig if row.id == self._of(instance).profile)
        found = [instance] if instance in self.computes and SLICES[profile] == own.units else []
        for n, number in enumerate(found):
            array[n] = number
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = len(found)
        return 0

    def nvmlComputeInstanceDestroy(self, compute: int) -> int:
        if self._of(compute).pids:
            raise NVMLError(self.NVML_ERROR_IN_USE)
        self.computes.remove(compute)
        return 0

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: int, n: int) -> tuple[str, int]:
        instances = self.fake.states()[gpu].instances
        if n >= len(instances) or gpu * A_GPU + instances[n].id not in self.computes:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return ("mig", gpu * A_GPU + instances[n].id)

    def nvmlDeviceGetGpuInstanceId(self, device: tuple[str, int]) -> int:
        return device[1] % A_GPU

    def nvmlDeviceGetUUID(self, device: tuple[str, int]) -> str:
        return str(self._of(device[1]).uuid)
