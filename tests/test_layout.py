"""The rules of the house, as tests: sizes, words, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Lower may not import higher, and modules of one row may not import each other.
LAYERS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"cli_mig", "cli_plan", "cli_profile", "cli_run", "cli_serve", "cli_simulate"},
    {"cli_options"},
    {"benchmarks"},
    {"serving"},
    {"demo", "doctor", "live_run", "prepare", "top", "verify"},
    {"controlled", "top_tables"},
    {"server"},
    {"mig_command", "planning", "profiling", "simulation", "scoreboard"},
    {"comparison", "profiler"},
    {"live_controller"},
    {"planned_session", "hosted_device"},
    {"dynamic", "guarded", "plan_report", "profiler_rig", "proven", "rate_search"},
    {"placement", "plan_simulator", "staged_plan"},
    {"advise", "deployment"},
    {
        "plot",
        "plot_agreement",
        "plot_compare",
        "plot_controller",
        "plot_cost",
        "plot_device",
        "plot_goodput",
        "plot_moves",
        "plot_overload",
        "plot_plan",
        "plot_serving",
        "plot_verify",
        "zoo",
        "session",
        "simulator",
    },
    {"explain", "plot_bench", "shares", "update"},
    {"apart", "registry"},
    {"tenant"},
    {"proc"},
    {"executor", "family", "admission", "audit"},
    {"compiling"},
    {"resident"},
    {"weights"},
    {"runner", "measure", "capture", "reference"},
    {"exports", "program"},
    {"confined"},
    {"cold", "performed", "trial"},
    {"likeness"},
    {"cost_graph"},
    {"fusion"},
    {"counters", "device_file", "scenario_file", "profile_rounds", "mig_fake", "nvml"},
    {"recording", "difference"},
    {"mig_control", "mps"},
    {"embed", "mps_v3"},
    {"workload_file", "openloop", "device", "report", "timeline", "live_model"},
    {"controller"},
    {"plan_moves", "rate_trace"},
    {"plan", "interference_file", "profile_import", "recorded", "cost"},
    {"example_rows", "profile_file", "interference", "monotone"},
    {
        "arguments",
        "cuda_function",
        "modules",
        "signature",
        "snapshot",
        "workload",
        "profile",
        "devices",
        "mps_control",
        "mps_probe",
        "queues",
        "table_file",
    },
    {"kernels"},
    {"mig"},
    {
        "compiled_error",
        "core",
        "errors",
        "interruption",
        "interval",
        "progress",
        "tables",
        "tracing",
        "units",
    },
    {"_native"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BANNED = re.compile(r"(^|[_/])(utils?|common|helpers?|misc|manager|base)(\.|/|$)")
SLEEP = "time" + ".sleep("


def sources(*suffixes: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        p for n in listed.stdout.split("\n") if n.endswith(suffixes) and (p := ROOT / n).exists()
    ]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.walk(ast.parse(path.read_text()))
    return [n for n in tree if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def room(path: Path) -> str | None:
    """The module or folder directly under the package that `path` belongs to."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in {"kernels", "benchmarks"}:
        return parts[0]
    return parts[1] if parts[0] == "spacetime" and parts[1] != "__init__" else None


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "spacetime":
            found |= {alias.name for alias in node.names} & set(RANK)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spacetime."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("spacetime.")}
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(".py", ".cpp", ".h", ".pyi"), ids=name_of)
def test_a_file_stays_small_and_narrow(path: Path) -> None:
    lines = path.read_text().split("\n")
    assert len(lines) <= 401 or path.suffix == ".pyi"  # a module has one stub
    assert max(map(len, lines)) <= 100
    assert not BANNED.search(name_of(path))


@pytest.mark.parametrize("path", sources(".py"), ids=name_of)
def test_a_function_stays_short(path: Path) -> None:
    for function in functions(path):
        assert (function.end_lineno or 0) - function.lineno < 60, function.name


def test_the_median_function_is_short() -> None:
    found = [f for path in sources(".py") if room(path) for f in functions(path)]
    lengths = sorted((f.end_lineno or 0) - f.lineno + 1 for f in found)
    assert lengths[len(lengths) // 2] <= 10


def test_every_room_has_a_layer_and_imports_only_downward() -> None:
    for path in sources(".py"):
        own = room(path)
        if own is None:
            continue
        assert own in RANK, f"{own} has no layer"
        for other in imported_rooms(path) - {own}:
            assert RANK[own] < RANK[other], f"{name_of(path)} imports {other}"


def test_words_with_one_home() -> None:
    homes = {
        r"pybind11": ("csrc/bind/", "setup.py"),
        r"std::j?thread\b": ("csrc/rt/", "csrc/cpu/", "csrc/bind/", "tests/native/"),
        r"\bmatplotlib\b": ("spacetime/plot", "tests/"),
        r"\bimport click\b": ("spacetime/cli", "tests/"),
        r"\bimport _native\b|spacetime\._native": (
            "spacetime/admission.py",
            "spacetime/capture.py",
            "spacetime/confined.py",
            "spacetime/device.py",
            "spacetime/executor.py",
            "spacetime/recording.py",
            "spacetime/proc/",
            "spacetime/queues.py",
            "spacetime/resident.py",
            "spacetime/simulator.py",
            "spacetime/weights.py",
            "csrc/bind/",
            "benchmarks/",
            "tests/",
            "setup.py",
        ),
    }
    for path in sources(".py", ".cpp", ".h"):
        for word, allowed in homes.items():
            if re.search(word, path.read_text()) and path != Path(__file__):
                assert name_of(path).startswith(allowed), f"{word} in {name_of(path)}"


IMPURE = re.compile(r"#include <(thread|mutex|chrono|atomic|iostream|fstream)>")


def test_the_scheduler_its_tape_and_its_simulation_are_pure() -> None:
    for path in sources(".cpp", ".h"):
        if path.parent in {ROOT / "csrc" / name for name in ("sched", "tape", "sim")}:
            assert not IMPURE.search(path.read_text()), name_of(path)


CPP_ROOMS = {  # what each folder of csrc may include
    "sched": {"sched"},
    "tape": {"tape", "sched"},
    "sim": {"sim", "tape", "sched"},
    "rt": {"rt", "tape", "sched"},
    "cpu": {"cpu", "rt", "sched"},
    "cuda": {"cuda", "rt", "sched"},
    "fake": {"fake", "cuda"},
    "capi": {"capi", "rt", "sched", "cpu", "cuda", "fake"},
    "bind": {"bind", "rt", "sim", "tape", "sched", "cpu", "cuda", "fake"},
}


def test_cpp_includes_only_downward() -> None:
    for path in sources(".cpp", ".h"):
        parts = path.relative_to(ROOT).parts
        if parts[0] == "csrc":
            used = set(re.findall(r'#include "(\w+)/', path.read_text()))
            assert used <= CPP_ROOMS[parts[1]], name_of(path)


def test_no_test_sleeps() -> None:
    for path in sources(".py"):
        if name_of(path).startswith("tests/"):
            assert SLEEP not in path.read_text(), name_of(path)


def test_importing_is_light() -> None:
    code = "import sys, spacetime; print({'torch', 'cupy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
