"""The first step of run.sh: builds in place, and meanwhile says what machine this is.

Only the standard library is imported here: what is broken is a fact to record, too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
IMPORTS = ("torch", "cupy", "triton", "transformers", "sklearn")  # read from disk while it builds
PACKAGES = ("torch", "triton", "cupy-cuda13x", "numba-cuda", "transformers", "numpy", "pytest")
NO_DEVICE = 3
_MOST = 200  # characters of what a program says that are kept
Facts = dict[str, Any]


def step(tell: Callable[[Facts], None], *, rehearse: bool) -> int:
    """Tells the facts, also where the build fails; the status of the step."""
    facts = known()
    tell(facts)
    if rehearse:
        facts["build"] = {"status": "left out: a rehearsal uses what is built"}
    else:
        facts["build"] = _built()
    facts |= asked_driver() if not rehearse else {"device": "none: a rehearsal"}
    tell(facts)
    print(f"build: {facts['build']['status']}; {facts['device']}; {facts['cores']} cores")
    if facts["build"].get("code"):
        return 1
    return 0 if rehearse or "sms" in facts else NO_DEVICE


def known() -> Facts:
    """Returns the facts that need neither a build nor a device."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "commit": _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]),
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {k: v for k, v in os.environ.items() if k.startswith(("CUDA_", "ST_"))},
        "programs": {
            name: shutil.which(name)
            for name in ("nvidia-smi", "nvidia-cuda-mps-control", "nvcc", "ncu", "ptxas")
        },
    }


def asked_driver() -> Facts:
    """Returns the driver's version and the device's name and SMs, by the driver's own library."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as why:
        return {"device": f"no driver: {why}"}
    if code := driver.cuInit(0):
        return {"device": f"no device: cuInit answered {code}"}
    number, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    driver.cuDriverGetVersion(ctypes.byref(number))
    if code := driver.cuDeviceGet(ctypes.byref(device), 0):
        return {"device": f"no device: cuDeviceGet answered {code}", "driver": number.value}
    facts: Facts = {"driver": number.value}
    driver.cuDeviceGetName(name, 100, device)
    driver.cuDeviceGetAttribute(ctypes.byref(number), 16, device)  # MULTIPROCESSOR_COUNT
    asked = "uuid,driver_version,clocks.sm,power.draw,persistence_mode"
    said = _said(["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"])
    return facts | {"device": name.value.decode(), "sms": number.value, "smi": said}


def _built() -> Facts:
    """Builds the extension in place while others read what will be imported."""
    begin = time.monotonic()
    reading = subprocess.Popen(
        [sys.executable, "-c", _READ, *IMPORTS], stdout=subprocess.DEVNULL, stderr=None
    )
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, check=False
    )
    reading.kill()  # what is not read yet, its step reads
    reading.wait()
    seconds = time.monotonic() - begin
    status = f"{seconds:.0f} s" if built.returncode == 0 else f"FAILED with {built.returncode}"
    return {"status": status, "code": built.returncode, "seconds": seconds}


_READ = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as why:
        print(f"import {name}: {why}", file=sys.stderr)
"""


def _said(command: list[str]) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10, cwd=ROOT
        )
        return (done.stdout or done.stderr).strip()[:_MOST]
    return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
