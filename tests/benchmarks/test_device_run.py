"""benchmarks/gpu/run.sh: whatever breaks, the rest runs, and its files and summary tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from spacetime.benchmarks.gpu.run import ahead, goals, script, steps
from spacetime.kernels import triton

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "gpu" / "run.sh"
HANGS = "exec tail -f /dev/null"
STUBBORN = "trap '' TERM; setsid tail -f /dev/null & wait; wait; wait"  # and a session of its own
ALL = [step.name for step in steps.STEPS]
OK = dict.fromkeys(ALL, "ok")
Done = subprocess.CompletedProcess[str]
# Whoever runs the tests may have set these for a device of his own; run.sh sets what it needs.
_BARE = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The files and the output of a whole rehearsal, with the real steps."""
    out = tmp_path_factory.mktemp("rehearsal")
    done = subprocess.run(
        ["bash", str(RUN), "--rehearse", "--out", str(out)],
        env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False,
        timeout=280,
    )  # fmt: skip
    return out, done


class Standing:
    """run.sh with a shell script in the place of the steps' Python, by their arguments."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self._program = folder / "python"
        self._mark = uuid.uuid4().hex

    def start(self, bodies: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
        """bodies: what a step does whose arguments hold these words; others say `fine`."""
        real = f'exec {sys.executable} "$@"'
        cases = [f'  *"{words}"*) {body} ;;' for words, body in bodies.items()]
        text = [
            'case "$*" in',
            f"  *gpu.run.script*) {real} ;;",
            *cases,
            "  *) echo fine ;;",
            "esac",
        ]
        self._program.write_text("\n".join(["#!/bin/bash", *text, ""]))
        self._program.chmod(self._program.stat().st_mode | stat.S_IXUSR)
        return subprocess.Popen(
            ["bash", str(RUN), "--out", str(self.out), *arguments],
            env=_BARE | {"PYTHON": str(self._program), "ST_TEST_MARK": self._mark},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, bodies: dict[str, str], *arguments: str) -> Done:
        """To its end."""
        process = self.start(bodies, *arguments)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def record(self) -> dict[str, Any]:
        """run.json."""
        found: dict[str, Any] = json.loads((self.out / "run.json").read_text())
        return found

    def statuses(self) -> dict[str, str]:
        """What became of each step."""
        return {step["name"]: step["status"] for step in self.record()["steps"]}

    def left(self) -> list[str]:
        """The processes that outlive the run."""
        return [
            " ".join(process.cmdline())
            for process in psutil.process_iter()
            if _marked(process, self._mark)
        ]


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("ST_TEST_MARK") == mark
    except psutil.Error:
        return False


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Standing]:
    """A run whose steps a test chooses; it may leave no process behind."""
    made = Standing(tmp_path)
    yield made
    assert made.left() == []


def test_a_rehearsal_runs_every_step_to_its_end(rehearsal: tuple[Path, Done]) -> None:
    out, done = rehearsal
    assert done.returncode == 0, done.stdout + done.stderr
    told = {step["name"]: step for step in json.loads((out / "run.json").read_text())["steps"]}
    assert [*told] == ALL
    assert {step["status"] for step in told.values()} <= {"ok", "needs a device", "not here"}
    assert told["probes"]["status"] == "needs a device"
    for name in ("partition", "flops", "models", "test-session", "test-mixtures"):
        assert told[name]["status"] == "ok", told[name]


def test_a_run_leaves_at_most_eight_files_and_no_picture(rehearsal: tuple[Path, Done]) -> None:
    out, _ = rehearsal
    found = {path.name for path in out.iterdir()}
    assert found == set(steps.FILES) - {"verify.json"} | ({"verify.json"} & found)
    assert len(steps.FILES) <= 8
    for path in out.glob("*.json"):
        json.loads(path.read_text())
    assert all(json.loads((out / f"{t}.json").read_text())["rows"] for t in
               ("device_flops", "device_models", "partition"))  # fmt: skip


def test_the_summary_ends_the_output_and_judges_every_goal(rehearsal: tuple[Path, Done]) -> None:
    out, done = rehearsal
    said = (out / "summary.txt").read_text()
    assert len(said) < 12_000
    assert done.stdout.endswith(said)
    judged = [line for line in said.splitlines() if line.startswith(tuple(goals.WORDS.values()))]
    assert len(judged) == len(goals.every({}))
    assert all(line.startswith("not measured") for line in judged)  # a rehearsal measures nothing
    assert "a rehearsal measures nothing" in said


def test_limits_fill_the_whole_and_leave_time_for_the_summary() -> None:
    assert steps.RESERVE_S >= 5
    assert steps.WHOLE_S == 500


def test_a_step_that_fails_crashes_or_hangs_stops_none(standing: Standing) -> None:
    bad = {"probes": "crashed", "partition": "limit", "verify": "limit", "flops": "FAILED",
           "mps": "not here"}  # fmt: skip
    done = standing.run(
        {"gpu.probes": "kill -SEGV $$", "measured partition": STUBBORN, "measured verify": HANGS,
         "measured flops": "echo no luck; exit 1", "gpu.mps": "exit 4"},
        "--seconds", "25", "--only", *bad, "test-kernels",
    )  # fmt: skip
    assert done.returncode == 1
    assert standing.statuses() == bad | {"environment": "ok", "test-kernels": "ok"}
    said = {step["name"]: step["last"] for step in standing.record()["steps"]}
    assert "SIGSEGV" in said["probes"]
    assert said["flops"] == "no luck"
    for name, status in bad.items():
        assert f"{name:<16} {status}" in done.stdout
    assert "== verify:" in (standing.out / "log.txt").read_text()


def test_a_good_run_ends_with_0(standing: Standing) -> None:
    done = standing.run({"gpu.mps": "exit 4"})
    assert done.returncode == 0
    assert standing.statuses() == OK | {"mps": "not here"}


def test_every_step_has_its_surroundings(standing: Standing) -> None:
    show = 'echo "$CUDA_DEVICE_MAX_CONNECTIONS ${CUDA_MODULE_LOADING:-lazily} $PATH"'
    standing.run({"gpu.probes": show, "-m pytest": show}, "--only", "probes", "test-session")
    _, probes, test = (step["last"] for step in standing.record()["steps"])
    assert (probes.split()[:2], test.split()[:2]) == (["32", "lazily"], ["32", "EAGER"])
    assert "/usr/local/nvidia/bin" in probes


def test_without_a_device_every_step_that_needs_one_says_so(standing: Standing) -> None:
    no_driver = "echo 'build: 9 s; no driver: libcuda.so.1; 2 cores'; exit 3"
    done = standing.run({"measured environment": no_driver})
    assert done.returncode == 3
    assert standing.statuses() == dict.fromkeys(ALL, "needs a device") | {"compile": "ok"}
    assert "no driver: libcuda.so.1" in done.stdout


def test_sigterm_in_the_middle_leaves_whole_files_and_no_process(standing: Standing) -> None:
    rows = json.dumps({"rows": []})
    begun = {"measured partition": f"echo '{rows}' > {standing.out}/partition.json; {STUBBORN}"}
    process = standing.start(begun)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("== partition"):
            break
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    statuses = standing.statuses()
    assert statuses["probes"] == "ok"
    assert statuses["partition"] == "interrupted"
    assert {statuses[name] for name in ALL[4:]} == {"not run"}
    assert len(standing.record()["goals"]) == len(goals.every({}))
    assert "partition        interrupted" in said
    for path in standing.out.glob("*.json"):
        json.loads(path.read_text())


def test_only_runs_what_is_asked_and_keeps_the_rest(standing: Standing) -> None:
    standing.run({"measured flops": "exit 1"})
    done = standing.run({}, "--only", "flops", "--only", "tests")
    assert done.returncode == 0
    assert standing.statuses() == OK
    log = (standing.out / "log.txt").read_text()
    assert log.count("== flops:") == 2
    assert log.count("== test-kernels:") == 2
    assert log.count("== models:") == 1


def test_a_new_run_keeps_nothing_of_an_old_one(standing: Standing) -> None:
    standing.out.mkdir()
    (standing.out / "device_flops.json").write_text('{"rows": [], "goals": []}')
    (standing.out / "run.json").write_text("{ no JSON")
    standing.run({}, "--only", "probes")
    assert standing.statuses() == {"environment": "ok", "probes": "ok"}
    standing.run({})
    assert not (standing.out / "device_flops.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--out DIR: say where the files go"),
        (("--out",), "expected one argument"),
        (("--out", "{}", "--fast"), "unrecognized arguments: --fast"),
        (("--out", "{}", "--only", "flop"), "--only flop: no such step; one of environment,"),
        (("--out", "{}", "--prepared", "{}/none"), "manifest.json: No such file or directory"),
        (("--out", "{}", "--seconds", "soon"), "invalid float value: 'soon'"),
    ],
)
def test_bad_arguments_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    try:
        status: Any = script.main([word.format(tmp_path) for word in arguments])
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_prepared_is_used(
    tmp_path: Path, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(ahead._examples())  # all of them take minutes
    monkeypatch.setattr(ahead, "_examples", lambda: iter([first]))
    prepared = tmp_path / "prepared"
    assert script.main(["--prepare", str(prepared)]) == 0
    facts = json.loads((prepared / "manifest.json").read_text())
    assert facts["cases"]["models"]["models"] == ["resnet-50"]
    if triton.available:
        assert facts["kernels"]["listed"] > 0
    (prepared / "choices").mkdir()
    (prepared / "choices" / "h200.json").write_text('{"chosen": {"a": "b"}}')
    standing.run(
        {"measured compile": 'echo "from $ST_PREPARED"; ls $XDG_CACHE_HOME/spacetime'},
        "--prepared", str(prepared),
    )  # fmt: skip
    log = (standing.out / "log.txt").read_text()
    assert f"from {prepared}\nh200.json\n" in log
    assert standing.record()["parts"]["choices"] == {"h200.json": {"chosen": {"a": "b"}}}


def test_the_shell_script_is_clean() -> None:
    if (checker := shutil.which("shellcheck")) is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([checker, str(RUN)], check=True)


TESTS = """
import os
def test_good(): pass
def test_bad(): assert "\\x1b" == 0
def test_last(): os._exit(7)
def test_never(): pass
"""


def test_a_test_that_ends_its_process_is_in_the_junit_file(tmp_path: Path) -> None:
    file, junit = tmp_path / "test_it.py", tmp_path / "junit.xml"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider", "-p",
               "spacetime.benchmarks.gpu.run.junit", str(file)]  # fmt: skip
    quiet = {"env": os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, "capture_output": True}
    for group in ("first", "second"):
        done = subprocess.run([*command, f"--device-junit={junit}:{group}"], check=False, **quiet)
        assert done.returncode == 7
    suites = [*ET.parse(junit).getroot()]
    assert [suite.get("name") for suite in suites] == ["first", "second"]
    for suite in suites:
        assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
            "tests": "3", "failures": "1", "errors": "1"
        }  # fmt: skip
        assert [case.get("name") for case in suite] == ["test_good", "test_bad", "test_last"]
        assert not len(suite[0])
