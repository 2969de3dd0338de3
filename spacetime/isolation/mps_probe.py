"""What the CUDA driver granted this process: how many SMs, and whether by MPS.

python -m spacetime.isolation.mps_probe [LIBRARY]

Prints {"sms": ..., "mps": ...} of the process's first device. Under MPS the number of SMs is the
client's own part. It runs as a process of its own, since the driver reads its variables once.
"""

from __future__ import annotations

import ctypes
import json
import sys

MULTIPROCESSOR_COUNT, MPS_ENABLED = 16, 133  # CUdevice_attribute, cuda.h


def main(library: str) -> None:
    """Prints what was granted as JSON; exits with the reason where there is no driver or device."""
    print(json.dumps(granted(library)))


def granted(library: str = "libcuda.so.1") -> dict[str, int]:
    """Returns `sms`, those of the first device as this process sees it, and `mps`, 1 for a client.

    library: the driver's. Exits with the reason where there is no driver or device.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as why:
        sys.exit(str(why))
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check("cuInit", driver.cuInit(0))
    _check("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    # A client joins its server, and gets its share, with its first context.
    _check("cuDevicePrimaryCtxRetain",
           driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))  # fmt: skip
    values = {}
    for name, attribute in (("sms", MULTIPROCESSOR_COUNT), ("mps", MPS_ENABLED)):
        value = ctypes.c_int()
        result = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        _check("cuDeviceGetAttribute", result)
        values[name] = value.value
    return values


def _check(call: str, result: int) -> None:
    if result:
        sys.exit(f"{call} failed with {result}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "libcuda.so.1")
