"""How launches run on a device: streams, captured graphs, timing. And the same without a device."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from spacetime.benchmarks.driving.interleave import turned
from spacetime.devices.queues import of_this_process as queues
from spacetime.errors import SpacetimeError, UnsupportedError

Launch = Callable[[], Any]  # enqueues work; returns its answers, tensors written when it has run
WARM_UP = 3  # eager runs before a capture: cuDNN's choice, lazy loading, workspaces
_TORCH: Any = torch  # what is typed differs from version to version
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class DeviceFault(SpacetimeError):
    """The device failed in the middle; what was measured before is recorded."""


class DeviceRig(Protocol):
    """A device to launch on."""

    device: torch.device

    def facts(self) -> dict[str, Any]:
        """Returns the facts without which a number of this device means nothing."""
        ...

    def captured(self, launch: Launch) -> Launch:
        """Returns the launch as one graph, warmed up."""
        ...

    def forked(self, launches: Sequence[Launch]) -> Launch:
        """Returns the launches on a stream each, which fork from and join the current one."""
        ...

    def elapsed_us(self, launch: Launch) -> float:
        """Returns the us of device time of one launch that finds nothing of its own in the L2."""
        ...

    def wall_us(self, launch: Launch) -> float:
        """Returns the us of the host from the call to the end, on an idle device with a cold L2."""
        ...

    def flush(self) -> None:
        """Leaves nothing of earlier launches in the L2, and waits for that."""
        ...

    def finish(self) -> None:
        """Waits for what was launched."""
        ...

    def forget(self) -> None:
        """Gives cached memory back, once the launches that used it are dropped."""
        ...


class CudaRig:
    """A CUDA device. Used from one thread, inside `with rig.current():`.

    Streams are made by the driver: torch's own pool has 32, and tenants must not share one.
    """

    def __init__(self, ordinal: int = 0) -> None:
        queues.ask()  # before PyTorch initialises the driver
        if not torch.cuda.is_available():
            raise UnsupportedError(
                f"device cuda:{ordinal}: torch {torch.__version__} finds no CUDA device"
            )
        self.device = torch.device("cuda", ordinal)
        torch.cuda.set_device(self.device)
        self._facts = torch.cuda.get_device_properties(self.device)
        torch.zeros(1, device=self.device)  # the primary context is now current to this thread
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._stream = self._new_stream()
        self._side: list[torch.cuda.Stream] = []
        # Twice the L2: writing it leaves no line of the operands there.
        self._flush = torch.empty(2 * self._facts.L2_cache_size, dtype=torch.uint8, device="cuda")

    @contextmanager
    def current(self) -> Iterator[None]:
        """Sends launches to this rig's stream for the block."""
        with torch.no_grad(), torch.cuda.stream(self._stream):
            yield

    def facts(self) -> dict[str, Any]:
        """Returns name, SMs, L2, memory, versions, and clock and power as NVML reads them now."""
        return {
            "device": self._facts.name,
            "sms": self._facts.multi_processor_count,
            "l2_bytes": self._facts.L2_cache_size,
            "memory_bytes": self._facts.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": _TORCH.backends.cudnn.version(),
            "clocks": clocks(),
        }

    def captured(self, launch: Launch) -> Launch:
        """Returns what replays one graph; each replay overwrites the answers before."""
        for _ in range(WARM_UP):
            launch()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            answers = launch()

        def replay() -> Any:
            graph.replay()
            return answers

        replay()
        self._stream.synchronize()
        return replay

    def forked(self, launches: Sequence[Launch]) -> Launch:
        """Forks and joins by events, eagerly or inside a capture."""
        while len(self._side) < len(launches):
            self._side.append(self._new_stream())
        places = [*zip(self._side, launches, strict=False)]

        def launch() -> list[Any]:
            here = torch.cuda.current_stream()
            fork = here.record_event()
            answers = []
            for stream, launch_one in places:
                stream.wait_event(fork)
                with torch.cuda.stream(stream):
                    answers.append(launch_one())
            for stream, _ in places:
                here.wait_event(stream.record_event())
            return answers

        return launch

    def elapsed_us(self, launch: Launch) -> float:
        """Returns the us between two events.

        The flush before the first gives the host time to enqueue everything.
        """
        begin, end = (_TORCH.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        begin.record()
        launch()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e3

    def wall_us(self, launch: Launch) -> float:
        """Returns the us by the host's clock, which waits for this rig's stream."""
        self.flush()
        return _wall_us(launch, self.finish)

    def flush(self) -> None:
        """Writes twice the size of the L2."""
        self._flush.zero_()
        self.finish()

    def finish(self) -> None:
        """Waits for this rig's stream."""
        self._stream.synchronize()

    def forget(self) -> None:
        """Returns the caching allocator's free blocks to the device."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _new_stream(self) -> torch.cuda.Stream:
        handle = ctypes.c_void_p()
        code = self._driver.cuStreamCreate(ctypes.byref(handle), _NON_BLOCKING)
        if code:
            raise RuntimeError(f"cuStreamCreate failed with {code}")
        stream: torch.cuda.Stream = _TORCH.cuda.ExternalStream(handle.value, device=self.device)
        return stream


class DryRig:
    """CPU tensors in the same code: no streams, no graphs, the wall clock. Numbers mean nothing."""

    device = torch.device("cpu")

    def current(self) -> AbstractContextManager[object]:
        """Makes nothing current."""
        return torch.no_grad()

    def facts(self) -> dict[str, Any]:
        """Returns that this was a dry run."""
        return {"device": "dry run on CPU tensors", "sms": 0, "clocks": {}}

    def captured(self, launch: Launch) -> Launch:
        """Returns the launch itself, after it has run once."""
        launch()
        return launch

    def forked(self, launches: Sequence[Launch]) -> Launch:
        """Returns the launches one after the other."""
        return lambda: [launch() for launch in launches]

    def elapsed_us(self, launch: Launch) -> float:
        """Returns the us by the wall clock."""
        return _wall_us(launch, self.finish)

    def wall_us(self, launch: Launch) -> float:
        """Returns the us by the wall clock."""
        return _wall_us(launch, self.finish)

    def flush(self) -> None:
        """Flushes nothing."""

    def finish(self) -> None:
        """Waits for nothing, since nothing runs by itself."""

    def forget(self) -> None:
        """Gives nothing back."""


def rig_of(device: str, *, dry_run: bool) -> CudaRig | DryRig:
    """Returns the rig of `cuda:N`, or of a dry run. Raises UnsupportedError without a device."""
    if dry_run:
        return DryRig()
    kind, _, ordinal = device.partition(":")
    if kind != "cuda" or not (ordinal or "0").isdigit():
        raise UnsupportedError(f"device {device!r}: expected 'cuda:N', such as cuda:0")
    return CudaRig(int(ordinal or 0))


def _wall_us(launch: Launch, finish: Callable[[], None]) -> float:
    begin = time.perf_counter_ns()
    launch()
    finish()
    return (time.perf_counter_ns() - begin) / 1e3


def interleaved(
    measures: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Returns what each measure gives, A B C A B C; the order turns by one each repetition."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for repetition in range(repetitions):
        for name in turned([*measures], repetition):
            values[name].append(measures[name]())
    return values


def interleaved_us(
    clock: Callable[[Launch], float], launches: Mapping[str, Launch], repetitions: int
) -> dict[str, list[float]]:
    """Returns the microseconds of each launch, interleaved.

    clock: a rig's elapsed_us or wall_us.
    """
    return interleaved({name: partial(clock, launch) for name, launch in launches.items()},
                       repetitions)  # fmt: skip


@contextmanager
def searched(*, wanted: bool = True) -> Iterator[None]:
    """Lets cuDNN time its algorithms for each new shape in the block, where `wanted`.

    For baselines only: a session would search anew for every bucket and lane that it admits.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """How PyTorch computes meanwhile: fp32 exactly, fp32 by tf32, or bf16; the operands' dtype."""
    matmul, convolve = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield torch.bfloat16 if name == "bf16" else torch.float32
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolve


def clocks() -> dict[str, Any]:
    """Returns SM and memory clock in MHz and power in W, by NVML, or why it cannot tell."""
    try:
        nvml = import_module("pynvml")  # optional: only facts for the record
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        }
    except Exception as error:  # any of NVML's: the record then says why it lacks them
        return {"unknown": str(error) or type(error).__name__}


def flat(answers: Any) -> Tensor:
    """Returns all answers of a launch, tenant after tenant, as one row of float32."""
    if isinstance(answers, Tensor):
        return answers.float().reshape(-1)
    return torch.cat([flat(answer) for answer in answers])
