"""The CUDA driver by ctypes, for probes: what it answers must not pass through our own backend."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

_SM = 1  # CU_DEV_RESOURCE_TYPE_SM
_DEFAULT_STREAM = 1  # CU_GREEN_CTX_DEFAULT_STREAM
_KERNEL = 0  # CU_GRAPH_NODE_TYPE_KERNEL
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_LEGACY_SYMBOL = 0  # CU_GET_PROC_ADDRESS_DEFAULT


class Resource(ctypes.Structure):
    """CUdevResource of CUDA 13.0: 144 bytes, the driver's own but for the SM fields."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("opaque", ctypes.c_ubyte * 92),
        ("sms", ctypes.c_uint),
        ("least", ctypes.c_uint),
        ("aligned", ctypes.c_uint),
        ("rest", ctypes.c_ubyte * 36),
    )


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2: what a kernel of a graph is launched with, and where."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("parameters", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


class Green:
    """A green context over some groups, with one stream. close() destroys both, stream first."""

    def __init__(self, cuda: Cuda, groups: Sequence[Resource], *, priority: int = 0) -> None:
        self._cuda = cuda
        together = (Resource * len(groups))(*groups)
        descriptor, self.context = ctypes.c_void_p(), ctypes.c_void_p()
        cuda.call("cuDevResourceGenerateDesc", ctypes.byref(descriptor), together, len(groups))
        cuda.call(
            "cuGreenCtxCreate", ctypes.byref(self.context), descriptor, cuda.device, _DEFAULT_STREAM
        )
        self.stream = ctypes.c_void_p()
        cuda.call(
            "cuGreenCtxStreamCreate",
            ctypes.byref(self.stream), self.context, _NON_BLOCKING, priority,
        )  # fmt: skip

    @property
    def handle(self) -> int:
        """The stream, as a number."""
        return int(self.stream.value or 0)

    @property
    def sms(self) -> int:
        """How many SMs the context was granted, read back."""
        granted = Resource()
        self._cuda.call("cuGreenCtxGetDevResource", self.context, ctypes.byref(granted), _SM)
        return int(granted.sms)

    def close(self) -> None:
        """Destroys the stream, then the context."""
        self._cuda.call("cuStreamDestroy_v2", self.stream)
        self._cuda.call("cuGreenCtxDestroy", self.context)


class Cuda:
    """libcuda with the primary context of one device retained and current to this thread."""

    def __init__(self, ordinal: int = 0) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), ordinal)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.device = device

    def call(self, name: str, *arguments: Any) -> None:
        """Calls the driver's `name`. Raises RuntimeError with its code where it fails."""
        if code := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name} failed with {code}")

    def number(self, name: str, *arguments: Any, first: bool = True) -> int:
        """Returns the int that a call writes through its first argument, or through its last."""
        value = ctypes.c_int()
        places = (ctypes.byref(value), *arguments) if first else (*arguments, ctypes.byref(value))
        self.call(name, *places)
        return value.value

    def memory(self) -> tuple[int, int]:
        """Returns free and total bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def context_of(self, green: Green) -> int:
        """Returns the context that a partition's kernels lie in, as a number."""
        context = ctypes.c_void_p()
        self.call("cuCtxFromGreenCtx", ctypes.byref(context), green.context)
        return int(context.value or 0)

    def kernel_contexts(self, graph: int) -> list[int]:
        """Returns the context of each kernel of a graph, by its handle."""
        count = ctypes.c_size_t()
        self.call("cuGraphGetNodes", ctypes.c_void_p(graph), None, ctypes.byref(count))
        nodes = (ctypes.c_void_p * max(1, count.value))()
        self.call("cuGraphGetNodes", ctypes.c_void_p(graph), nodes, ctypes.byref(count))
        contexts = []
        for node in nodes[: count.value]:
            if self.number("cuGraphNodeGetType", ctypes.c_void_p(node), first=False) == _KERNEL:
                parameters = KernelNode()
                entry = "cuGraphKernelNodeGetParams_v2"
                self.call(entry, ctypes.c_void_p(node), ctypes.byref(parameters))
                contexts.append(int(parameters.context or 0))
        return contexts

    def priorities(self) -> tuple[int, int]:
        """Returns the least and the greatest priority that a stream may have."""
        least, greatest = ctypes.c_int(), ctypes.c_int()
        self.call("cuCtxGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
        return least.value, greatest.value

    def has(self, name: str, version: int) -> str:
        """Returns an empty text where the driver has the call in this version; else its reason."""
        pointer, status = ctypes.c_void_p(), ctypes.c_int()
        code = self._library.cuGetProcAddress_v2(
            name.encode(), ctypes.byref(pointer), version, ctypes.c_uint64(_LEGACY_SYMBOL),
            ctypes.byref(status),
        )  # fmt: skip
        return "" if pointer.value else f"code {code}, status {status.value}"

    def whole(self) -> Resource:
        """Returns all SMs of the device."""
        resource = Resource()
        self.call("cuDeviceGetDevResource", self.device, ctypes.byref(resource), _SM)
        return resource

    def split(self, least: int, *, flags: int = 0) -> tuple[list[Resource], Resource]:
        """Returns groups of at least `least` SMs, and what remains of the device."""
        whole, rest, count = self.whole(), Resource(), ctypes.c_uint()
        entry = "cuDevSmResourceSplitByCount"
        sized = (ctypes.byref(count), ctypes.byref(whole))
        self.call(entry, None, *sized, None, flags, least)
        groups = (Resource * max(1, count.value))()
        self.call(entry, groups, *sized, ctypes.byref(rest), flags, least)
        return list(groups)[: count.value], rest
