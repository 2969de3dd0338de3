"""From the MIG instances that exist to those a plan wants: what to do, what stands in the way.

Pure: `steps` decides and `carry_out` does, through the narrow interface `Nvml`, which the driver's
library (nvml.py) and a fake with the same rules (mig_fake.py) both have. Nothing is created or
destroyed but by `carry_out`. Rules: NVIDIA MIG User Guide; geometry: mig.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from spacetime.devices.facts import DeviceFacts
from spacetime.devices.mig import COMPUTE_SLICES, MigProfile
from spacetime.errors import MigError, PlanError
from spacetime.plan import GpuPlan, PartitionPlan, Plan


@dataclass(frozen=True, slots=True)
class Instance:
    """A GPU instance with one compute instance of all of it, and who computes on it."""

    id: int
    profile: int  # nvidia-smi's number, such as 9 of 3g
    start: int  # its first memory slice
    uuid: str  # of the MIG device: what CUDA_VISIBLE_DEVICES names
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuState:
    """One device as it is: `mig` tells the mode, `pending` the mode after its next reset."""

    index: int
    name: str  # as the driver prints it
    facts: DeviceFacts | None  # None: a device whose MIG profiles are not known here
    mig: bool
    pending: bool
    instances: tuple[Instance, ...] = ()
    pids: tuple[int, ...] = ()  # clients outside of instances


class Nvml(Protocol):
    """What is asked of the driver. Every call raises MigError with the driver's code."""

    def states(self) -> Sequence[GpuState]:
        """Every device, in the driver's order."""

    def set_mode(self, gpu: int, *, on: bool) -> bool:
        """Whether MIG mode is now as asked; False: only after the device's next reset."""

    def create(self, gpu: int, profile: int, start: int) -> Instance:
        """A GPU instance with one compute instance of all its slices."""

    def destroy(self, gpu: int, instance: int) -> None:
        """Ends an instance that nobody computes on."""


@dataclass(frozen=True, slots=True)
class MigStep:
    """One change: `do` is `enable`, `destroy` or `create`."""

    do: str
    gpu: int
    instance: int = -1  # to destroy
    profile: int = -1  # to create
    start: int = -1
    text: str = ""


def steps(plan: Plan, states: Sequence[GpuState]) -> list[MigStep]:
    """What brings the devices to the plan, in order; nothing where they are there already.

    Instances the plan has no use for stay, unless what it wants does not fit beside them. Raises
    PlanError for what cannot be done: no such device, another device, a client in the way.
    """
    return [step for gpu in plan.gpus for step in _of_gpu(plan, gpu, states)]


def placed(plan: Plan, states: Sequence[GpuState]) -> dict[str, Instance]:
    """The instance of each partition of kind mig, by its id, where the plan is in place."""
    found: dict[str, Instance] = {}
    for gpu in plan.gpus:
        state = _state(plan, gpu, states)
        for part in _instances(gpu):
            wanted = (_profile(state, part).id, part.start)
            same = [i for i in state.instances if (i.profile, i.start) == wanted]
            if not same:
                raise PlanError(f"partition {part.id}: gpu {gpu.id} has no such instance; apply it")
            found[part.id] = same[0]
    return found


def carry_out(todo: Sequence[MigStep], nvml: Nvml) -> Iterator[MigStep]:
    """Does one step after the other, giving each once it is done. Raises MigError at the first
    that the driver refuses; those before stay done."""
    for step in todo:
        if step.do == "enable" and not nvml.set_mode(step.gpu, on=True):
            raise MigError(
                "NVML_ERROR_RESET_REQUIRED",
                f"gpu {step.gpu}: MIG mode comes with its next reset; do `nvidia-smi -i {step.gpu} "
                "-r` when nobody uses it, then apply again",
            )
        if step.do == "destroy":
            nvml.destroy(step.gpu, step.instance)
        if step.do == "create":
            nvml.create(step.gpu, step.profile, step.start)
        yield step


def destruction(
    states: Sequence[GpuState], gpu: int, instances: Sequence[int], *, everything: bool
) -> list[MigStep]:
    """Steps that destroy instances of one device, by id or all. Raises PlanError naming the id."""
    state = next((s for s in states if s.index == gpu), None)
    if state is None:
        raise PlanError(f"gpu {gpu}: there is none; there are {[s.index for s in states]}")
    by_id = {instance.id: instance for instance in state.instances}
    wanted = list(by_id) if everything else list(instances)
    for number in wanted:
        if number not in by_id:
            raise PlanError(f"gpu {gpu}: no instance {number}; there are {sorted(by_id)}")
    return [_destroy(state, by_id[number]) for number in wanted]


def _of_gpu(plan: Plan, gpu: GpuPlan, states: Sequence[GpuState]) -> Iterator[MigStep]:
    parts = _instances(gpu)
    if not parts:
        return
    state = _state(plan, gpu, states)
    if not state.mig:
        if state.pids:
            raise PlanError(f"gpu {gpu.id}: MIG mode cannot change while {_who(state.pids)} use it")
        yield MigStep("enable", gpu.id, text=f"gpu {gpu.id}: enable MIG mode")
    wanted = {(_profile(state, part).id, part.start or 0): part for part in parts}
    kept = [i for i in state.instances if (i.profile, i.start) in wanted]
    others = [i for i in state.instances if i not in kept]
    for instance in _in_the_way(state, parts, others):
        yield _destroy(state, instance)
    there = {(i.profile, i.start) for i in kept}
    for (profile, start), part in sorted(wanted.items(), key=lambda each: -each[1].units):
        if (profile, start) not in there:
            name = _profile(state, part).name
            text = f"gpu {gpu.id}: create {name} at memory slice {start} for {part.id}"
            yield MigStep("create", gpu.id, profile=profile, start=start, text=text)


def _in_the_way(
    state: GpuState, parts: Sequence[PartitionPlan], others: Sequence[Instance]
) -> Sequence[Instance]:
    """Those of `others` that leave no room for the plan: by memory slices, else by compute."""
    taken = 0
    for part in parts:
        taken |= _mask(_profile(state, part), part.start or 0)
    profiles = {i.id: _by_number(state, i.profile) for i in others}
    over = [i for i in others if taken & _mask(profiles[i.id], i.start)]
    beside = [i for i in others if i not in over]
    compute = sum(p.units for p in parts) + sum(profiles[i.id].units for i in beside)
    return over if compute <= COMPUTE_SLICES else others


def _destroy(state: GpuState, instance: Instance) -> MigStep:
    name = _by_number(state, instance.profile).name
    text = f"gpu {state.index}: destroy instance {instance.id}, {name} at {instance.start}"
    if instance.pids:
        raise PlanError(f"{text}: {_who(instance.pids)} compute on it; end them first")
    return MigStep("destroy", state.index, instance=instance.id, text=text)


def _instances(gpu: GpuPlan) -> list[PartitionPlan]:
    parts = [part for part in gpu.partitions if part.parent is None]
    foreign = next((part for part in parts if part.kind != "mig"), None)
    if foreign is not None and any(part.kind == "mig" for part in parts):
        raise PlanError(
            f"gpu {gpu.id}: partition {foreign.id} of kind {foreign.kind} beside MIG instances"
        )
    return [part for part in parts if part.kind == "mig"]


def _state(plan: Plan, gpu: GpuPlan, states: Sequence[GpuState]) -> GpuState:
    state = next((s for s in states if s.index == gpu.id), None)
    if state is None:
        raise PlanError(f"gpu {gpu.id}: this machine has {[s.index for s in states]}")
    if state.facts is None or state.facts.name != plan.device.removeprefix("sim:"):
        kind = state.name if state.facts is None else state.facts.name
        raise PlanError(f"gpu {gpu.id}: the plan is for {plan.device}, the device is {kind}")
    return state


def _profile(state: GpuState, part: PartitionPlan) -> MigProfile:
    assert state.facts is not None
    return state.facts.mig_profile(part.units)


def _by_number(state: GpuState, number: int) -> MigProfile:
    rows = () if state.facts is None else state.facts.mig
    found = next((row for row in rows if row.id == number), None)
    if found is None:
        raise PlanError(f"gpu {state.index}: MIG profile {number} of {state.name} is not known")
    return found


def _mask(profile: MigProfile, start: int) -> int:
    return ((1 << profile.shape.memory) - 1) << start


def _who(pids: Sequence[int]) -> str:
    return f"processes {', '.join(map(str, pids))}"
