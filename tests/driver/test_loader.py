"""The loader's table against real drivers, and our declarations against real headers."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
# Calls whose interface of the declared version is that of a symbol with a suffix; all others have
# none. cuEventElapsedTime is not among them: ours is the first, of CUDA 2.0.
SECOND = {
    "cuDeviceGetUuid",
    "cuDevicePrimaryCtxRelease",
    "cuDevicePrimaryCtxReset",
    "cuDeviceTotalMem",
    "cuEventDestroy",
    "cuGraphKernelNodeGetParams",
    "cuMemAlloc",
    "cuMemFree",
    "cuMemGetInfo",
    "cuStreamBeginCapture",
    "cuStreamDestroy",
}


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that loads a driver with our loader and says what it found."""
    program = tmp_path_factory.mktemp("table") / "table"
    sources = [ROOT / "tests/driver/table.cpp", ROOT / "csrc/cuda/driver.cpp"]
    compile_with("-o", str(program), *map(str, sources), "-ldl")
    return program


def compile_with(*words: str) -> None:
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    subprocess.run([*compiler, *FLAGS, *words], check=True)


def loaded(table: Path, driver: Path) -> list[str]:
    library = str(driver / "libcuda.so.1")
    done = subprocess.run([table, library], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_each_call_is_there_unless_the_driver_is_older_and_it_is_optional(
    table: Path, driver: Path
) -> None:
    version, *calls, _ = loaded(table, driver)
    assert len(calls) >= 69
    for name, since, required, has in map(str.split, calls):
        assert (has == "1") == (int(since) <= int(version)), (name, since, version)
        assert has == "1" or required == "0", name


@pytest.mark.usefixtures("no_device")
def test_without_a_device_cuinit_says_so(table: Path, driver: Path) -> None:
    assert loaded(table, driver)[-1] == (
        "cuInit failed with 100 (CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected)"
    )


def test_each_call_is_the_symbol_with_the_intended_suffix(table: Path, driver: Path) -> None:
    library = ctypes.CDLL(str(driver / "libcuda.so.1"))
    for name, since, _, has in map(str.split, loaded(table, driver)[1:-1]):
        found, status = ctypes.c_void_p(), ctypes.c_int()
        flags = ctypes.c_uint64(0)
        library.cuGetProcAddress_v2(
            name.encode(), ctypes.byref(found), int(since), flags, ctypes.byref(status)
        )
        if has == "1":
            symbol = getattr(library, f"{name}_v2" if name in SECOND else name)
            assert found.value == ctypes.cast(symbol, ctypes.c_void_p).value, name
        else:
            assert found.value is None, name
            assert status.value == 1, name  # the symbol is unknown to this driver


def test_our_declarations_are_those_of_cuda_h(headers: Path, tmp_path: Path) -> None:
    program = tmp_path / "abi_check"
    source = ROOT / "tests/native/abi_check.cpp"
    compile_with("-isystem", str(headers), "-o", str(program), str(source))
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    named = re.search(r"cuda-(\d+)\.(\d+)\.", str(headers))
    assert named is not None
    major, minor = map(int, named.groups())
    assert said == f"abi_check: ok, against cuda.h {major * 1000 + minor * 10}\n"
