"""`paris --guard`: PARIS beside homogeneous layouts in the simulator, and the best of them.

PARIS gives the largest requests to the largest size even where a model gains little from it; there
one size of instance everywhere can serve more. Which it is no formula of the paper tells, so each
candidate is simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, PlanOptions
from spacetime.plan.plan import Reason
from spacetime.planners.paris import Paris
from spacetime.planners.paris_baselines import Homogeneous
from spacetime.profiles.profile import Profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.workload.workload import Workload

DRAWS = SimOptions(duration_ns=20 * 10**9, replications=3)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan and the worst tenant's fraction of requests in time, simulated."""

    label: str
    plan: Plan
    worst: float

    def __str__(self) -> str:
        number = len(self.plan.gpus)
        return f"{self.label} on {number} device{'s' * (number > 1)}, {self.worst:.2%} in time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A planner above `plan/`, for it simulates: `paris`, or a homogeneous layout that does better.

    Better is to attain `target` for every tenant, then fewer devices, then a higher worst
    attainment; of equals `paris` is taken. The plan keeps the name of who made it.
    """

    paris: Paris = field(default_factory=Paris)
    target: float = 0.99
    draws: SimOptions = DRAWS
    name: str = "paris"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises the InfeasibleError of `paris` where no candidate has a plan."""
        found = self.candidates(workload, profiles, device, options)
        best = min(found, key=self._rank)
        beside = "; ".join(str(each) for each in found if each is not best) or "no other has a plan"
        why = tuple(
            Reason(tenant.name, f"simulated, {best}; beside it {beside}")
            for tenant in workload.tenants
        )
        return replace(best.plan, reasons=(*best.plan.reasons, *why))

    def candidates(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> tuple[Candidate, ...]:
        """Every plan there is, `paris` first. Raises as `plan`."""
        refused: InfeasibleError | None = None
        found: list[Candidate] = []
        for label, planner in self._planners():
            try:
                plan = planner.plan(workload, profiles, device, options)
            except InfeasibleError as error:
                refused = refused or error
                continue
            attained = simulate_plan(plan, workload, profiles, self.draws).attainments
            found.append(Candidate(label, plan, min(attained.values())))
        if not found:
            assert refused is not None, "a plan or a reason"
            raise refused
        return tuple(found)

    def _planners(self) -> Iterator[tuple[str, Paris | Homogeneous]]:
        yield "paris", self.paris
        for units in mig.SIZES:
            yield f"{units} slices everywhere", Homogeneous(units=units)

    def _rank(self, each: Candidate) -> tuple[bool, int, float]:
        late = each.worst < self.target
        return (late, 0 if late else len(each.plan.gpus), -each.worst)
