"""Planners beside each other on the same scenarios: one checker, one simulator, one clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, PlanOptions, check_plan
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.simulation.plan_report import plan_report, stranded_units
from spacetime.workload.workload import Workload

DEMAND = 0.99  # the attainment a plan is held to in summaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One planner on one scenario; where it `refused`, why, and nothing else is set.

    `attainment` is over all requests, `worst_attainment` that of the tenant served worst, both
    simulated, and None where nobody asks. `idle_units` are held by tenants while nothing ran,
    `stranded_units` are in no partition. `violations`: what the checker found.
    `lower_bound_gpus`: the best bound any planner proved for the scenario.
    """

    scenario: str
    planner: str
    planning_s: float
    refused: str | None = None
    gpus: int | None = None
    lower_bound_gpus: int | None = None
    stranded_units: int | None = None
    idle_units: float | None = None
    attainment: float | None = None
    worst_attainment: float | None = None
    headroom: float | None = None
    violations: tuple[str, ...] = ()

    @property
    def keeps(self) -> bool:
        """Whether it made a sound plan that keeps every tenant's objective in simulation."""
        sound = self.refused is None and not self.violations
        return sound and (self.worst_attainment is None or self.worst_attainment >= DEMAND)


def compare(
    scenarios: Mapping[str, Workload],
    planners: Sequence[str],
    *,
    profiles: Profiles,
    device: DeviceFacts,
    plan_options: PlanOptions | None = None,
    sim_options: SimOptions | None = None,
) -> Iterator[Verdict]:
    """A verdict for each scenario and planner, in that order, a scenario at a time."""
    judge = _Judge(profiles, device, plan_options or PlanOptions(), sim_options)
    for scenario, workload in scenarios.items():
        found = [judge.judge(scenario, name, workload) for name in planners]
        bound = max((each.lower_bound_gpus or 0 for each in found), default=0) or None
        yield from (replace(each, lower_bound_gpus=bound) for each in found)


@dataclass(frozen=True, slots=True)
class _Judge:
    profiles: Profiles
    device: DeviceFacts
    options: PlanOptions
    sim_options: SimOptions | None

    def judge(self, scenario: str, name: str, workload: Workload) -> Verdict:
        begin = time.perf_counter()
        try:
            plan = planner(name).plan(workload, self.profiles, self.device, self.options)
        except InfeasibleError as error:
            seconds = time.perf_counter() - begin
            return Verdict(scenario=scenario, planner=name, planning_s=seconds, refused=str(error))
        seconds = time.perf_counter() - begin
        broken = check_plan(plan, workload, self.profiles, self.device, self.options)
        found = Verdict(
            scenario=scenario, planner=name, planning_s=seconds, gpus=len(plan.gpus),
            lower_bound_gpus=plan.lower_bound_gpus, headroom=plan.headroom,
            stranded_units=stranded_units(plan), violations=tuple(map(str, broken)),
        )  # fmt: skip
        return self.simulated(found, plan, workload)

    def simulated(self, found: Verdict, plan: Plan, workload: Workload) -> Verdict:
        run = simulate_plan(plan, workload, self.profiles, self.sim_options)
        partitions = plan_report(run)["partitions"]
        return replace(
            found,
            idle_units=sum(each["idle_units"] for each in partitions),
            attainment=run.attainment if run.worst else None,
            worst_attainment=run.worst[0] if run.worst else None,
        )
