"""What this machine offers and what this build can use, as plain facts."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import torch

from spacetime.device import open_device

_EXTRA = re.compile(r"""extra\s*==\s*["']demo["']""")


def facts() -> dict[str, object]:
    """Facts by name, in the order worth reading; every value fits JSON."""
    device = open_device("auto")
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
    }


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
