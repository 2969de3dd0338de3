"""How PyTorch reaches memory, streams and graphs of a CUDA device, or of a fake one.

On a real device a program is captured by `torch.cuda.graph` on a stream of the lane's partition,
which fixes the SMs of its kernels. On a fake device memory is the host's, and a
captured program is one kernel that takes the program's predicted time, then the program itself on
the CPU: the same answers through the same native path.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils import dlpack
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import spacetime._native as _native
from spacetime.errors import UnsupportedError
from spacetime.fusion.choice.tune import Tuner
from spacetime.kernels.triton.ahead import compile_all
from spacetime.kernels.triton.cache import StoredChoices, choices_of
from spacetime.models.cuda.cold import WARM_UPS, cold_seconds, sweep
from spacetime.models.cuda.confined import LeavesPartition, check, confined

_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "complex": 5, "bool": 6}


class Capturer(Protocol):
    """What a device's runners need of PyTorch."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    @property
    def notes(self) -> list[str]:
        """What was captured or chosen otherwise than asked, and why, since it was emptied."""

    def capture(
        self, partition: _native.SmPartition, program: Callable[[], None]
    ) -> _native.GraphExec:
        """A graph of what `program` does on the partition's SMs; warmed up first.

        Raises LeavesPartition where it would run on others as well.
        """

    def compile(self, kernels: Callable[[], set[str]]) -> str:
        """Compiles those Triton kernels that are not yet; what came of it, in a line."""

    def tune(
        self, partition: _native.SmPartition, module: fx.GraphModule, operands: Sequence[Tensor]
    ) -> None:
        """Chooses a slot graph's implementations by timing them on the partition."""

    def flush(self, partition: _native.SmPartition) -> None:
        """Leaves nothing of earlier launches in the L2, by work on the partition; waits."""

    def lane(self, partition: _native.SmPartition) -> AbstractContextManager[None]:
        """Inside, PyTorch's work goes to the partition's stream."""

    def settle(self) -> None:
        """Waits for PyTorch's own work; raises what it left behind."""

    def release(self) -> None:
        """Gives memory that PyTorch holds for later back to the device."""


@dataclass
class TorchCuda:
    """A real device, driven with `torch.cuda`."""

    native: _native.CudaDevice
    device: torch.device
    _choices: StoredChoices  # the tuner's, so that a session's families share them
    notes: list[str] = field(default_factory=list)
    _compiled: set[str] = field(default_factory=set)  # kernels, ahead
    _pools: dict[int, Any] = field(default_factory=dict)  # of graphs' memory, by capture stream
    _homes: dict[tuple[int, int], int] = field(default_factory=dict)  # see _home

    @classmethod
    def open(cls, native: _native.CudaDevice, name: str) -> TorchCuda:
        """Raises UnsupportedError where this PyTorch cannot drive the device."""
        if not torch.cuda.is_available():
            built = torch.version.cuda or "no CUDA at all"
            raise UnsupportedError(
                f"device {name}: this PyTorch ({torch.__version__}, built for {built}) finds no "
                "CUDA device; install a CUDA build of torch, or use device 'cpu'"
            )
        return cls(native, torch.device(name), choices_of(native.name, _versions(native)))

    def capture(
        self, partition: _native.SmPartition, program: Callable[[], None]
    ) -> _native.GraphExec:
        with torch.cuda.device(self.device), torch.no_grad():
            graph = confined(lambda: self._warmed_up(partition, program), self.notes)
        # The graph goes before the partition whose streams it was captured on: last in, first out.
        handle = graph.raw_cuda_graph_exec()
        return _native.GraphExec.borrow(self.native, handle, (partition, graph))

    def compile(self, kernels: Callable[[], set[str]]) -> str:
        wanted = kernels()
        major, minor = self.native.capability
        done = compile_all(wanted - self._compiled, 10 * major + minor)
        done = replace(done, cached=done.cached + len(wanted & self._compiled))
        self._compiled |= wanted
        return done.line()

    def _warmed_up(
        self, partition: _native.SmPartition, program: Callable[[], None]
    ) -> torch.cuda.CUDAGraph:
        # Warmed up on a stream of its own: the lane may be serving, and cuBLAS keeps a workspace
        # for each stream, which the graphs captured on the capture stream go on using.
        warm = _stream(partition.warm_stream, self.device)
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            for _ in range(WARM_UPS):
                program()
        warm.synchronize()
        pool = self._pools.setdefault(partition.capture_stream, torch.cuda.graph_pool_handle())
        return self._captured(partition, partition.capture_stream, program, pool)

    def _captured(
        self,
        partition: _native.SmPartition,
        stream: int,
        program: Callable[[], object],
        pool: Any = None,
    ) -> torch.cuda.CUDAGraph:
        """Not by `torch.cuda.graph`: that waits for the whole device and empties PyTorch's cache
        first, which serving lanes would wait for too."""
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.stream(_stream(stream, self.device)):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                program()
            finally:
                graph.capture_end()
        check(self.native, graph.raw_cuda_graph(), self._home(partition))
        graph.instantiate()
        return graph

    def _home(self, partition: _native.SmPartition) -> int:
        """The context that the driver names for a kernel on the partition's streams; 0 where it
        names another one, or none."""
        key = partition.capture_stream, partition.context
        if key not in self._homes:
            probe = torch.zeros(1, device=self.device)
            torch.cuda.current_stream(self.device).synchronize()
            graph = torch.cuda.CUDAGraph(keep_graph=True)
            with torch.cuda.stream(_stream(partition.capture_stream, self.device)):
                graph.capture_begin(capture_error_mode="thread_local")
                probe.add_(1)
                graph.capture_end()
            contexts = set(_native.kernel_contexts(self.native, graph.raw_cuda_graph()))
            known = contexts == {partition.context} and partition.bounded
            self._homes[key] = partition.context if known else 0
            if partition.bounded and not known:
                self.notes.append("the driver does not tell whether kernels leave their partition")
        return self._homes[key]

    def tune(
        self, partition: _native.SmPartition, module: fx.GraphModule, operands: Sequence[Tensor]
    ) -> None:
        major, minor = self.native.capability
        warm = _stream(partition.warm_stream, self.device)
        seconds = partial(self._seconds, partition)
        tuner = Tuner(seconds, self._choices, partition.sms, 10 * major + minor)
        warm.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(warm):
            tuner.tune(module, operands)
        warm.synchronize()

    def flush(self, partition: _native.SmPartition) -> None:
        stream = _stream(partition.warm_stream, self.device)
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            sweep(self.device)
        stream.synchronize()

    def _seconds(self, partition: _native.SmPartition, call: Callable[[], object]) -> float:
        warm = _stream(partition.warm_stream, self.device)
        capture = partial(self._captured, partition, partition.warm_stream)
        try:
            return cold_seconds(call, warm, self.device, capture)
        except LeavesPartition as why:
            self.notes.append(f"an implementation was passed over: in a graph {why}")
            raise

    @contextlib.contextmanager
    def lane(self, partition: _native.SmPartition) -> Iterator[None]:
        with torch.cuda.device(self.device), torch.no_grad():
            stream = _stream(partition.stream, self.device)
            with torch.cuda.stream(stream):
                yield

    def settle(self) -> None:
        torch.cuda.current_stream(self.device).synchronize()

    def release(self) -> None:
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class TorchFake:
    """A fake device: tensors on the CPU, in memory that the fake driver counts."""

    native: _native.FakeCudaDevice
    device: torch.device
    notes: list[str] = field(default_factory=list)

    def capture(
        self, partition: _native.SmPartition, program: Callable[[], None]
    ) -> _native.GraphExec:
        return confined(lambda: self._captured(partition, program), self.notes)

    def _captured(
        self, partition: _native.SmPartition, program: Callable[[], None]
    ) -> _native.GraphExec:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, _Bytes() as moved:
            program()
        libraries = moved.convolves and torch.backends.cudnn.enabled
        graph = self.native.capture(
            partition,
            flops=float(counter.get_total_flops()),
            nbytes=float(moved.total),
            effect=_without_grad(program),
            apart=libraries and self.native.driver.libraries_fork,
        )
        check(self.native, graph.graph, partition.context)
        return graph

    def compile(self, kernels: Callable[[], set[str]]) -> str:
        return ""  # nothing is launched that would have to be compiled

    def tune(
        self, partition: _native.SmPartition, module: fx.GraphModule, operands: Sequence[Tensor]
    ) -> None:
        pass  # simulated time says nothing about implementations: each one's first runs

    def flush(self, partition: _native.SmPartition) -> None:
        pass  # its launches read all their operands from memory each time

    @contextlib.contextmanager
    def lane(self, partition: _native.SmPartition) -> Iterator[None]:
        with torch.no_grad():
            yield

    def settle(self) -> None:
        self.native.synchronize()

    def release(self) -> None:
        pass  # PyTorch's memory is the host's here


def capturer_of(native: _native.CudaDevice, name: str) -> Capturer:
    """The way PyTorch reaches this device. Raises UnsupportedError where it does not."""
    if isinstance(native, _native.FakeCudaDevice):
        return TorchFake(native, torch.device("cpu"))
    return TorchCuda.open(native, name)


def view(
    memory: _native.Memory,
    offset: int,
    shape: Sequence[int],
    dtype: torch.dtype,
    *,
    strides: Sequence[int] | None = None,
    host: bool,
) -> Tensor:
    """A tensor over `memory` from byte `offset`; strides in elements, row-major by default.

    `host`: the device's memory is the host's, as a fake's is. The tensor keeps the memory alive.
    """
    if strides is None:
        sizes = [*shape[1:], 1]
        strides = list(itertools.accumulate(reversed(sizes), lambda a, b: a * b))[::-1]
    name = str(dtype).removeprefix("torch.")
    code = _CODES["bool" if name == "bool" else name.rstrip("0123456789")]
    capsule = memory.view(offset, list(shape), list(strides), code, 8 * dtype.itemsize, host)
    tensor: Tensor = dlpack.from_dlpack(capsule)
    return tensor


def _versions(native: _native.CudaDevice) -> str:
    """What a choice was measured with, besides Triton."""
    cudnn: Any = torch.backends.cudnn
    return f"{native.driver_version} torch {torch.__version__} cudnn {cudnn.version()}"


def _stream(handle: int, device: torch.device) -> torch.cuda.Stream:
    external: Callable[..., torch.cuda.Stream] = torch.cuda.ExternalStream
    return external(handle, device)


def _without_grad(program: Callable[[], None]) -> Callable[[], None]:
    def effect() -> None:
        with torch.no_grad():
            program()

    return effect


class _Bytes(TorchDispatchMode):
    """Counts the bytes of every result, once written and once read; views aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.convolves = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.convolves |= "convolution" in func.__name__
        if not func.is_view:
            results = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
            self.total += sum(2 * x.nbytes for x in results)
        return out
