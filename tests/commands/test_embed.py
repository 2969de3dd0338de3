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
import yaml

import spacetime as st
from spacetime.benchmarks.dispatch import capi
from spacetime.commands import embed
from spacetime.version import __version__

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "csrc" / "capi" / "spacetime.h"
EXAMPLE = ROOT / "examples" / "in_c"
LIBRARY = Path(embed.__file__).parents[1] / "lib" / "libspacetime.so"
CC = shutil.which("cc")

CONSUMER = r"""
#include <spacetime.h>

#include <cstdio>
#include <cstdlib>

namespace {
void need(int status) {
  if (status != ST_OK) {
    std::fprintf(stderr, "%s\n", st_last_error());
    std::exit(1);
  }
}

int add_one(void*, const st_launch* launch) {
  for (uint32_t i = 0; i < launch->count; ++i) ++*reinterpret_cast<int*>(launch->tokens[i]);
  return 0;
}
}  // namespace

int main() {
  st_session session = 0;
  st_options options = ST_OPTIONS_INIT;
  need(st_open("cpu", &options, &session));
  st_lane_options one = ST_LANE_OPTIONS_INIT;
  need(st_add_lane(session, nullptr, 0, &one, nullptr));
  const uint32_t bucket = 1;
  st_family family = 0;
  need(st_add_family(session, &bucket, 1, &family));
  need(st_set_runner(session, family, ST_ANY, add_one, nullptr));
  st_tenant_options options_of_tenant = ST_TENANT_OPTIONS_INIT;
  st_tenant tenant = 0;
  need(st_add_tenant(session, family, &options_of_tenant, &tenant));
  int number = 41;
  st_submission submission = ST_SUBMISSION_INIT;
  submission.user = &number;
  st_request request = 0;
  need(st_submit(session, tenant, &submission, &request));
  st_result result = ST_RESULT_INIT;
  need(st_wait(session, request, ST_NEVER, &result));
  std::printf("%s: %d\n", st_version(), number);
  need(st_free(session));
}
"""
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


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on this machine")
@pytest.mark.parametrize(("asked", "found"), [("0.1", 1), ("0.1.0 EXACT", 1), ("0.2", 0), ("1", 0)])
def test_cmake_finds_the_version_it_asks_for(asked: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(asks NONE)\n"
        f"find_package(spacetime {asked} CONFIG)\n"
        'message(STATUS "found ${spacetime_FOUND}")\n'
    )
    where = f"-Dspacetime_DIR={spacetime('--cmake-dir')}"
    said = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", where)
    assert f"-- found {found}\n" in said


@needs_cc
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on this machine")
def test_a_program_in_cpp_is_built_and_told_the_version(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(consumer CXX)\n"
        "set(CMAKE_CXX_STANDARD 20)\nfind_package(spacetime 0.1 CONFIG REQUIRED)\n"
        "add_executable(consumer consumer.cpp)\n"
        "target_compile_options(consumer PRIVATE -Wall -Wextra -pedantic -Werror -Wconversion)\n"
        "target_link_libraries(consumer PRIVATE spacetime::spacetime)\n"
    )
    (tmp_path / "consumer.cpp").write_text(CONSUMER)
    run("cmake", "-S", tmp_path, "-B", tmp_path, f"-Dspacetime_DIR={spacetime('--cmake-dir')}")
    run("cmake", "--build", tmp_path)
    assert run(tmp_path / "consumer", env={}) == f"{__version__}: 42\n"


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
@pytest.mark.parametrize("language", [["c", "-std=c99"], ["c", "-std=c17"], ["c++", "-std=c++11"],
                                      ["c++", "-std=c++20"]])  # fmt: skip
def test_the_header_stands_alone(language: list[str], tmp_path: Path) -> None:
    source = tmp_path / "only.c"
    source.write_text("#include <spacetime.h>\n#include <spacetime.h>\n")
    strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    run(CC or "", "-x", language[0], language[1], *strict, *shlex.split(embed.cflags()), source)


def declared() -> set[str]:
    found = set(re.findall(r"^ST_API [\w *]*?\b(st_\w+)\(", HEADER.read_text(), re.MULTILINE))
    assert len(found) > 20
    return found


def test_the_library_exports_what_the_header_declares_and_nothing_else() -> None:
    listed = run("nm", "-D", "--defined-only", LIBRARY).splitlines()
    assert {line.split()[-1] for line in listed} == declared()


def test_every_function_is_fuzzed() -> None:
    fuzz = (ROOT / "tests/native/capi_fuzz.cpp").read_text()
    assert declared() - set(re.findall(r"\b(st_\w+)\(", fuzz)) == set()


def test_versions_agree() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.st_version.restype = ctypes.c_char_p
    assert library.st_version().decode() == __version__
    header = HEADER.read_text()
    assert f'#define ST_VERSION "{__version__}"' in header
    assert f"#define ST_API_VERSION {library.st_api_version()}\n" in header
    config = Path(embed.cmake_dir())
    assert f"set(spacetime_VERSION {__version__})" in (config / "spacetimeConfig.cmake").read_text()
    told = (config / "spacetimeConfigVersion.cmake").read_text()
    assert f"set(PACKAGE_VERSION {__version__})" in told
    pc = (Path(embed.pkgconfig_dir()) / "spacetime.pc").read_text()
    assert f"\nVersion: {__version__}\n" in pc
    assert st.__version__ == __version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__


def test_every_file_is_the_sources_own() -> None:
    package = LIBRARY.parent.parent
    assert (package / "include/spacetime.h").read_text() == HEADER.read_text()
    assert (package / "include/rt/launch.h").read_text() == (ROOT / "csrc/rt/launch.h").read_text()


@needs_cc
def test_its_dispatch_is_measured() -> None:
    took = capi.roundtrips_ns(200)
    assert len(took) == 200
    assert 0 < took[0] <= took[-1]
