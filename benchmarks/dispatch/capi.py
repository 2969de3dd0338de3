"""A request through the C API, by a C program built on the spot: no Python while it runs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from spacetime.commands import embed

SOURCE = Path(__file__).with_name("capi_dispatch.c")


def available() -> bool:
    """Whether this machine has a C compiler to build it with."""
    return shutil.which("cc") is not None


def roundtrips_ns(count: int) -> list[int]:
    """Returns the ns from st_submit to the end of st_wait on a lane that does nothing, sorted."""
    flags = shlex.split(f"{embed.cflags()} {embed.libs()}")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "dispatch")
        build = ["cc", "-std=gnu99", "-O2", str(SOURCE), *flags, "-o", program]
        subprocess.run(build, check=True, timeout=120)
        done = subprocess.run(
            [program, str(count)], check=True, capture_output=True, text=True, timeout=600
        )
    return sorted(map(int, done.stdout.split()))
