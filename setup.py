"""Builds spacetime._native. ST_SANITIZE=address,undefined | thread adds a sanitizer."""

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

flags = ["-O3", "-g1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
link = ["-pthread"]
if sanitize := os.environ.get("ST_SANITIZE"):
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link += [f"-fsanitize={sanitize}"]

headers = sorted(glob("csrc/**/*.h", recursive=True))


def needs_recompile(obj: str, src: str) -> bool:
    """An object is stale when its source or any header is newer: slower than exact, never wrong."""
    newest = max(map(os.path.getmtime, [src, *headers]))
    return not os.path.exists(obj) or os.path.getmtime(obj) < newest


ParallelCompile("ST_JOBS", default=os.cpu_count() or 1, needs_recompile=needs_recompile).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "spacetime._native",
            sorted(glob("csrc/**/*.cpp", recursive=True)),
            include_dirs=["csrc"],
            depends=headers,
            cxx_std=20,
            extra_compile_args=flags,
            extra_link_args=link,
        )
    ]
)
