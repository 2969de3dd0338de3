"""What the docs name exists: commands with their options, fields of a workload, calls in C."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import spacetime as st
from spacetime.cli import root
from spacetime.workload.workload import Arrivals, InputSpec, Tenant, Workload

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
PAGES = [page for page in LISTED if page not in {"CHANGELOG.md"} and "decisions" not in page]
ALONE = ["README.md"] + [
    f"docs/{page}.md"
    for page in ["serving", "isolation", "embedding", "sessions", "planning", "recipes", "workload"]
]  # pages whose options, without a command before them, are ours
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)


def code(page: str) -> Iterator[str]:
    """Every line of code of a page, in blocks and between backticks."""
    for block, inline in CODE.findall((ROOT / page).read_text()):
        yield from (block or inline).split("\n")


def commands(page: str) -> Iterator[list[str]]:
    """The words behind each `spacetime` that is a command."""
    for line in code(page):
        for said in re.findall(r"(?:^|[(/]|&& |; )spacetime +([a-z-][^#|;)`]*)", line):
            yield said.replace("[", " ").replace("]", " ").split()


def named(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words behind it. Raises KeyError."""
    command: click.Command = root.cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0].rstrip(",."))
        if found is None:
            raise KeyError(words[0])
        command, words = found, words[1:]
    return command, words


def options(command: click.Command) -> set[str]:
    return {name for each in command.get_params(click.Context(command)) for name in each.opts}


def every_option() -> set[str]:
    """The options of all commands."""
    groups: list[click.Command] = [root.cli]
    found: set[str] = set()
    while groups:
        command = groups.pop()
        found |= options(command)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                one = command.get_command(context, name)
                assert one is not None
                groups.append(one)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_a_command_takes_the_options_it_is_shown_with(page: str) -> None:
    for words in commands(page):
        command, rest = named(words)
        given = {word.split("=")[0].rstrip(",.") for word in rest if word.startswith("--")}
        assert given <= options(command), words


def test_an_option_alone_is_one_of_some_command() -> None:
    known = every_option()
    for page in ALONE:
        alone = {line.split()[0] for line in code(page) if re.match(r"--[a-z]", line)}
        theirs = {"--model-control-mode=explicit", "--shared-memory", "--trace-level"}  # Triton's
        assert alone - theirs <= known, page


def test_the_fields_of_a_workload_that_docs_show_are_read() -> None:
    kinds = (Workload, Tenant, InputSpec, Arrivals)
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    for page in PAGES:
        for block, _ in CODE.findall((ROOT / page).read_text()):
            if "tenants:" in block:
                shown = set(re.findall(r"(\w+):(?= )", block.partition("tenants:")[2]))
                assert shown <= fields, page


def test_the_calls_in_c_that_docs_name_are_declared() -> None:
    header = (ROOT / "csrc" / "capi" / "spacetime.h").read_text()
    text = (ROOT / "docs" / "embedding.md").read_text()
    for name in set(re.findall(r"\b(?:st_\w+|ST_[A-Z]\w+)\b", text)):
        assert re.search(rf"\b{name}\b", header) or name == "st_launch", name


def test_what_docs_call_of_the_package_is_there() -> None:
    for page in PAGES:
        for name in set(re.findall(r"\bst\.([A-Za-z]\w+)", "\n".join(code(page)))):
            assert hasattr(st, name), f"{page}: st.{name}"


WORD = re.compile(r"(?<![\w./~$*{-])(?:[\w.-]+/)+[\w.*-]*|\bspacetime(?:\.[A-Za-z_]\w*)+(?!/)")
ENDING = re.compile(r"\.(?:c|cpp|cu|csv|h|in|json|md|png|py|pyi|sh|toml|txt|yaml)$|/$")
OTHERS = {  # what pages name and the repository does not hold
    "out/",  # what commands write
    "specification/protocol/open_inference_rest.yaml",  # of the protocol's own repository
    "spacetime.audit",  # a logger
    "spacetime.h",
}
OF_THE_PACKAGE = {"spacetime": ROOT / "spacetime"} | {
    f"spacetime.{name}": ROOT / name for name in ("kernels", "benchmarks")
}


def is_file(word: str, page: str) -> bool:
    """Whether a path is there: from the root, in the package, in csrc, or beside the page."""
    places = (ROOT, ROOT / "spacetime", ROOT / "csrc", (ROOT / page).parent)
    return any(any(place.glob(word.rstrip("/"))) for place in places)


def is_module(word: str) -> bool:
    """Whether a dotted name is a module, or a name that a module of the package defines."""
    package = max((name for name in OF_THE_PACKAGE if f"{word}.".startswith(f"{name}.")), key=len)
    place = OF_THE_PACKAGE[package]
    for part in word.removeprefix(package).strip(".").split("."):
        if place.suffix == ".py":
            return re.search(rf"^(?:def |class )?{part}\b", place.read_text(), re.M) is not None
        place = place / part if (place / part).is_dir() else place / f"{part}.py"
        if not place.exists():
            return False
    return True


@pytest.mark.parametrize("page", [page for page in LISTED if page != "CHANGELOG.md"])
def test_the_files_and_modules_that_a_page_names_are_there(page: str) -> None:
    text = re.sub(r"\]\([^)]*\)|https?://\S+|^:::.*", "", (ROOT / page).read_text(), flags=re.M)
    named = {word.rstrip(".,") for word in WORD.findall(text)} - OTHERS
    paths = {word for word in named if "/" in word and ENDING.search(word)}
    assert [path for path in sorted(paths) if not is_file(path, page)] == []
    modules = {word for word in named if "/" not in word}
    assert [module for module in sorted(modules) if not is_module(module)] == []


def test_the_map_has_every_room_and_its_first_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = dict(re.findall(r"^\| [\w ]*\| `(\w+)/` \|.*\| `(\w+\.py)` \|$", text, re.M))
    there = {path.parent.name for path in (ROOT / "spacetime").glob("*/__init__.py")}
    assert set(rooms) == there - {"kernels", "benchmarks"}
    for room, first in rooms.items():
        assert (ROOT / "spacetime" / room / first).exists(), room
    parts = {path.parent.name for path in (ROOT / "csrc").glob("*/*.h")}
    parts |= {path.parent.name for path in (ROOT / "csrc").glob("*/*.cpp")}
    assert set(re.findall(r"^\| `(\w+)/` \|.*\|.*\|$", text, re.M)) == parts
    for name in (path.name for path in (ROOT / "spacetime").glob("*.py") if "__" not in path.name):
        assert f"`{name}`" in text, name


def test_the_papers_that_pages_name_are_cited() -> None:
    cited = (ROOT / "CITATION.cff").read_text()
    for page in ("papers.md", "results.md", "planning.md"):
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", (ROOT / "docs" / page).read_text()):
            assert f"arXiv:{number}" in cited, number


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL),
                          re.MULTILINE)  # fmt: skip
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading)).strip().lower().replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", LISTED)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", [page for page in LISTED if page != "CHANGELOG.md"])
def test_lines_are_narrow(page: str) -> None:
    wide = [line for line in (ROOT / page).read_text().splitlines() if len(line) > 100]
    assert wide == []


def test_every_page_is_found_by_its_reader() -> None:
    listed = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in listed, page.name
