"""From the MIG instances that exist to those a plan wants: which changes, and what forbids them.

`steps` decides and changes nothing. `carry_out` alone creates and destroys, through the interface
`Nvml`, which the driver's library (nvml.py) and a fake with the same rules (mig_fake.py) both have.
Rules: NVIDIA MIG User Guide; geometry: devices/mig.py.
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
    """A GPU instance with one compute instance of all its slices."""

    id: int
    profile: int  # nvidia-smi's number of the profile, such as 9 for 3g
    start: int  # the instance's first memory slice
    uuid: str  # of the MIG device: what CUDA_VISIBLE_DEVICES names
    pids: tuple[int, ...] = ()  # of the processes that compute on it


@dataclass(frozen=True, slots=True)
class GpuState:
    """One device as it is now."""

    index: int  # in the driver's order
    name: str  # as the driver prints it
    facts: DeviceFacts | None  # None: a device whose MIG profiles are not known here
    mig: bool  # whether MIG mode is on
    pending: bool  # whether MIG mode is on after the device's next reset
    instances: tuple[Instance, ...] = ()
    pids: tuple[int, ...] = ()  # of the processes that compute outside of instances


class Nvml(Protocol):
    """What this package asks of the driver. Every call raises MigError with the driver's code.

    gpu: a device's index in the driver's order.
    """

    def states(self) -> Sequence[GpuState]:
        """Returns every device as it is, in the driver's order."""

    def set_mode(self, gpu: int, *, on: bool) -> bool:
        """Turns MIG mode on or off. Returns False where that comes only with the next reset."""

    def create(self, gpu: int, profile: int, start: int) -> Instance:
        """Creates a GPU instance at a memory slice, with one compute instance of all its slices."""

    def destroy(self, gpu: int, instance: int) -> None:
        """Destroys an instance, by its id, that no process computes on."""


@dataclass(frozen=True, slots=True)
class MigStep:
    """One change of one device. `text` says it in words."""

    do: str  # `enable` (MIG mode), `destroy` or `create` (an instance)
    gpu: int
    instance: int = -1  # the id of the instance to destroy
    profile: int = -1  # nvidia-smi's number of the profile to create
    start: int = -1  # the memory slice to create it at
    text: str = ""


def steps(plan: Plan, states: Sequence[GpuState]) -> list[MigStep]:
    """Returns the changes that bring the devices to the plan, in order; none where it is in place.

    An instance the plan has no use for stays, unless what the plan wants does not fit beside it.
    Raises PlanError for what cannot be done: a device that is missing or of another kind, or a
    process that computes where something has to change.
    """
    return [step for gpu in plan.gpus for step in _of_gpu(plan, gpu, states)]


def placed(plan: Plan, states: Sequence[GpuState]) -> dict[str, Instance]:
    """Returns the instance of each partition of kind mig, by the partition's id.

    Raises PlanError naming a partition whose instance does not exist: the plan is not in place.
    """
    instances: dict[str, Instance] = {}
    for gpu in plan.gpus:
        state = _state(plan, gpu, states)
        for part in _instances(gpu):
            wanted = (_profile(state, part).id, part.start)
            same = [i for i in state.instances if (i.profile, i.start) == wanted]
            if not same:
                raise PlanError(f"partition {part.id}: gpu {gpu.id} has no such instance; apply it")
            instances[part.id] = same[0]
    return instances


def carry_out(todo: Sequence[MigStep], nvml: Nvml) -> Iterator[MigStep]:
    """Does one step after the other, and yields each once it is done.

    Raises MigError at the first that the driver refuses; the steps before stay done.
    """
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
    """Returns the steps that destroy instances of one device, by their ids, or everything.

    Raises PlanError naming the device or id that is not there, or an instance that is in use.
    """
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
    for (profile, start), part in sorted(wanted.items(), key=lambda item: -item[1].units):
        if (profile, start) not in there:
            name = _profile(state, part).name
            text = f"gpu {gpu.id}: create {name} at memory slice {start} for {part.id}"
            yield MigStep("create", gpu.id, profile=profile, start=start, text=text)


def _in_the_way(
    state: GpuState, parts: Sequence[PartitionPlan], others: Sequence[Instance]
) -> Sequence[Instance]:
    """Returns those of `others` that leave no room for the plan.

    They are the ones whose memory slices the plan takes; all of them where the compute slices of
    the rest would still be too many.
    """
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
    profile = next((row for row in rows if row.id == number), None)
    if profile is None:
        raise PlanError(f"gpu {state.index}: MIG profile {number} of {state.name} is not known")
    return profile


def _mask(profile: MigProfile, start: int) -> int:
    return ((1 << profile.shape.memory) - 1) << start


def _who(pids: Sequence[int]) -> str:
    return f"processes {', '.join(map(str, pids))}"
