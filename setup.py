"""Builds spacetime._native, and libspacetime.so for programs in C and C++.

ST_SANITIZE=address,undefined | thread adds a sanitizer; ST_JOBS is how many compilers run at once.
"""

import os
import shutil
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

flags = ["-O3", "-g1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
link = ["-pthread"]
if sanitize := os.environ.get("ST_SANITIZE"):
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link += [f"-fsanitize={sanitize}"]

headers = sorted(glob("csrc/**/*.h", recursive=True))
PARTS = ("sched", "rt", "cpu", "cuda", "fake")
core = sorted(source for part in PARTS for source in glob(f"csrc/{part}/*.cpp"))
EMBED = {  # where what a C program needs lies in the installed package
    "csrc/capi/spacetime.h": "include/spacetime.h",
    "csrc/rt/launch.h": "include/rt/launch.h",
    **{
        f"csrc/capi/spacetimeConfig{part}.cmake": f"lib/cmake/spacetime/spacetimeConfig{part}.cmake"
        for part in ("", "Version")
    },
    "csrc/capi/spacetime.pc": "lib/pkgconfig/spacetime.pc",
}
EXPORTS = "csrc/capi/exports.map"


def needs_recompile(obj: str, src: str) -> bool:
    """An object is stale when its source or a header is newer: slower than exact, never wrong."""
    own = os.path.dirname(src)
    tops = ("csrc/bind", "csrc/capi")  # nobody else includes what lies there
    used = [h for h in headers if os.path.dirname(h) in {own} or not h.startswith(tops)]
    newest = max(map(os.path.getmtime, [src, *used]))
    return not os.path.exists(obj) or os.path.getmtime(obj) < newest


def lay_out(files: Iterable[tuple[str | Path, str]], package: Path) -> None:
    """Copies each file to its place under the package."""
    for source, place in files:
        (package / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, package / place)


class Build(build_ext):
    """The extension; then the library, of the same objects of the core."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        super().build_extension(ext)
        package = Path(self.get_ext_fullpath(ext.name)).parent
        lay_out(EMBED.items(), package)
        objects = self.compiler.compile(
            core + sorted(glob("csrc/capi/*.cpp")),
            output_dir=self.build_temp,
            include_dirs=["csrc"],
            extra_postargs=ext.extra_compile_args,
            depends=headers,
        )
        self.compiler.link_shared_object(
            objects,
            str(package / "lib" / "libspacetime.so"),
            extra_postargs=[
                *ext.extra_link_args, "-Wl,-soname,libspacetime.so",
                f"-Wl,--version-script={EXPORTS}",
            ],
            libraries=["dl"],
            target_lang="c++",
        )  # fmt: skip

    def copy_extensions_to_source(self) -> None:
        """In place, the library and its headers lie beside the extension."""
        super().copy_extensions_to_source()
        built = Path(self.get_ext_fullpath("spacetime._native")).parent  # of an in-place build
        made = Path(self.build_lib) / "spacetime"
        places = [*EMBED.values(), "lib/libspacetime.so"]
        lay_out([(made / place, place) for place in places], built)


ParallelCompile("ST_JOBS", default=os.cpu_count() or 1, needs_recompile=needs_recompile).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "spacetime._native",
            core + sorted(glob("csrc/bind/*.cpp")),
            include_dirs=["csrc"],
            depends=[*headers, *EMBED, EXPORTS],
            cxx_std=20,
            extra_compile_args=flags,
            extra_link_args=link,
        )
    ],
    cmdclass={"build_ext": Build},
)
