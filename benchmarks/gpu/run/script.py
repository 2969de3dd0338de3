"""All that a machine with one CUDA device can tell, in one call: run.sh is this, its paths set.

Steps run one after another, each in a session of its own and until its place in the schedule ends,
so that none takes another's time. A step that fails, crashes or hangs is named and stops none. What
was found is in files at any moment, also after SIGTERM.
Exit status: 0 all done, 1 a step failed, 2 bad arguments, 3 no device, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.benchmarks.gpu.run import ahead, goals, measured, summary, supervised
from spacetime.benchmarks.gpu.run.steps import (
    FILES,
    RESERVE_S,
    WHOLE_S,
    RunSetting,
    RunStep,
    chosen,
)
from spacetime.errors import SpacetimeError

FORMAT = "spacetime.device-run/1"
STATUSES = {0: "ok", measured.NO_DEVICE: "needs a device", measured.NOT_HERE: "not here"}
FAILED = {"FAILED", "limit", "crashed", "no time"}
PROGRAMS = ("/usr/local/nvidia/bin", "/usr/local/cuda/bin", "/usr/lib/nvidia", "/opt/nvidia/bin")
ROOT = Path(__file__).resolve().parents[3]
LEAST_S = 2.0  # a step with less is not begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prepares or rehearses; the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.out is None and asked.prepare is None:
        parser.error("--out DIR: say where the files go")
    try:
        if asked.prepare is not None:
            print(json.dumps(ahead.prepare(asked.prepare), indent=1))
            if asked.out is None:
                return 0
        if asked.prepared is not None:
            ahead.manifest(asked.prepared)  # before anything runs
        steps = chosen(asked.only)
        asked.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, SpacetimeError) as why:
        print(f"run.sh: {why}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="spacetime-") as scratch:
        setting = RunSetting(asked.out.resolve(), Path(scratch), asked.rehearse)
        run = DeviceRun(setting, asked.prepared, asked.seconds)
        return run.all(steps, fresh=not asked.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go: at most 8")
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="STEP",
        help="these steps, after a build; what DIR holds of the others stays",
    )  # fmt: skip
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="what --prepare made")
    parser.add_argument("--prepare", type=Path, metavar="DIR",
                        help="make there what needs no device")  # fmt: skip
    parser.add_argument("--rehearse", action="store_true",
                        help="every step in its smallest form, without a device")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=WHOLE_S,
                        help="for all of it; limits of steps shrink and grow with it")  # fmt: skip
    return parser


@dataclass(slots=True)
class DeviceRun:
    """What runs, and what is known so far."""

    setting: RunSetting
    prepared: Path | None
    seconds: float
    told: list[dict[str, Any]] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)
    folded: dict[str, Any] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _stopped: int = 0  # the signal that came
    _no_device: str = ""

    def all(self, steps: Sequence[RunStep], *, fresh: bool) -> int:
        """Runs them and says what came of it; the exit status."""
        supervised.adopt_orphans()
        before = {
            number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            self._start(steps, fresh=fresh)
            end = self.begin
            for step in steps:
                # What a step saves is the next one's; what it overran is not the next one's loss.
                end = max(end, time.monotonic()) + step.limit_s * self.seconds / WHOLE_S
                self._run(step, end)
            return self._close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        self._stopped = number

    def _start(self, steps: Sequence[RunStep], *, fresh: bool) -> None:
        """Removes what an earlier run left, but for steps that are not run again."""
        out = self.setting.out
        gone = FILES if fresh else [name for step in steps for name in step.writes]
        for name in gone:
            (out / name).unlink(missing_ok=True)
        if not fresh:
            self._continue(steps)
        if self.prepared is not None:
            ahead.seed_choices(self.prepared, self._cache)
        self._write()

    def _continue(self, steps: Sequence[RunStep]) -> None:
        """Takes over what an earlier run said of the other steps."""
        try:
            earlier = json.loads((self.setting.out / "run.json").read_text(encoding="utf-8"))
            names = {step.name for step in steps}
            self.told = [step for step in earlier["steps"] if step["name"] not in names]
            mine = {step.folded.removesuffix(".json") for step in steps}
            self.folded = {k: v for k, v in earlier["parts"].items() if k not in mine}
        except (OSError, ValueError, KeyError, TypeError):
            return  # there was none

    def _run(self, step: RunStep, end: float) -> None:
        """Runs one step until `end`, its place in the schedule; tells at once what became of it."""
        left = min(end, self.begin + self.seconds * (1 - RESERVE_S / WHOLE_S)) - time.monotonic()
        if self._stopped:
            self._tell(step, "not run", 0, "the run was ended")
        elif step.needs_device and self._no_device:
            self._tell(step, "needs a device", 0, self._no_device)
        elif left < min(LEAST_S, step.limit_s * self.seconds / WHOLE_S / 2):
            self._tell(step, "no time", 0, "the steps before took it")
        else:
            self._told_of(step, self._outcome(step, left))

    def _outcome(self, step: RunStep, left: float) -> supervised.CommandEnd:
        command = [os.environ.get("PYTHON", sys.executable), *step.command(self.setting)]
        log = self.setting.out / "log.txt"
        print(f"== {step.name}: {left:.0f} s", flush=True)
        with log.open("a", encoding="utf-8") as said:
            said.write(f"== {step.name}: {' '.join(command)}\n")
        return supervised.run(
            command, folder=ROOT, environment=self._environment(step, left), limit_s=left, log=log,
            stop=lambda: bool(self._stopped), look=self._fold,
        )  # fmt: skip

    def _environment(self, step: RunStep, left: float) -> dict[str, str]:
        """Returns a step's environment, which the driver reads when it is initialised."""
        path = os.pathsep.join((os.environ.get("PATH", ""), *PROGRAMS))
        added = {
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": str(self._cache.parent),
            measured.SECONDS: f"{left:.1f}",
        }
        if self.prepared is not None:
            added[measured.PREPARED] = str(self.prepared.resolve())
        if step.name.startswith("test-"):
            added["CUDA_MODULE_LOADING"] = "EAGER"  # loading under a latch that spins would hang
            added["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others take seconds to load
        if self.setting.rehearse:
            added["OMP_NUM_THREADS"] = "1"  # beside a team that spins, small work takes seconds
        return {"CUDA_DEVICE_MAX_CONNECTIONS": "32", **os.environ, **added}

    @property
    def _cache(self) -> Path:
        """Where the tuner keeps its choices."""
        return self.setting.scratch / "cache" / "spacetime"

    def _told_of(self, step: RunStep, outcome: supervised.CommandEnd) -> None:
        code = outcome.code
        if code is None:
            status = "interrupted" if self._stopped else "limit"
        elif code < 0:
            status = "crashed"
        else:
            status = STATUSES.get(code, "FAILED")
        last = outcome.last
        if status == "crashed":
            last = f"{signal.Signals(-code).name if code else ''}; {last}"
        if status == "limit":
            last = f"ended at {outcome.seconds:.0f} s; {last}"
        if step.name == "environment" and status == "needs a device":
            self._no_device = last
        self._tell(step, status, outcome.seconds, last)

    def _tell(self, step: RunStep, status: str, seconds: float, last: str) -> None:
        self.told.append({"name": step.name, "status": status, "seconds": round(seconds, 1),
                          "last": last[:500]})  # fmt: skip
        print(f"{step.name}: {status}: {last[: summary.WIDTH]}", flush=True)
        self._fold()
        self._write()

    def _fold(self) -> None:
        """Takes what the steps wrote to the scratch folder into run.json."""
        files = (*self.setting.scratch.glob("*.json"), *self._cache.glob("*.json"))
        changed = [self._fold_one(path) for path in files]
        if any(changed):
            self._write()

    def _fold_one(self, path: Path) -> bool:
        """Whether the file has changed, and is taken."""
        with suppress(OSError, ValueError):  # it is read again the next time
            at = path.stat().st_mtime_ns
            if self._seen.get(path.name) != at:
                part = json.loads(path.read_text(encoding="utf-8"))
                if path.parent == self.setting.scratch:
                    self.folded[path.stem] = part
                else:
                    self.folded.setdefault("choices", {})[path.name] = part
                self._seen[path.name] = at
                return True
        return False

    def _write(self) -> None:
        records = summary.read_records(self.setting.out, self.folded)
        record = {"format": FORMAT, "rehearsed": self.setting.rehearse, "steps": self.told}
        record |= {"goals": goals.told(goals.every({} if self.setting.rehearse else records))}
        record |= {"seconds": round(time.monotonic() - self.begin, 1), "parts": self.folded}
        replace_text(self.setting.out / "run.json", json.dumps(record, indent=1) + "\n")

    def _close(self) -> int:
        records = summary.read_records(self.setting.out, self.folded)
        text = summary.text(self.told, records, rehearsed=self.setting.rehearse)
        replace_text(self.setting.out / "summary.txt", text + "\n")
        print(f"\n{text}", flush=True)
        if self._stopped:
            return 128 + self._stopped
        statuses = {step["status"] for step in self.told}
        if statuses & FAILED:
            return 1
        return measured.NO_DEVICE if self._no_device else 0


if __name__ == "__main__":
    sys.exit(main())
