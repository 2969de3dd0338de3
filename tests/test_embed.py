"""The C API as it is installed: a C program builds with its flags, runs without Python, and agrees.

Its behaviour under load, faults and nonsense is tested in tests/native/capi*.cpp.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spacetime import __version__, embed
from spacetime.benchmarks import capi_way

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "csrc" / "capi" / "spacetime.h"
EXAMPLE = ROOT / "examples" / "embed_c"
LIBRARY = Path(embed.__file__).parent / "lib" / "libspacetime.so"
CC = shutil.which("cc")

needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler 'cc' on this machine")


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=120, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def spacetime(*arguments: str) -> str:
    return run(sys.executable, "-m", "spacetime", *arguments).strip()


def checked(said: str) -> None:
    """What the example prints: every tenant served, shared launches, nothing wrong."""
    *rows, last = said.strip().splitlines()[1:]
    assert len(rows) == 4
    for row in rows:
        completed, met, samples, tenants, p99 = map(float, row.split()[2:])
        assert completed == met == 50
        assert 1 <= samples <= 4
        assert 1 <= tenants <= 2
        assert p99 > 0
    assert any(float(row.split()[5]) > 1 for row in rows)  # some launches held both tenants
    assert re.fullmatch(r"200 requests on [12] lanes, 0 wrong", last)


@needs_cc
def test_the_example_builds_with_our_flags_and_runs_without_python(tmp_path: Path) -> None:
    program = tmp_path / "embed"
    flags = shlex.split(spacetime("--cflags", "--libs"))
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O2"]
    run(CC or "", *strict, EXAMPLE / "embed.c", *flags, "-o", program)
    checked(run(program, env={}))
    needs = run("ldd", program)
    assert str(LIBRARY) in needs
    assert "python" not in needs.replace(str(LIBRARY), "")


@needs_cc
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on this machine")
def test_the_example_builds_with_cmake(tmp_path: Path) -> None:
    found = f"-Dspacetime_DIR={spacetime('--cmake-dir')}"
    run("cmake", "-S", EXAMPLE, "-B", tmp_path, found)
    run("cmake", "--build", tmp_path)
    checked(run(tmp_path / "embed", env={}))


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config on this machine")
def test_pkg_config_says_the_same() -> None:
    where = {"PKG_CONFIG_PATH": spacetime("--pkgconfig-dir"), "PATH": "/usr/bin:/bin"}
    assert run("pkg-config", "--modversion", "spacetime", env=where).strip() == __version__
    said = shlex.split(run("pkg-config", "--cflags", "--libs", "spacetime", env=where))
    ours = shlex.split(f"{embed.cflags()} {embed.libs()}")

    def resolved(flag: str) -> str:
        lead, slash, path = flag.partition("/")
        return lead + (str(Path(slash + path).resolve()) if slash else "")

    assert {resolved(flag) for flag in said} == {resolved(flag) for flag in ours}


@needs_cc
@pytest.mark.parametrize("language", [["c", "-std=c99"], ["c", "-std=c17"], ["c++", "-std=c++11"]])
def test_the_header_stands_alone(language: list[str], tmp_path: Path) -> None:
    source = tmp_path / "only.c"
    source.write_text("#include <spacetime.h>\n#include <spacetime.h>\n")
    strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    run(CC or "", "-x", language[0], language[1], *strict, *shlex.split(embed.cflags()), source)


def test_the_library_exports_what_the_header_declares_and_nothing_else() -> None:
    declared = set(re.findall(r"^ST_API [\w *]*?\b(st_\w+)\(", HEADER.read_text(), re.MULTILINE))
    listed = run("nm", "-D", "--defined-only", LIBRARY).splitlines()
    assert {line.split()[-1] for line in listed} == declared
    assert len(declared) > 20


def test_versions_agree() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.st_version.restype = ctypes.c_char_p
    assert library.st_version().decode() == __version__
    header = HEADER.read_text()
    assert f'#define ST_VERSION "{__version__}"' in header
    assert f"#define ST_API_VERSION {library.st_api_version()}\n" in header
    config = Path(embed.cmake_dir()) / "spacetimeConfig.cmake"
    assert f"set(spacetime_VERSION {__version__})" in config.read_text()


def test_every_file_is_the_sources_own() -> None:
    package = LIBRARY.parent.parent
    assert (package / "include/spacetime.h").read_text() == HEADER.read_text()
    assert (package / "include/rt/launch.h").read_text() == (ROOT / "csrc/rt/launch.h").read_text()


@needs_cc
def test_its_dispatch_is_measured() -> None:
    took = capi_way.roundtrips_ns(200)
    assert len(took) == 200
    assert 0 < took[0] <= took[-1]
