"""CUDA C++ for tests and measurements, compiled by CuPy's NVRTC at run time for the device at hand.

A latch, stressors with known amounts of work, and probes. Importing this needs neither CuPy nor a
device. `available` says whether CuPy is installed; `load` needs both.
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
    """The text of one of SOURCES, in CUDA C++."""
    return (Path(__file__).parent / f"{name}.cu").read_text(encoding="utf-8")


@cache
def load(name: str, kernel: str, *options: str) -> Kernel:
    """A kernel compiled from a source, once a process, with these options of NVRTC.

    Raises ModuleNotFoundError without CuPy, and CuPy's own errors without a device.
    """
    compiled = import_module("cupy").RawKernel(source(name), kernel, ("-std=c++17", *options))
    compiled.compile()  # now, not at the first launch, which may be inside a capture
    return compiled


def enqueue(kernel: Kernel, stream: int, blocks: int, threads: int, *arguments: Any) -> None:
    """Launch a kernel on a stream; this works inside a capture too.

    `kernel`: from `load`.
    `stream`: its handle.
    `blocks`, `threads`: how many blocks, and threads in each.
    `arguments`: a tensor's data_ptr(), or a numpy scalar of the parameter's own type.
    """
    with import_module("cupy").cuda.ExternalStream(stream):
        kernel((blocks,), (threads,), arguments)
