"""A step of run.sh, by its function: python -m spacetime.benchmarks.gpu.run.measured STEP --out DIR

Exit status 3 where the step needs a device and there is none, 4 where it needs something else that
is not here, 1 where it failed. A rehearsal runs the smallest form that needs no device.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.errors import SpacetimeError, UnsupportedError

NO_DEVICE, NOT_HERE = 3, 4
DEVICE = "cuda:0"
SECONDS, PREPARED = "ST_STEP_SECONDS", "ST_PREPARED"  # the time a step has, and the folder


@dataclass(frozen=True, slots=True)
class StepSetting:
    """Where a step writes, and how long it may begin new work."""

    out: Path
    scratch: Path
    rehearse: bool
    budget_s: float

    def fold(self, name: str, facts: dict[str, Any]) -> None:
        """Writes a part of run.json."""
        replace_text(self.scratch / name, json.dumps(facts, indent=1) + "\n")


class NeedsDevice(UnsupportedError):
    """Nothing here stands in for one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a step; its status."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.gpu.run.measured")
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # New work is begun until an eighth is left: for what is under way, and the last record.
    budget_s = float(os.environ.get(SECONDS, "60")) * 7 / 8
    try:
        status = STEPS[asked.step](StepSetting(asked.out, asked.scratch, asked.rehearse, budget_s))
    except NeedsDevice as why:
        print(why)
        return NO_DEVICE
    except SpacetimeError as why:
        print(f"{type(why).__name__}: {why}")
        return 1
    return status or 0


def environment(asked: StepSetting) -> int | None:
    """Builds, and meanwhile imports what later steps import, and asks what there is."""
    from spacetime.benchmarks.gpu.run import surroundings  # noqa: PLC0415

    return surroundings.step(
        lambda facts: asked.fold("environment.json", facts), rehearse=asked.rehearse
    )


def compile_ahead(asked: StepSetting) -> int | None:
    """Compiles the kernels that the measurements will launch."""
    from spacetime.benchmarks.gpu.run import ahead  # noqa: PLC0415

    folder = os.environ.get(PREPARED)
    facts = ahead.compile_all(Path(folder) if folder else None)
    asked.fold("compile.json", facts)
    if "refused" in facts:
        print(facts["refused"])
        return NOT_HERE
    told = "{compiled} compiled, {cached} cached, {failures} failed, {processes} processes"
    print(told.format(**facts))
    return 1 if facts["failures"] else None


def probes(asked: StepSetting) -> int | None:
    """Raises NeedsDevice: rehearsed only, since the questions go to the driver itself."""
    raise NeedsDevice("needs a device: the questions are the driver's own")


def partition(asked: StepSetting) -> int | None:
    """Measures the ladder: switching, making, rates."""
    from spacetime.benchmarks import bench_partition  # noqa: PLC0415

    device = "fake:h200" if asked.rehearse else DEVICE
    bench_partition.run(
        device=device, quick=asked.rehearse, out=asked.out, repetitions=5, picture=False
    )
    return None


def verify(asked: StepSetting) -> int | None:
    """Makes the isolation certificate; rehearsed on two cores, where there are two."""
    from spacetime.commands.verify import VerifyCommand, run  # noqa: PLC0415
    from spacetime.verify.certificate import NotIsolated  # noqa: PLC0415

    few = {"rounds": 1, "launches": 5, "probe": ("compute",), "stressor": ("compute",)}
    options: dict[str, Any] = few if asked.rehearse else {"rounds": 2, "launches": 50}
    if asked.rehearse and len(os.sched_getaffinity(0)) < 2:
        raise NeedsDevice("needs a device: one core has no neighbour")
    try:
        device = "cpu" if asked.rehearse else DEVICE
        run(VerifyCommand(device=device, out=asked.out, picture=False, **options))
    except NotIsolated:
        if not asked.rehearse:  # a rehearsal's cores are busy with other things
            raise
    return None


def flops(asked: StepSetting) -> int | None:
    """Measures the paper's figure: conv2_2 in fp32 for every R, then in bf16."""
    from spacetime.benchmarks.gpu import flops as device_flops  # noqa: PLC0415
    from spacetime.benchmarks.gpu.run import ahead  # noqa: PLC0415

    small: dict[str, Any] = {"problems": ("rnn",), "tenants": (2,), "dtypes": ("fp32",)}
    whole = {**ahead.CASES["flops"], "repetitions": 9}
    device_flops.run(
        device=DEVICE, dry_run=asked.rehearse, quick=asked.rehearse, out=asked.out,
        budget_s=asked.budget_s, picture=False, compiled=False,
        **(small if asked.rehearse else whole),
    )  # fmt: skip
    return None


def models(asked: StepSetting) -> int | None:
    """Measures ResNet-50 in bf16, 16 tenants, one bucket."""
    from spacetime.benchmarks.gpu import models as device_models  # noqa: PLC0415
    from spacetime.benchmarks.gpu.run import ahead  # noqa: PLC0415

    small: dict[str, Any] = {"models": ("tiny",), "tenants": (2,), "dtypes": ("fp32",)}
    whole = {**ahead.CASES["models"], "seconds": 2.0, "repetitions": 9}
    device_models.run(
        device=DEVICE, dry_run=asked.rehearse, quick=asked.rehearse, out=asked.out,
        budget_s=asked.budget_s, picture=False, search=False,
        **(small if asked.rehearse else whole),
    )  # fmt: skip
    return None


STEPS: dict[str, Callable[[StepSetting], int | None]] = {
    "environment": environment,
    "compile": compile_ahead,
    "probes": probes,
    "partition": partition,
    "verify": verify,
    "flops": flops,
    "models": models,
}


if __name__ == "__main__":
    sys.exit(main())
