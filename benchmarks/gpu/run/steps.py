"""The steps of run.sh, by worth: what each runs, for how long, and which files it writes.

Limits are seconds of 500; they sum up to the whole but for what the summary needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

WHOLE_S = 500.0
GPU = "spacetime.benchmarks.gpu"
# Each group is a process of its own, so that a fault of the device ends one of them only.
TESTS: dict[str, tuple[str, ...]] = {
    "session": ("tests/gpu/test_session_cuda.py", "tests/gpu/test_tools.py"),
    "backend": ("tests/backend", "-k", "cuda:0"),
    "partitions": ("tests/gpu/test_partitions.py", "tests/gpu/test_graphs.py"),
    "kernels": ("tests/gpu/test_kernels_device.py",),
    "mixtures": ("tests/gpu/test_mixtures.py",),
}
REHEARSED_TESTS = ("tests/backend/test_native_function.py", "-k", "fake")
JUNIT = "junit.xml"


@dataclass(frozen=True, slots=True)
class RunSetting:
    """Where a run's files go, and how it runs. `scratch` is gone afterwards."""

    out: Path
    scratch: Path
    rehearse: bool = False

    def measured(self, step: str) -> list[str]:
        """Returns the command of a step that is a function of `measured`."""
        command = ["-m", f"{GPU}.run.measured", step, "--out", str(self.out)]
        command += ["--scratch", str(self.scratch)]
        return command + ["--rehearse"] * self.rehearse


Arguments = list[str]  # of Python


@dataclass(frozen=True, slots=True)
class RunStep:
    """A command under a limit. writes: its files in `out`, removed before it runs; folded: its file
    in `scratch`, which becomes a part of run.json."""

    name: str
    limit_s: float
    command: Callable[[RunSetting], Arguments]
    writes: tuple[str, ...] = ()
    folded: str = ""
    needs_device: bool = True


def _probes(setting: RunSetting) -> Arguments:
    if setting.rehearse:
        return setting.measured("probes")
    return ["-m", f"{GPU}.probes", "--out", str(setting.scratch / "probes.json")]


def _mps(setting: RunSetting) -> Arguments:
    small = ["--dry-run", "--problem", "rnn", "--tenants", "2", "--seconds", "0.05"]
    command = ["-m", f"{GPU}.mps", "--out", str(setting.scratch / "mps.json")]
    return command + small * setting.rehearse


def _tests(group: str) -> Callable[[RunSetting], Arguments]:
    def command(setting: RunSetting) -> Arguments:
        # A test that waits in Python for what never comes fails, and the others run; one that
        # waits for the device in native code is ended with its group, at the step's limit.
        options = ["-vv", "--tb=short", "-p", "pytest_timeout"]  # pyproject.toml has -q
        options += ["--timeout=30", "--timeout-method=signal"]
        plugin = ["-p", f"{GPU}.run.junit", f"--device-junit={setting.out / JUNIT}:{group}"]
        marks = "not slow and not gpu" if setting.rehearse else "gpu and not slow"
        files = REHEARSED_TESTS if setting.rehearse else TESTS[group]
        return ["-m", "pytest", *options, *plugin, "-p", "no:cacheprovider", "-m", marks, *files]

    return command


def _tests_step(group: str, limit_s: float) -> RunStep:
    return RunStep(f"test-{group}", limit_s, _tests(group))


STEPS: tuple[RunStep, ...] = (
    RunStep("environment", 60, lambda s: s.measured("environment"), folded="environment.json",
         needs_device=False),
    RunStep("compile", 25, lambda s: s.measured("compile"), folded="compile.json",
         needs_device=False),
    RunStep("probes", 30, _probes, folded="probes.json"),
    RunStep("partition", 25, lambda s: s.measured("partition"), writes=("partition.json",)),
    RunStep("verify", 35, lambda s: s.measured("verify"), writes=("verify.json",)),
    RunStep("flops", 75, lambda s: s.measured("flops"), writes=("device_flops.json",)),
    _tests_step("session", 35),
    _tests_step("backend", 20),
    _tests_step("partitions", 25),
    _tests_step("kernels", 15),
    _tests_step("mixtures", 15),
    RunStep("models", 105, lambda s: s.measured("models"), writes=("device_models.json",)),
    RunStep("mps", 25, _mps, folded="mps.json"),
)  # fmt: skip
RESERVE_S = WHOLE_S - sum(step.limit_s for step in STEPS)  # for the summary
FILES = (
    "log.txt", "summary.txt", "run.json", JUNIT,
    *(name for step in STEPS for name in step.writes),
)  # fmt: skip


def chosen(only: Iterable[str]) -> list[RunStep]:
    """Returns the steps that are asked for, all if none is; `tests` stands for every group.

    The first, which builds, always belongs to them: a machine may be fresh, or sources mended.
    Raises ValueError naming what is no step.
    """
    asked = [*only]
    names = [step.name for step in STEPS]
    if wrong := [name for name in asked if name not in {*names, "tests"}]:
        raise ValueError(f"--only {wrong[0]}: no such step; one of {', '.join([*names, 'tests'])}")
    wanted = {*asked, STEPS[0].name}
    tests = "tests" in asked
    return [
        step
        for step in STEPS
        if not asked or step.name in wanted or (tests and step.name.startswith("test-"))
    ]
