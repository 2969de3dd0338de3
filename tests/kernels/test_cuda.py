"""The CUDA C++ kernels without a device: they compile, and those a CPU can run agree with twins."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from spacetime.kernels import cuda
from spacetime.kernels.cuda import stress

NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed: not compiled as CUDA")
# The kernels' code as plain C++: the names CUDA adds, and one thread after the other.
SHIM = """
#include <cmath>
struct Place { unsigned x; } threadIdx, blockIdx, blockDim, gridDim;
struct float4 { float x, y, z, w; };
#define __global__
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> void __stcg(T* at, T value) { *at = value; }
using std::fmaf;
#include "%s"
template <class Kernel> void run(unsigned blocks, unsigned threads, Kernel kernel) {
  gridDim.x = blocks, blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel();
}
"""
RUN_FMA = """
extern "C" void call(float* out, int rounds, unsigned blocks, unsigned threads) {
  run(blocks, threads, [&] { fma_loop(out, rounds); });
}
"""
RUN_COPY = """
extern "C" void call(float4* from, float4* to, long long n, unsigned blocks, unsigned threads) {
  run(blocks, threads, [&] { copy(from, to, n, 1); });
}
"""


@pytest.fixture
def cubin(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """What ptxas said, and the machine code, of a (source, architecture)."""
    name, arch = request.param
    out = tmp_path / "kernel.cubin"
    options = ["-cubin", "-std=c++17", "-Xptxas", "-v", "-Werror", "all-warnings"]
    if arch >= 90:
        options.append("-DCLUSTER=4")
    where = Path(cuda.__file__).parent / f"{name}.cu"
    command = [str(NVCC), f"-arch=sm_{arch}", *options, "-o", str(out), str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, out


def sass(path: Path) -> str:
    """sass(path): the instructions, by the cuobjdump that Triton brings."""
    builds = pytest.importorskip("triton_builds", reason="Triton's cuobjdump is not installed")
    command = [str(builds.TOOLS / "cuobjdump"), "-sass", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_nvcc
@pytest.mark.parametrize(
    "cubin", [(name, arch) for name in cuda.SOURCES for arch in (80, 90)], indirect=True, ids=str
)
def test_every_source_compiles_without_a_warning_or_a_spill(cubin: tuple[str, Path]) -> None:
    said = cubin[0]
    assert re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    assert set(re.findall(r"(\d+) bytes (?:stack|spill)", said)) == {"0"}


@needs_nvcc
@pytest.mark.parametrize("cubin", [("arithmetic", 90)], indirect=True, ids=str)
def test_a_round_holds_the_arithmetic_it_is_said_to_hold(cubin: tuple[str, Path]) -> None:
    """The compiler may unroll rounds, so the loop holds a whole number of them."""
    text = sass(cubin[1])
    multiply_adds, products = (len(re.findall(rf"\b{op}\b", text)) for op in ("FFMA", "HMMA"))
    assert multiply_adds > 0
    assert multiply_adds % (stress.CHAINS * stress.UNROLL) == 0
    assert products > 0
    assert products % stress.TILES == 0


def test_the_constants_of_the_twins_are_the_kernels() -> None:
    text = cuda.source("arithmetic")
    found = dict(re.findall(r"constexpr int k(\w+) = (\d+);", text))
    assert {name.upper(): int(value) for name, value in found.items()} == {
        "CHAINS": stress.CHAINS,
        "UNROLL": stress.UNROLL,
        "TILES": stress.TILES,
    }


def on_the_host(name: str, caller: str, folder: Path) -> ctypes._NamedFuncPointer:
    where = Path(cuda.__file__).parent / f"{name}.cu"
    (folder / "host.cpp").write_text(SHIM % where + caller, encoding="utf-8")
    library = folder / "host.so"
    compiler = os.environ.get("CXX", "c++")
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command = [compiler, *options, "-o", str(library), str(folder / "host.cpp")]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library)).call


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_fma_loop_computes_what_its_twin_does(rounds: int, tmp_path: Path) -> None:
    call = on_the_host("arithmetic", RUN_FMA, tmp_path)
    out = np.full(3 * 40, np.nan, np.float32)
    call(out.ctypes.data_as(ctypes.c_void_p), rounds, 3, 40)
    # A fused multiply-add rounds once, numpy twice.
    np.testing.assert_allclose(out, stress.fma_loop(3, 40, rounds), rtol=1e-5)


@pytest.mark.parametrize("elements", [0, 1, 23, 24, 25, 200])
def test_copy_moves_every_element_once(elements: int, tmp_path: Path) -> None:
    call = on_the_host("copy", RUN_COPY, tmp_path)
    source = np.random.default_rng(0).random((elements, 4), np.float32)
    target = np.full((elements + 4, 4), -1, np.float32)
    pointers = (a.ctypes.data_as(ctypes.c_void_p) for a in (source, target))
    call(*pointers, ctypes.c_longlong(elements), 2, 3)
    assert np.array_equal(target[:elements], source)
    assert (target[elements:] == -1).all()


def test_amounts_of_work() -> None:
    assert stress.fma_flop(256, 10) == 256 * 10 * 256
    assert stress.mma_flop(64, 1) == 2 * 4 * 4096
    assert stress.copy_bytes(1000, 3) == 96_000
    assert stress.mma_loop(1, 32, 5)[0] == 4 * 4 * 5 * 16
    with pytest.raises(ValueError, match="kind must be one of"):
        stress.stressor("disk", 1, 0)


@pytest.mark.skipif(cuda.available, reason="CuPy is installed: nothing to refuse")
def test_without_cupy_loading_says_so() -> None:
    with pytest.raises(ModuleNotFoundError, match="cupy"):
        cuda.load("latch", "latch")
