"""The command line: help at once, one line for every failure, the right exit status."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from spacetime.cli import bench, options, root
from spacetime.commands import demo
from spacetime.errors import InvalidInput, SpacetimeError, UnsupportedError
from spacetime.workload.workload import WorkloadError

MAIN = "from spacetime.cli.root import main; main()"


def spacetime(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


# What a command's options become, where that is another class than the command's name says.
# The option that chooses between two ways is no field of either.
ASKED = {
    "profile": (
        ("profile", "MeasureCommand"),
        ("profile", "PredictCommand"),
        ("profile_import", "ImportCommand"),
    ),
    "simulate": (
        ("simulate", "SimulateCommand"),
        ("simulate_controlled", "SimulateControlledCommand"),
    ),
}
CHOOSES = {
    "simulate": {"controller"},
    "verify": {"private_held", "private_p99", "shared_held", "shared_p99"},
}  # these become its bounds


@pytest.mark.parametrize("name", sorted(set(root.cli.commands) - {"bench", "mig"}))
def test_a_commands_options_are_the_fields_of_what_it_is_asked(name: str) -> None:
    command = root.cli.commands[name]
    taken = {option.name for option in command.params} - CHOOSES.get(name, set())
    fields = [
        field
        for module, kind in ASKED.get(name, ((name, f"{name.title()}Command"),))
        for field in dataclasses.fields(
            getattr(import_module(f"spacetime.commands.{module}"), kind)
        )
    ]
    names = {field.name for field in fields}
    assert taken <= names, taken - names
    by_hand = {field.name for field in fields if field.default is not dataclasses.MISSING}
    assert names - taken <= by_hand, names - taken


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spacetime.cli.root import main\nsys.argv = ['spacetime', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'rich', 'matplotlib', 'transformers', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("demo", "bench", "doctor"))


@pytest.mark.parametrize("name", sorted(root.cli.commands))
def test_the_help_of_a_command_loads_no_command(name: str) -> None:
    code = (
        "import sys\nfrom spacetime.cli.root import cli\n"
        f"cli.main([{name!r}, '--help'], standalone_mode=False)\n"
        "assert not [module for module in sys.modules if module.startswith('spacetime.commands')]\n"
        "assert not {'torch', 'numpy', 'rich', 'yaml'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("demo", "--tenants", "0"), "--tenants"),
        (("demo", "--seconds", "nan"), "--seconds"),
        (("demo", "--model", "cats"), "--model"),
        (("demo", "--lod", "2"), "--lod"),
        (("bench", "nothing"), "nothing"),
        (("dmeo",), "dmeo"),
        (("demo", "--out", "/proc/nowhere"), "/proc/nowhere: No such file"),
        (("plan",), "WORKLOAD"),
    ],
)
def test_bad_input_ends_with_2_and_names_it_in_a_line(
    arguments: tuple[str, ...], names: str
) -> None:
    done = spacetime(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("spacetime: ")
    assert names in done.stderr
    assert done.stderr.count("\n") == 1


FILES_OUT = [
    ("plan", "none.yaml", "--profiles", "none.csv", "--out"),
    ("simulate", "none.json", "--workload", "none.yaml", "--profiles", "none.csv", "--timeline"),
    ("profile", "none.yaml", "--device", "cpu", "--out"),
]
FOLDERS_OUT = [
    ("verify", "--out"), ("demo", "--out"), ("run", "none.yaml", "--out"),
    ("compare", "none.csv", "--profiles", "none.csv", "--out"),
    *((*("bench", topic), "--out") for topic in sorted(bench._bench_sources())),
]  # fmt: skip


@pytest.mark.parametrize("words", [*FILES_OUT, *FOLDERS_OUT], ids=lambda words: " ".join(words[:2]))
def test_where_nothing_can_be_written_is_found_out_before_the_run(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    cases = {"file/in/it": "is no folder", "../../../../../../proc/none": "No such file"}
    cases |= {"": "is a folder", "none/in": "is no folder"} if words in FILES_OUT else {
        "file": "is no folder"
    }  # fmt: skip
    for path, says in cases.items():
        done = CliRunner().invoke(root.cli, [*words, str(tmp_path / path)])
        assert done.exit_code == 2, path
        assert f"'{words[-1]}'" in done.output, path
        assert says in " ".join(done.output.split()), path
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    there = tmp_path / "plan.json"
    there.write_text("kept")
    assert options.OUT_FILE.convert(str(there), None, None) == there
    assert there.read_text() == "kept"
    assert options.OUT_FILE.convert("/dev/null", None, None) == Path("/dev/null")
    assert options.OUT.convert(str(tmp_path / "a" / "b"), None, None) == tmp_path / "a" / "b"
    assert [*tmp_path.iterdir()] == [there]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("eye", "slo_ms", "a positive number", "0"), 2),
        (WorkloadError("tenants", "is missing"), 2),
        (UnsupportedError("device 'tpu': this build drives only 'cpu'"), 2),
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), 2),
        (SpacetimeError("something broke"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(demo, "run", fail)
    monkeypatch.setattr(sys, "argv", ["spacetime", "demo"])
    assert root.status() == status
    complaint = capsys.readouterr().err.strip()
    assert complaint.startswith("spacetime: ")
    assert "\n" not in complaint


def test_doctor_says_which_cores_and_whether_the_extension_is_there() -> None:
    shown = CliRunner().invoke(root.cli, ["doctor"])
    assert shown.exit_code == 0
    facts = json.loads(CliRunner().invoke(root.cli, ["doctor", "--json"]).output)
    assert facts["device"] == "cpu"
    assert facts["cores"]
    assert all(name in shown.output for name in facts)


def test_a_benchmarks_keywords_become_options(tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def run(
        *,
        quick: bool,
        out: Path | None,
        as_json: bool,
        rounds: int = 3,
        tenants: Sequence[int] | None = None,
    ) -> None:
        seen.update(quick=quick, out=out, as_json=as_json, rounds=rounds, tenants=tenants)

    command = bench._bench_command("topic", run, "What it measures.")
    assert CliRunner().invoke(command, []).exit_code == 0
    assert seen == {
        "quick": False, "out": None, "as_json": False, "rounds": 3, "tenants": None
    }  # fmt: skip
    arguments = [
        "--quick",
        "--json",
        "--out",
        str(tmp_path),
        "--rounds",
        "5",
        "--tenants",
        "8",
        "--tenants",
        "2",
    ]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert seen == {
        "quick": True, "out": tmp_path, "as_json": True, "rounds": 5, "tenants": (8, 2)
    }  # fmt: skip


def bench_command(*words: str) -> click.Context:
    """The command line after `spacetime bench`, read but not run."""
    group = bench.bench
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), words[0])
    assert command is not None
    return command.make_context(words[0], list(words[1:]))


def test_every_benchmark_is_a_command() -> None:
    for topic in bench._bench_sources():
        seen = bench_command(topic, "--quick", "--json", "--seed", "0").params
        assert (seen["quick"], seen["as_json"], seen["seed"], seen["out"]) == (True, True, 0, None)


RECORDS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").rglob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_made_a_record_is_a_command(path: Path) -> None:
    words = json.loads(path.read_text()).get("command", "spacetime bench scheduler").split()
    assert words[:2] == ["spacetime", "bench"]
    assert bench_command(*words[2:]).params["quick"] is False


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("scheduler", "--requests", "0"), "'--requests': 0"),
        (("plan", "--tenants", "0"), "'--tenants': 0"),
        (("models", "--budget-s", "nan"), "'--budget-s': nan"),
        (("flops", "--seed", "-1"), "'--seed': -1"),
        (("flops", "--problems", "x"), "problems must be one of conv2_2"),
        (("models", "--models", "x"), "models must be one of digits"),
        (("moves", "--ways", "x"), "ways must be one of static"),
        (("agreement", "--policies", "x"), "policies must be one of time-only"),
        (("gpulet", "--turns", "x"), "turns must be one of all, own"),
    ],
)
def test_a_bad_value_for_a_benchmark_is_named(words: tuple[str, ...], field: str) -> None:
    done = CliRunner().invoke(root.cli, ["bench", *words])
    assert done.exit_code == 2 or isinstance(done.exception, InvalidInput)
    assert field in f"{done.output}{done.exception}"


def test_bench_lists_the_topics_there_are() -> None:
    group = bench.bench
    assert isinstance(group, click.Group)
    folder = Path(__file__).parents[2] / "benchmarks"
    topics = {file.stem.removeprefix("bench_") for file in folder.glob("bench_*.py")}
    assert set(group.list_commands(click.Context(group))) == topics
    shown = CliRunner().invoke(root.cli, ["bench", "--help"])
    assert shown.exit_code == 0
    assert all(topic in shown.output for topic in topics)


def commands(group: click.Group, *words: str) -> list[tuple[str, ...]]:
    """Every command there is, by the words that name it."""
    found = [words]
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        inner = isinstance(command, click.Group)
        found += commands(command, *words, name) if inner else [(*words, name)]
    return found


@pytest.mark.parametrize("words", commands(root.cli), ids=lambda words: " ".join(words) or "all")
def test_help_fits_eighty_columns_and_is_not_cut(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(root.cli, [*words, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    assert not [line for line in shown.output.splitlines()[1:] if re.search(r"\w\.\.\.$", line)]


def test_a_reader_that_has_enough_is_no_fault() -> None:
    command = f"{sys.executable} -m spacetime doctor --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
