"""The rules of the house, as tests: sizes, words, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ("spacetime/", "kernels/", "benchmarks/")
MAPPED = ("kernels", "benchmarks")  # they lie beside the package and are installed into it
MOST_FILES = 18  # Python files of a folder; the menu of benchmarks aside
BANNED = re.compile(r"(^|[_/])(utils?|common|helpers?|misc|manager|base)(\.|/|$)")
SLEEP = "time" + ".sleep("
TWICE = {"Tenant"}  # as a workload asks for it, and as a session serves it
CITED = re.compile(r"(design|papers|cuda\.md) ?\xa7")
UNFORMATTED = "# fmt" + ": skip"
MOST_UNFORMATTED = 40


def sources(*suffixes: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        p for n in listed.stdout.split("\n") if n.endswith(suffixes) and (p := ROOT / n).exists()
    ]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.walk(ast.parse(path.read_text()))
    return [n for n in tree if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def module_of(path: Path) -> str:
    """The dotted name by which a file of the package is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    inside = parts[0] in MAPPED
    return ".".join([*(["spacetime"] if inside else []), *parts]).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    return {module_of(p): p for p in sources(".py") if name_of(p).startswith(PACKAGE)}


def room(path: Path) -> str | None:
    """The folder directly under the package that `path` belongs to; None for files of no room."""
    parts = module_of(path).split(".")
    whole = len(parts) > 2 or path.name == "__init__.py"
    return parts[1] if parts[0] == "spacetime" and len(parts) > 1 and whole else None


def allowed(room: str) -> set[str]:
    """The rooms that a room may import, as the docstring of its `__init__.py` says."""
    said = ast.get_docstring(ast.parse((ROOT / "spacetime" / room / "__init__.py").read_text()))
    listed = re.search(r"^May import: ([^.]*)\.", said or "", re.MULTILINE)
    assert listed, f"spacetime/{room}/__init__.py does not say what the room may import"
    return set(re.split(r",\s+", listed[1])) - {"nothing of the package"}


def imports(tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """The modules of the package that the statements under `tree` import."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= within & set(known)
            if within - set(known):
                found.add(node.module)
    return {name for name in found if name.split(".")[0] == "spacetime" and name in known}


def at_import(path: Path) -> ast.Module:
    """The statements that run when a file is imported: no function, nothing for types only."""
    tree = ast.parse(path.read_text())
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Try)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test))
    ]
    return ast.Module(kept, [])


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A way from a name back to itself; empty where there is none."""
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


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


def test_a_room_imports_only_what_its_docstring_lists() -> None:
    known = modules()
    for path in known.values():
        own = room(path)
        if own is None or own in MAPPED:
            continue
        found = imports(ast.parse(path.read_text()), known)
        used = {r for name in found if (r := room(known[name]))}
        assert used - {own} <= allowed(own), (
            f"{name_of(path)} imports {used - {own} - allowed(own)}"
        )


def test_rooms_import_in_no_circle() -> None:
    rooms = {own for path in modules().values() if (own := room(path))} - set(MAPPED)
    assert not circle({own: allowed(own) - set(MAPPED) for own in rooms})


def with_faces(name: str, imported: set[str]) -> set[str]:
    """What importing runs: also the face of each folder that `name` does not lie in."""
    parts = {".".join(m.split(".")[:i]) for m in imported for i in range(2, m.count(".") + 2)}
    return {part for part in parts | imported if not f"{name}.".startswith(f"{part}.")}


def test_files_import_in_no_circle() -> None:
    known = modules()
    edges = {
        name: with_faces(name, imports(at_import(path), known)) & set(known)
        for name, path in known.items()
    }
    assert not circle(edges)


def test_kernels_import_nothing_of_the_package() -> None:
    known = modules()
    for path in (path for path in known.values() if room(path) == "kernels"):
        used = imports(ast.parse(path.read_text()), known)
        assert all(name.startswith("spacetime.kernels") for name in used), name_of(path)


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    counts = Counter(path.parent for path in modules().values())
    del counts[ROOT / "benchmarks"]
    assert max(counts.values()) <= MOST_FILES, counts.most_common(3)
    rooms = {own for path in modules().values() if (own := room(path))} - set(MAPPED)
    assert len(rooms) <= 20
    files = [p for p in sources("") if p.parent == ROOT / "spacetime"]
    assert len(files) <= 10, files


def test_a_face_holds_no_logic() -> None:
    for path in modules().values():
        if path.name != "__init__.py" or path.parent == ROOT / "spacetime":
            continue
        if module_of(path).split(".")[1] in MAPPED:
            continue
        for node in ast.parse(path.read_text()).body:
            plain = ast.Expr | ast.Import | ast.ImportFrom | ast.Assign
            assert isinstance(node, plain), f"{name_of(path)}, line {node.lineno}"


def test_a_class_name_stands_for_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules().values():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(path))
    double = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert double.keys() <= TWICE, double


def test_a_citation_leads_somewhere() -> None:
    """A section of a file of ours by its number: our pages have headings, and no numbers."""
    for path in sources(".py", ".pyi", ".h", ".cpp", ".cu", ".md"):
        found = CITED.search(path.read_text())
        assert found is None, f"{name_of(path)}: {found and found[0]!r}"


def test_the_formatter_has_its_way() -> None:
    count = sum(path.read_text().count(UNFORMATTED) for path in sources(".py", ".pyi"))
    assert count < MOST_UNFORMATTED


def test_every_folder_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^packages = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert listed
    folders = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == folders


def test_words_with_one_home() -> None:
    homes = {
        r"pybind11": ("csrc/bind/", "setup.py"),
        r"std::j?thread\b": ("csrc/rt/", "csrc/cpu/", "csrc/bind/", "tests/native/"),
        r"\bmatplotlib\b": ("spacetime/plots/", "tests/"),
        r"\bimport click\b": ("spacetime/cli/", "tests/"),
        r"\bimport _native\b|spacetime\._native": (
            "spacetime/devices/",
            "spacetime/models/",
            "spacetime/processes/",
            "spacetime/reports/recording.py",
            "spacetime/session/",
            "spacetime/simulation/simulator.py",
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
    "cpu": {"cpu", "rt"},
    "cuda": {"cuda", "rt"},
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


CPP_DECLARED = re.compile(r"^(?:class|struct|enum class) (\w+)\b(?!::)[^;\n]*$", re.MULTILINE)
DRIVERS_OWN = "csrc/fake/state.h"  # what a driver keeps behind a handle, named as the handle is
PLAIN_C = ("csrc/capi/spacetime.h", "csrc/rt/launch.h")  # C programs include them


def cpp_files() -> dict[Path, str]:
    """The sources and headers of csrc, with the folder that each of them lies in."""
    return {p: p.parent.name for p in sources(".cpp", ".h") if name_of(p).startswith("csrc/")}


def test_cpp_rooms_include_each_other_in_no_circle() -> None:
    assert set(CPP_ROOMS) == set(cpp_files().values())
    assert not circle({own: used - {own} for own, used in CPP_ROOMS.items()})


def test_cpp_namespaces_follow_folders() -> None:
    for path, own in cpp_files().items():
        opened = set(re.findall(r"^namespace (st\b[\w:]*)", path.read_text(), re.MULTILINE))
        assert opened <= {f"st::{own}"} - {"st::bind"}, f"{name_of(path)} opens {opened}"
        declares = path.suffix == ".h" and CPP_DECLARED.search(path.read_text())
        if declares and own != "bind" and name_of(path) not in PLAIN_C:
            assert opened, f"{name_of(path)} declares outside a namespace"


def test_the_fake_includes_only_the_drivers_interface() -> None:
    for path, own in cpp_files().items():
        if own == "fake":
            used = set(re.findall(r'#include "cuda/(\w+)', path.read_text()))
            assert used <= {"abi", "entries", "driver"}, name_of(path)


def test_a_cpp_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path in cpp_files():
        if path.suffix == ".h" and name_of(path) != DRIVERS_OWN:
            for declared in CPP_DECLARED.findall(path.read_text()):
                places.setdefault(declared, []).append(name_of(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_test_sleeps() -> None:
    for path in sources(".py"):
        if name_of(path).startswith("tests/"):
            assert SLEEP not in path.read_text(), name_of(path)


def test_importing_is_light() -> None:
    heavy = "{'torch', 'cupy', 'numpy', 'matplotlib', 'click', 'msgspec', 'yaml'}"
    code = f"import sys, spacetime; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
