"""Kernels compiled before they are launched: in processes, for a device that need not be there.

A kernel is compiled for each set of types, constants and alignments that it is launched with. These
are plain values (`wanted`), worked out from operands without data, and kept as JSON. Processes
compile them through Triton's own launch path with a stand-in for its driver, so a launch on the
device finds what they leave in Triton's cache. Threads would wait for each other.

    python -m spacetime.kernels.triton.ahead kernels.json --capability 90
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FORMAT = "spacetime.kernels/1"
FEW = 4  # kernels for each process: with fewer its start, a second, is not worth it
_WORKER = "import sys; from spacetime.kernels.triton.ahead import worker; worker(int(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a list of kernels.

    `failed` says why, for each kernel that failed. These are compiled again when they are launched,
    where the error belongs.
    """

    compiled: int = 0
    cached: int = 0
    seconds: float = 0.0
    processes: int = 0
    failed: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for explain()."""
        said = f"{self.compiled} compiled ahead in {self.seconds:.1f} s by {self.processes} "
        said += f"processes, {self.cached} found in the cache"
        return said + (f", {len(self.failed)} failed: {self.failed[0]}" if self.failed else "")


def wanted(launch: Any) -> str:
    """What a launch's kernel is compiled with, as text that equal compilations share."""
    arguments: dict[str, Any] = {}
    for param in launch.kernel.params:
        value = launch.arguments[param.name]
        if hasattr(value, "data_ptr"):
            aligned = value.is_meta or value.data_ptr() % 16 == 0
            arguments[param.name] = {"pointer": str(value.dtype).split(".")[-1], "aligned": aligned}
        elif hasattr(value, "block_shape"):  # a descriptor: its type and box are what counts
            kind = str(value.base.dtype).split(".")[-1]
            arguments[param.name] = {"boxes": kind, "box": list(value.block_shape)}
        elif param.is_constexpr or value is None:
            arguments[param.name] = value
        else:
            arguments[param.name] = _like(int(value))
    kernel = f"{launch.kernel.__module__.rpartition('.')[2]}.{launch.kernel.__name__}"
    said = {"kernel": kernel, "warps": launch.warps, "stages": launch.stages}
    return json.dumps({**said, "arguments": arguments}, sort_keys=True)


def compile_all(kernels: Iterable[str], capability: int, *, processes: int = 0) -> Compiled:
    """Compile each kernel that Triton's cache lacks, in processes.

    `kernels`: as `wanted` says them.
    `capability`: of the device, 90 for 9.0.
    `processes`: how many; 0 means as many as are worth it, at most one less than the cores.

    A failure is reported and not raised, that of a process that ends early included.
    """
    begin, left = time.perf_counter(), sorted(set(kernels))
    if not left:
        return Compiled()
    cores = len(os.sched_getaffinity(0))
    count = processes or max(1, min(cores - 1, -(-len(left) // FEW)))
    command = [sys.executable, "-c", _WORKER, str(capability)]
    running = []
    for shard in (left[n::count] for n in range(count)):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=_environment(),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(shard))
        process.stdin.close()
        process.stdin = None  # communicate() would flush it, closed as it is
        running.append((process, shard))
    ends = [end for process, shard in running for end in _ends(process, len(shard))]
    return Compiled(
        ends.count("compiled"),
        ends.count("cached"),
        time.perf_counter() - begin,
        count,
        tuple(end for end in ends if end not in {"compiled", "cached"}),
    )


def _environment() -> dict[str, str]:
    """A worker's environment: it finds this package where this process did, and compiles rather
    than interprets.
    """
    home = str(Path(__file__).parents[3])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    left = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return {**left, "PYTHONPATH": os.pathsep.join(paths)}


def _ends(process: subprocess.Popen[str], count: int) -> list[str]:
    """What a worker said of each of its `count` kernels, once it has ended."""
    said, error = process.communicate()
    ends = said.splitlines()
    if len(ends) < count:
        last = (error.strip().splitlines() or ["it said nothing"])[-1]
        ends += [f"the process ended with {process.returncode}: {last}"] * (count - len(ends))
    return ends


def worker(capability: int) -> None:
    """Compile the kernels that standard input lists; print a line for each."""
    from triton import knobs  # noqa: PLC0415  # only this process needs it
    from triton.runtime.driver import driver  # noqa: PLC0415

    driver.set_active(_StandIn(capability))
    hits: list[bool] = []
    knobs.compilation.listener = lambda *args, cache_hit, **rest: hits.append(cache_hit)
    for text in json.load(sys.stdin):
        try:
            _compile(json.loads(text))
            end = "cached" if hits and hits.pop() else "compiled"
        except Exception as error:
            end = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        print(end, flush=True)


def _compile(said: dict[str, Any]) -> None:
    """Compile one kernel by Triton's launch path, without a launch."""
    module, name = said["kernel"].split(".")
    kernel = getattr(import_module(f"spacetime.kernels.triton.{module}"), name)
    arguments = {key: _value(value) for key, value in said["arguments"].items()}
    kernel.warmup(**arguments, grid=(1,), num_warps=said["warps"], num_stages=said["stages"])


def _like(value: int) -> int:
    """A number for which Triton compiles the same kernel."""
    # Triton compiles apart: 1, what 16 divides, all others, and of these what needs 64 bits.
    if value == 1:
        return 1
    whole = 16 if value % 16 == 0 else 3
    return whole if value < 2**31 else whole + 2**40


def _value(value: Any) -> Any:
    """An argument for which Triton compiles the same kernel, from its text."""
    if isinstance(value, dict) and "boxes" in value:
        return _boxes(value["boxes"], value["box"])
    if isinstance(value, dict):
        return _Pointer(value["pointer"], value["aligned"])
    return tuple(value) if isinstance(value, list) else value


def _boxes(dtype: str, box: list[int]) -> Any:
    """A descriptor for which Triton compiles the same kernel: of a tensor as large as one box."""
    import torch  # noqa: PLC0415
    from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: PLC0415

    base = torch.empty(box, dtype=getattr(torch, dtype), device="meta")
    return TensorDescriptor(base, box, [*base.stride()], box)


class _Pointer:
    """What Triton asks of a tensor when it chooses what to compile."""

    def __init__(self, dtype: str, aligned: bool) -> None:
        self.dtype = dtype
        self._at = 0 if aligned else 4

    def data_ptr(self) -> int:
        return self._at

    def ptr_range(self) -> int:
        return 0


class _StandIn:
    """Triton's driver as far as compiling asks for one."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415

        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def written(kernels: Iterable[str]) -> str:
    """Kernels as the text of a file that `read` takes."""
    listed = [json.loads(kernel) for kernel in sorted(set(kernels))]
    return json.dumps({"format": FORMAT, "kernels": listed}, indent=0) + "\n"


def read(path: Path) -> list[str]:
    """The kernels in a file. Raises ValueError, naming the file, where it holds none."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        written_here = listed["format"] == FORMAT
        kernels = [json.dumps(kernel, sort_keys=True) for kernel in listed["kernels"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not written_here:
        raise ValueError(f"{path}: its format is {listed['format']!r}, expected {FORMAT!r}")
    return kernels


def main(arguments: Sequence[str] | None = None) -> int:
    """The command above. Returns 1 where a kernel did not compile, 2 where the file is none."""
    parser = argparse.ArgumentParser(description="Compile a list of kernels into Triton's cache.")
    parser.add_argument("file", type=Path, help="what python -m spacetime.commands.prepare wrote")
    parser.add_argument("--capability", type=int, default=90, help="90 for compute capability 9.0")
    parser.add_argument("--processes", type=int, default=0, help="0: cores - 1")
    given = parser.parse_args(arguments)
    try:
        kernels = read(given.file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done = compile_all(kernels, given.capability, processes=given.processes)
    print(f"kernels: {done.line()}")
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(main())
