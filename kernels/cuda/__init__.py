"""CUDA C++ for tests and measurements, compiled at run time by CuPy's NVRTC for the device at hand.

A latch, stressors with known amounts of work, and probes. Importing this needs neither CuPy nor a
device; `available` says whether CuPy is installed, and `load` needs both.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

available = find_spec("cupy") is not None

Kernel = Any  # a cupy.RawKernel
SOURCES = ("latch", "arithmetic", "copy", "probe")


def source(name: str) -> str:
    """source(name): the CUDA C++ of one of SOURCES."""
    return (Path(__file__).parent / f"{name}.cu").read_text(encoding="utf-8")


@cache
def load(name: str, kernel: str, *options: str) -> Kernel:
    """load(name, kernel, *options): compiled from a source, once a process, with NVRTC's options.

    ModuleNotFoundError without CuPy; CuPy's own errors without a device.
    """
    compiled = import_module("cupy").RawKernel(source(name), kernel, ("-std=c++17", *options))
    compiled.compile()  # now, not at the first launch, which may be inside a capture
    return compiled


def enqueue(kernel: Kernel, stream: int, blocks: int, threads: int, *arguments: Any) -> None:
    """enqueue(...): launch on a stream by its handle, also while it is captured.

    An argument is a tensor's data_ptr(), or a numpy scalar of the parameter's own type.
    """
    with import_module("cupy").cuda.ExternalStream(stream):
        kernel((blocks,), (threads,), arguments)
