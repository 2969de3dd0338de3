"""Where the installed package keeps what a program in C or C++ needs to build."""

from __future__ import annotations

import shlex
from pathlib import Path

from spacetime.errors import UnsupportedError

_ROOT = Path(__file__).resolve().parents[1]


def _folder(name: str, must_hold: str) -> Path:
    folder = _ROOT / name
    if not (folder / must_hold).exists():
        raise UnsupportedError(f"{folder / must_hold} is missing: build or install spacetime again")
    return folder


def cflags() -> str:
    """Compiler flags for programs that include <spacetime.h>, quoted for a shell.

    Raises UnsupportedError, as all here, where this installation has no C API.
    """
    return f"-I{shlex.quote(str(_folder('include', 'spacetime.h')))}"


def libs() -> str:
    """Linker flags; the program finds the library where it is now."""
    folder = shlex.quote(str(_folder("lib", "libspacetime.so")))
    return f"-L{folder} -lspacetime -Wl,-rpath,{folder}"


def cmake_dir() -> str:
    """The folder of spacetimeConfig.cmake: -Dspacetime_DIR="$(spacetime --cmake-dir)"."""
    return str(_folder("lib/cmake/spacetime", "spacetimeConfig.cmake"))


def pkgconfig_dir() -> str:
    """The folder of spacetime.pc, for PKG_CONFIG_PATH."""
    return str(_folder("lib/pkgconfig", "spacetime.pc"))
