"""Builds spacetime._native. ST_SANITIZE=address,undefined | thread adds a sanitizer."""

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, naive_recompile
from setuptools import setup

flags = ["-O3", "-g1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
link = ["-pthread"]
if sanitize := os.environ.get("ST_SANITIZE"):
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link += [f"-fsanitize={sanitize}"]

ParallelCompile("ST_JOBS", default=os.cpu_count() or 1, needs_recompile=naive_recompile).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "spacetime._native",
            sorted(glob("csrc/**/*.cpp", recursive=True)),
            include_dirs=["csrc"],
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            cxx_std=20,
            extra_compile_args=flags,
            extra_link_args=link,
        )
    ]
)
