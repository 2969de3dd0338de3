"""What this machine offers and what this build can use: facts, and mechanisms with reasons.

A mechanism that is off says why. Whatever a probe raises becomes its reason: an unknown machine is
what this command is for, so nothing here may end it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from ctypes import CDLL, byref, c_int
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from spacetime.devices.device import Device, open_device
from spacetime.devices.queues import VARIABLE
from spacetime.devices.queues import of_this_process as queues
from spacetime.errors import UnsupportedError

_EXTRA = re.compile(r"""extra\s*==\s*["']demo["']""")
_NVCC = (Path("/usr/local/cuda/bin/nvcc"), Path("/opt/cuda/bin/nvcc"))


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Something the runtime can use: whether it can here, with what, and if not why."""

    name: str
    on: bool
    detail: str  # what there is, or the reason why it is off
    serves: str  # what it is for


def facts() -> dict[str, object]:
    """Facts by name, in the order worth reading; every value fits JSON."""
    device = _chosen()
    native = find_spec("._native", "spacetime")
    return {
        "device": device.name,
        "chosen": device.chosen,
        "cores": list(device.cores),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "native extension": "missing: run make env" if native is None else str(native.origin),
        "for the demo": _for_the_demo(),
        "mechanisms": [asdict(mechanism) for mechanism in mechanisms()],
    }


def _chosen() -> Device:
    """The device that "auto" opens, or the CPU with what "auto" raised."""
    try:
        return open_device("auto")
    except Exception as error:  # an unknown device must not end the doctor
        return replace(open_device("cpu"), chosen=f"auto failed: {_reason(error)}")


def mechanisms() -> Iterator[Mechanism]:
    """Every mechanism, on or off, with the reason."""
    yield _probed("cores", "partitions of a CPU", _cores)
    driver, features = _device()
    yield driver
    for name, reason in features.items():
        yield Mechanism(name, not reason, reason or driver.detail, "partitions and lanes of SMs")
    yield _probed("hardware queues", "lanes that do not wait for each other", _queues)
    yield _probed("MPS daemon", "partitions by process; a baseline of bench flops", _mps)
    yield _probed("NVML", "clocks, power and MIG layouts", _nvml)
    yield _probed("MIG", "partitions in hardware", _mig)
    yield _probed("torch for CUDA", "models on a CUDA device", _torch)
    yield _probed("Triton", "super-kernels on a CUDA device", _triton)
    yield _probed("Triton's interpreter", "those kernels' tests without a device", _interpreter)
    yield _probed("CuPy with NVRTC", "stressors and FLOP kernels on a CUDA device", _cupy)
    yield _probed("nvcc", "compiling CUDA sources in tests; nothing at run time", _nvcc)


def _probed(name: str, serves: str, probe: Callable[[], str]) -> Mechanism:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's advice is not this command's answer
            return Mechanism(name, True, probe(), serves)
    except Exception as error:  # whatever it is, it is the reason
        return Mechanism(name, False, _reason(error), serves)


def _reason(error: Exception) -> str:
    """The first line that says something: CuPy begins with a rule of equal signs."""
    said = (line.strip() for line in str(error).splitlines())
    return next((line for line in said if re.search(r"\w", line)), type(error).__name__)


def _cores() -> str:
    return f"{len(open_device('cpu').cores)} cores this process may use"


def _with_driver(reason: Exception) -> str:
    """Why no device opens, after the driver's version where there is a driver."""
    told = c_int()
    try:
        CDLL("libcuda.so.1").cuDriverGetVersion(byref(told))
    except (OSError, AttributeError):
        return _reason(reason)
    major, minor = divmod(told.value // 10, 100)
    return f"driver of CUDA {major}.{minor}, no device: {_reason(reason)}"


def _device() -> tuple[Mechanism, dict[str, str]]:
    """The first CUDA device, and why each of its own mechanisms is off; empty reasons are on."""
    features: dict[str, str] = {}

    def probe() -> str:
        # Imported by name at the time: a build without the extension still has a doctor.
        native = import_module("._native", "spacetime")
        if not hasattr(native, "CudaDevice"):
            raise UnsupportedError("this build drives no CUDA device")
        try:
            device = native.CudaDevice.open(0)
        except Exception as reason:
            raise UnsupportedError(_with_driver(reason)) from None
        features.update(device.features)
        return f"{device.name}, driver {device.driver_version}, {device.sms} SMs"

    driver = _probed("CUDA driver", "every device cuda:N", probe)
    if not driver.on:
        features = dict.fromkeys(("green contexts", "streams"), "no device opens, see CUDA driver")
    return driver, features


def _queues() -> str:
    if few := queues.ask():
        raise UnsupportedError(few)
    return f"{os.environ[VARIABLE]} asked for before the driver was initialised"


def _mps() -> str:
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        raise UnsupportedError("nvidia-cuda-mps-control is not on PATH")
    question = "get_default_active_thread_percentage\n"
    done = subprocess.run(
        [control], input=question, capture_output=True, text=True, timeout=10, check=False
    )
    said = (done.stdout + done.stderr).strip()
    if done.returncode or not re.match(r"\d+(\.\d+)?$", said):
        raise UnsupportedError(f"no daemon answers: {said or done.returncode}")
    return f"a daemon answers; threads {said} %"


def _nvml() -> str:
    nvml = _opened_nvml()
    return f"driver {_text(nvml.nvmlSystemGetDriverVersion())}, {nvml.nvmlDeviceGetCount()} devices"


def _mig() -> str:
    nvml = _opened_nvml()
    now, _ = nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(0))
    if not now:
        raise UnsupportedError("the mode is disabled on device 0; nothing here enables it")
    return "enabled on device 0"


def _opened_nvml() -> Any:
    if find_spec("pynvml") is None:
        raise UnsupportedError("pynvml is not installed: pip install 'spacetime[mig]'")
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    return nvml


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told


def _torch() -> str:
    if torch.version.cuda is None:
        raise UnsupportedError(f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise UnsupportedError(f"torch {torch.__version__} finds no CUDA device")
    return f"torch {torch.__version__}, CUDA {torch.version.cuda}"


def _triton() -> str:
    if find_spec("triton") is None:
        raise UnsupportedError("triton is not installed: pip install 'spacetime[cuda]'")
    if not torch.cuda.is_available():
        raise UnsupportedError(f"triton {version('triton')} is installed, but needs a CUDA device")
    return f"triton {import_module('triton').__version__}"


def _interpreter() -> str:
    if find_spec("triton") is None:
        raise UnsupportedError("triton is not installed: pip install 'spacetime[cuda]'")
    numpy = version("numpy")
    if tuple(map(int, numpy.split(".")[:2])) >= (2, 4):
        raise UnsupportedError(f"numpy {numpy} breaks it: pip install 'numpy<2.4'")
    return f"triton {version('triton')} with numpy {numpy}"


def _cupy() -> str:
    if find_spec("cupy") is None:
        raise UnsupportedError("cupy is not installed: pip install 'spacetime[cuda]'")
    cupy = import_module("cupy")
    # An attribute that CuPy 13 and 14 set; neither has a module of this name.
    major, minor = cupy.cuda.nvrtc.getVersion()
    if not cupy.cuda.is_available():
        raise UnsupportedError(f"cupy {cupy.__version__} finds no CUDA device")
    return f"cupy {cupy.__version__}, NVRTC {major}.{minor}"


def _nvcc() -> str:
    nvcc = shutil.which("nvcc") or next((str(path) for path in _NVCC if path.exists()), None)
    if nvcc is None:
        raise UnsupportedError("not on PATH and not in /usr/local/cuda/bin")
    done = subprocess.run(
        [nvcc, "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    release = re.search(r"release ([\d.]+)", done.stdout)
    return f"{nvcc}, release {release[1] if release else 'unknown'}"


def _for_the_demo() -> dict[str, str]:
    """The packages of the extra `demo` and their versions here."""
    try:
        wanted = [line for line in requires("spacetime") or () if _EXTRA.search(line)]
    except PackageNotFoundError:
        return {"spacetime": "runs from its sources; pip knows nothing of it"}
    names = [re.split(r"[^\w.-]", line)[0] for line in wanted]
    return {name: _installed(name) for name in names}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing: pip install 'spacetime[demo]'"
