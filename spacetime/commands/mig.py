"""`spacetime mig`: lists, checks, applies and destroys; changes nothing without `--yes`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from spacetime.errors import PlanError, UnsupportedError
from spacetime.isolation.mig_control import (
    GpuState,
    Instance,
    MigStep,
    Nvml,
    carry_out,
    destruction,
    placed,
    steps,
)
from spacetime.isolation.mig_fake import FakeNvml
from spacetime.isolation.nvml import open_nvml
from spacetime.plan import Plan, plan_json
from spacetime.terminal.tables import FittedTable

NOTHING = "nothing to do: the plan is in place"
DRY = "dry run: nothing was changed; add --yes to do it"


def opened(on: str) -> Nvml:
    """`driver`, or `fake:NAME` and `fake:NAMExN` for devices that do not exist."""
    if on == "driver":
        return open_nvml()
    asked = re.fullmatch(r"fake:(.+?)(?:x([1-9]\d?))?", on)
    if asked is None:
        raise UnsupportedError(f"--on {on!r:.40}: use 'driver', 'fake:h200-141gb' or 'fake:NAMEx2'")
    return FakeNvml(asked[1], int(asked[2] or 1))


def print_instances(nvml: Nvml, *, as_json: bool) -> None:
    """The devices and their instances."""
    states = nvml.states()
    if as_json:
        print(json.dumps([_told(state) for state in states], indent=2))
        return
    heads = ("gpu", "instance", "device", "MIG", "profile", "start", "UUID", "processes")
    rows = [
        (str(state.index), row[0], state.name, _mode(state), *row[1:])
        for state in states for row in _rows(state)
    ]  # fmt: skip
    words = ("device", "MIG", "profile", "UUID", "processes")
    Console().print(FittedTable(heads, rows, words=words))


def check(nvml: Nvml, path: Path, *, as_json: bool) -> None:
    """What applying the plan would do; raises PlanError where it cannot be done."""
    _announce(steps(_plan(path), nvml.states()), as_json=as_json)


def apply(nvml: Nvml, path: Path, *, yes: bool, as_json: bool) -> None:
    """Brings the devices to the plan, then says each process's environment."""
    plan = _plan(path)
    todo = steps(plan, nvml.states())
    _do(todo, nvml, yes=yes, as_json=as_json)
    if yes or not todo:
        environments = environments_of(placed(plan, nvml.states()))
        if as_json:
            print(json.dumps(environments, indent=2))
        else:
            for partition, variables in environments.items():
                print(f"{partition}: " + " ".join(f"{k}={v}" for k, v in variables.items()))


def destroy(
    nvml: Nvml, gpu: int, instances: Sequence[int], *, everything: bool, yes: bool, as_json: bool
) -> None:
    """Destroys instances of one device, by id or all."""
    if bool(instances) == everything:
        raise UnsupportedError("--id: give the instances to destroy, or --all")
    todo = destruction(nvml.states(), gpu, instances, everything=everything)
    _do(todo, nvml, yes=yes, as_json=as_json)


def environments_of(instances: dict[str, Instance]) -> dict[str, dict[str, str]]:
    """What the process of each partition is started with: it sees its own instance only."""
    return {name: {"CUDA_VISIBLE_DEVICES": instance.uuid} for name, instance in instances.items()}


def _do(todo: Sequence[MigStep], nvml: Nvml, *, yes: bool, as_json: bool) -> None:
    if not yes or not todo:
        _announce(todo, as_json=as_json)
        return
    for step in carry_out(todo, nvml):
        if not as_json:
            print(f"done: {step.text}", flush=True)


def _announce(todo: Sequence[MigStep], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(step) for step in todo], indent=2))
        return
    for step in todo:
        print(step.text)
    print(DRY if todo else NOTHING)


def _plan(path: Path) -> Plan:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as why:
        raise PlanError(f"{path}: cannot be read: {getattr(why, 'strerror', None) or why}") from why
    return plan_json.loads(text, where=str(path))


def _rows(state: GpuState) -> Iterable[tuple[str, ...]]:
    if not state.instances:
        yield ("-", "-", "-", "-", " ".join(map(str, state.pids)))
    for i in state.instances:
        pids = " ".join(map(str, i.pids))
        yield (str(i.id), _name(state, i), str(i.start), i.uuid, pids)


def _told(state: GpuState) -> dict[str, object]:
    return {
        "gpu": state.index, "device": state.name, "mig": state.mig, "pending": state.pending,
        "processes": list(state.pids),
        "instances": [asdict(i) | {"name": _name(state, i)} for i in state.instances],
    }  # fmt: skip


def _name(state: GpuState, instance: Instance) -> str:
    rows = state.facts.mig if state.facts else ()
    return next((row.name for row in rows if row.id == instance.profile), str(instance.profile))


def _mode(state: GpuState) -> str:
    now = "on" if state.mig else "off"
    return now if state.mig == state.pending else f"{now}, {'on' if state.pending else 'off'} next"
