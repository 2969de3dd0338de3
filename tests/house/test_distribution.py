"""What is published: a source distribution that is complete, and a wheel made of nothing else.

The wheel is built from the unpacked source distribution, installed in an environment of its own
outside the tree (dependencies are those of this environment, found through a .pth file), and used
there from an empty folder. Its objects stay in build/dist, so only a changed source is compiled.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from spacetime.version import __version__

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / "build" / "dist"
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in {"PYTHONPATH", "ST_SANITIZE", "ST_SYMBOLS"}
}
OF_ANY_LINUX = {  # what manylinux lets a wheel need
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"),
}
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|spacetime\.egg-info/.*")
CC = shutil.which("cc")
BUILD_FILES = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "spacetime/version.py"}
WORKLOAD = """
tenants:
  - name: double
    model: served:Double
    slo_ms: 1000
    rate_rps: 10
    example_inputs: [{shape: [1, 3], datatype: FP32}]
"""
MODEL = """
from torch import nn

class Double(nn.Module):
    def forward(self, x):
        return 2 * x
"""
TO_PLAN = "tenants: [{name: alone, model: net, slo_ms: 20, rate_rps: 50}]\n"
PROFILES = """\
model,device,kind,units,batch,procs,latency_ms,throughput_rps,source
net,cpu-2,cores,1,1,1,5,200,measured
net,cpu-2,cores,2,1,1,3,333.3,measured
"""


def run(*command: str | Path, **options: object) -> str:
    chosen = {"env": CLEAN, "timeout": 280, **options}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **chosen
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(done.stdout)


def tracked() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return sorted(name for name in set(listed.splitlines()) if (ROOT / name).exists())


def copied(names: list[str], to: Path) -> Path:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
    return to


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the tree, made beside what work there leaves behind."""
    tree = copied(tracked(), tmp_path_factory.mktemp("tree"))
    (tree / "spacetime/kernels").symlink_to("../kernels")  # make types
    (tree / "spacetime/benchmarks").symlink_to("../benchmarks")
    for left in ("spacetime/lib/libspacetime.so", "spacetime/_native.so", "build/temp/old.o"):
        (tree / left).parent.mkdir(parents=True, exist_ok=True)
        (tree / left).write_text("built elsewhere")
    run(sys.executable, "setup.py", "-q", "sdist", cwd=tree)
    (made,) = (tree / "dist").iterdir()
    return made


def test_the_source_distribution_is_what_the_repository_tracks(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        held = {m.name.partition("/")[2] for m in opened.getmembers() if not m.isdir()}
    assert {name for name in held if not GENERATED.fullmatch(name)} == set(tracked())


def metadata(archive: Path) -> Message:
    """What the source distribution says of itself."""
    with tarfile.open(archive) as opened:
        told = opened.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert told is not None
        return message_from_bytes(told.read())


def test_the_metadata_names_the_version_and_a_licence_that_is_there(archive: Path) -> None:
    told = metadata(archive)
    assert told["Version"] == __version__
    assert archive.name == f"spacetime-{__version__}.tar.gz"
    assert told["License-Expression"] == "Apache-2.0"
    assert told.get_all("License-File") == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.count("\n") == 202  # as published: nothing added, nothing taken away


def test_wheels_are_made_for_every_python_that_is_promised() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    promised = re.findall(r"Programming Language :: Python :: 3\.(\d+)", text)
    (built,) = re.findall(r"^build = \[(.*)\]", text, re.MULTILINE)
    assert re.findall(r"cp3(\d+)-", built) == promised


def test_the_version_is_read_without_an_import() -> None:
    asks = (
        "import runpy, sys; sys.argv = ['setup.py', '--version']; "
        "runpy.run_path('setup.py', run_name='__main__'); "
        "print(sorted({'spacetime', 'torch', 'numpy'} & set(sys.modules)))"
    )
    told = run(sys.executable, "-c", asks, cwd=ROOT).splitlines()
    assert told[-2:] == [__version__, "[]"]


def test_a_header_of_another_version_is_not_built(tmp_path: Path) -> None:
    tree = copied([n for n in tracked() if n.startswith("csrc/") or n in BUILD_FILES], tmp_path)
    header = tree / "csrc/capi/spacetime.h"
    header.write_text(header.read_text().replace(f'VERSION "{__version__}"', 'VERSION "9.8.7"'))
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"], cwd=tree, env=CLEAN,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "setup.py: csrc/capi/spacetime.h: ST_VERSION is 9.8.7, "
        f"spacetime/version.py says {__version__}"
    )


def build_without(tmp_path: Path, missing: str) -> str:
    """The last line of a build of a tree that lacks one file; it never comes to compiling."""
    names = [n for n in tracked() if n.startswith("csrc/") or n in {"setup.py", "pyproject.toml"}]
    tree = copied([name for name in names if name != missing], tmp_path)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"], cwd=tree, env=CLEAN,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert not (tree / "build").exists()
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("csrc/capi/session.cpp", "named in csrc/sources.txt"),
        ("csrc/sched/types.h", "included by "),
        ("csrc/capi/spacetime.pc", "libspacetime.so is installed with it"),
        ("csrc/capi/exports.map", "libspacetime.so is installed with it"),
        ("csrc/sources.txt", "it names the sources"),
    ],
)
def test_a_build_without_a_source_names_it_in_a_line(
    missing: str, why: str, tmp_path: Path
) -> None:
    said = build_without(tmp_path, missing)
    assert re.fullmatch(rf"setup\.py: {re.escape(missing)} is missing \({why}.*", said)


def test_a_source_that_nobody_named_is_told(tmp_path: Path) -> None:
    (tmp_path / "csrc/sched").mkdir(parents=True)
    (tmp_path / "csrc/sched/more.cpp").write_text("")
    said = build_without(tmp_path, "")
    assert said == "setup.py: csrc/sched/more.cpp is not named in csrc/sources.txt: add it there"


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in an environment of its own, and an empty folder to be used from."""

    environment: Path
    folder: Path

    def __call__(self, program: str, *arguments: str | Path) -> str:
        path = self.environment / "bin" / program
        return run(path, *arguments, cwd=self.folder, timeout=900)

    @property
    def package(self) -> Path:
        said = self("python", "-c", "import spacetime; print(spacetime.__file__)")
        return Path(said.strip()).parent


@pytest.fixture(scope="module")
def unpacked(archive: Path) -> Path:
    """The source distribution in build/dist, with the objects of earlier builds of it alone."""
    folder = UNPACKED / archive.name.removesuffix(".tar.gz")
    for old in folder.glob("*"):
        if old.name != "build":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for old in folder.glob("build/[!t]*"):  # lib, bdist: what a wheel is packed from
        shutil.rmtree(old)
    with tarfile.open(archive) as opened:
        opened.extractall(UNPACKED, filter="data")
    return folder


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
    run(*pip, "--no-index", "-w", to, unpacked, timeout=900)
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "-q", "--python", str(python), "install"]
    run(*pip, "--no-deps", "--no-index", wheel)
    (own,) = environment.glob("lib/python*/site-packages")
    # Dependencies only: a .pth file that lies in a folder named so is not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (own / "dependencies.pth").write_text("\n".join(others) + "\n")
    return Installed(environment, tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_package_is_the_wheels_and_stripped(installed: Installed) -> None:
    package = installed.package
    assert package.is_relative_to(installed.environment)
    libraries = [package / "lib/libspacetime.so", *package.glob("_native*.so")]
    assert len(libraries) == 2
    for library in libraries:
        assert not re.search(r"\.(symtab|debug_info)\b", run("readelf", "-SW", library))
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", library))
        assert set(needed) <= OF_ANY_LINUX
    header = (package / "include/spacetime.h").read_text()
    declared = set(re.findall(r"^ST_API [\w *]*?\b(st_\w+)\(", header, re.MULTILINE))
    exported = {
        line.split()[-1] for line in run("nm", "-D", "--defined-only", libraries[0]).splitlines()
    }
    assert exported == declared
    assert len(declared) > 20


@pytest.mark.slow
def test_auditwheel_finds_a_manylinux_that_the_wheel_runs_on(wheel: Path) -> None:
    pytest.importorskip("auditwheel")
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    assert re.search(r'platform tag: "manylinux_2_\d+_', said), said


@pytest.mark.slow
@pytest.mark.skipif(CC is None, reason="no C compiler 'cc' on this machine")
def test_the_c_example_is_built_with_it(installed: Installed) -> None:
    flags = shlex.split(installed("spacetime", "--cflags", "--libs"))
    program = installed.folder / "embed"
    run(CC or "", "-std=c99", "-O2", ROOT / "examples/in_c/embed.c", *flags, "-o", program)
    assert re.search(r"200 requests on [12] lanes, 0 wrong", run(program, env={}))
    assert str(installed.environment) in run("ldd", program)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_runs_from_it(installed: Installed) -> None:
    said = installed("spacetime", "demo", "--seconds", "1", "--tenants", "2", "--json")
    report = json.loads(said[said.index("{") :])
    assert {row["policy"] for row in report["policies"]} == {
        "time-only",
        "space-only",
        "space-time",
    }


@pytest.mark.slow
def test_plans_are_made_with_it(installed: Installed) -> None:
    (installed.folder / "plan.yaml").write_text(TO_PLAN)
    (installed.folder / "profiles.csv").write_text(PROFILES)
    files = ["plan.yaml", "--profiles", "profiles.csv"]
    plan = json.loads(installed("spacetime", "plan", *files, "--json"))
    assert plan["format"] == "spacetime.plan/1"


@pytest.mark.slow
def test_models_are_served_from_it(installed: Installed) -> None:
    (installed.folder / "served.py").write_text(MODEL)
    (installed.folder / "serve.yaml").write_text(WORKLOAD)
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    server = subprocess.Popen(
        [installed.environment / "bin/spacetime", "serve", "serve.yaml", "--device", "cpu",
         "--json", *ports],
        cwd=installed.folder, env=CLEAN, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()  # it is ready
        assert line, server.communicate()[1]
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(json.loads(line)["http"].rsplit(":", 1)[1]), timeout=60
        )
        one = {"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
        connection.request("POST", "/v2/models/double/infer", json.dumps({"inputs": [one]}))
        assert json.loads(connection.getresponse().read())["outputs"][0]["data"] == [2, 4, 6]
        connection.close()
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_a_library_without_a_declared_function_is_not_built(
    installed: Installed, unpacked: Path
) -> None:
    """Runs last here: the same objects are linked again, and one function is left out."""
    exports = unpacked / "csrc/capi/exports.map"
    text = exports.read_text()
    exports.write_text(text.replace("global: st_*;", "global: st_[!o]*;"))
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"], cwd=unpacked, env=CLEAN,
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    exports.write_text(text)
    assert done.returncode == 1
    assert "st_open: declared in csrc/capi/spacetime.h, not exported" in done.stderr
