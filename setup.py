"""Builds spacetime._native, and libspacetime.so for programs in C and C++.

csrc/sources.txt names every source; a build without one of them, or without a header that they
include, ends in one line that names it. ST_SANITIZE=address,undefined | thread adds a sanitizer;
ST_SYMBOLS=1 keeps the symbols that a debugger reads, which a release is stripped of; ST_JOBS is how
many compilers run at once.
"""

import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import LinkError

sanitize = os.environ.get("ST_SANITIZE")
flags = ["-O3", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
link = ["-pthread"]
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    link += [f"-fsanitize={sanitize}"]
if sanitize or os.environ.get("ST_SYMBOLS"):
    flags += ["-g1"]
else:
    link += ["-Wl,--strip-all"]  # what is exported stays

HEADER = "csrc/capi/spacetime.h"
EXPORTS = "csrc/capi/exports.map"
EMBED = {  # where what a C program needs lies in the installed package
    HEADER: "include/spacetime.h",
    "csrc/rt/launch.h": "include/rt/launch.h",
    **{
        f"csrc/capi/spacetimeConfig{part}.cmake": f"lib/cmake/spacetime/spacetimeConfig{part}.cmake"
        for part in ("", "Version")
    },
    "csrc/capi/spacetime.pc": "lib/pkgconfig/spacetime.pc",
}


def need(file: str, why: str) -> None:
    if not os.path.exists(file):
        sys.exit(f"setup.py: {file} is missing ({why}): this source tree is not complete")


def read_sources() -> list[str]:
    """The files that csrc/sources.txt names: all there, and no other."""
    listing = "csrc/sources.txt"
    need(listing, "it names the sources")
    named = [f"csrc/{name}" for name in Path(listing).read_text().split()]
    for source in named:
        need(source, f"named in {listing}")
    if strange := sorted(set(glob("csrc/*/*.cpp")) - set(named)):
        sys.exit(f"setup.py: {strange[0]} is not named in {listing}: add it there")
    return named


@cache
def included(file: str) -> frozenset[str]:
    """The headers of ours that a file includes, and those that they include."""
    found: set[str] = set()
    for name in re.findall(r'^#include "([^"]+)"', Path(file).read_text(), re.MULTILINE):
        need(f"csrc/{name}", f"included by {file}")
        found |= {f"csrc/{name}", *included(f"csrc/{name}")}
    return frozenset(found)


def needs_recompile(obj: str, src: str) -> bool:
    """An object is stale when its source or a header that it includes is newer."""
    newest = max(map(os.path.getmtime, [src, *included(src)]))
    return not os.path.exists(obj) or os.path.getmtime(obj) < newest


sources = read_sources()
core = [s for s in sources if not s.startswith(("csrc/bind/", "csrc/capi/"))]
bind = [s for s in sources if s.startswith("csrc/bind/")]
capi = [s for s in sources if s.startswith("csrc/capi/")]
headers = sorted(frozenset().union(*map(included, sources)))
for part in (*EMBED, EXPORTS):
    need(part, "libspacetime.so is installed with it")


def check_exports(library: Path) -> None:
    """Raises LinkError unless the library loads and has each function that its header declares."""
    if sanitize:
        return  # it would load into a sanitized program only
    declared = re.findall(r"^ST_API [\w *]*?\b(st_\w+)\(", Path(HEADER).read_text(), re.MULTILINE)
    loaded = ctypes.CDLL(str(library.resolve()))
    if lacking := [name for name in declared if not hasattr(loaded, name)]:
        raise LinkError(f"{library}: {', '.join(lacking)}: declared in {HEADER}, not exported")


def check_header(version: str) -> None:
    """The header of the C API is read by compilers as it stands: it names this release itself."""
    (named,) = re.findall(r'^#define ST_VERSION "([^"]*)"', Path(HEADER).read_text(), re.MULTILINE)
    if named != version:
        sys.exit(f"setup.py: {HEADER}: ST_VERSION is {named}, spacetime/version.py says {version}")


def lay_out(files: Iterable[tuple[str | Path, str]], package: Path) -> None:
    """Copies each file to its place under the package."""
    for source, place in files:
        (package / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, package / place)


def fill_in(version: str, package: Path) -> None:
    """The release's version, in the laid-out files for CMake and pkg-config."""
    for place in EMBED.values():
        if place.endswith((".cmake", ".pc")):
            text = (package / place).read_text()
            (package / place).write_text(text.replace("@VERSION@", version))


class Build(build_ext):
    """The extension; then the library, of the same objects of the core."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        version = self.distribution.get_version()
        check_header(version)
        super().build_extension(ext)
        package = Path(self.get_ext_fullpath(ext.name)).parent
        lay_out(EMBED.items(), package)
        fill_in(version, package)
        objects = self.compiler.compile(
            core + capi,
            output_dir=self.build_temp,
            include_dirs=["csrc"],
            extra_postargs=ext.extra_compile_args,
            depends=headers,
        )
        library = package / "lib" / "libspacetime.so"
        library.unlink(missing_ok=True)  # the linker's map may be newer than every object
        self.compiler.link_shared_object(
            objects,
            str(library),
            extra_postargs=[
                *ext.extra_link_args, "-Wl,-soname,libspacetime.so",
                f"-Wl,--version-script={EXPORTS}",
            ],
            libraries=["dl"],
            target_lang="c++",
        )  # fmt: skip
        check_exports(library)

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
            core + bind,
            include_dirs=["csrc"],
            depends=[*headers, *EMBED, EXPORTS],
            cxx_std=20,
            extra_compile_args=flags,
            extra_link_args=link,
        )
    ],
    cmdclass={"build_ext": Build},
)
