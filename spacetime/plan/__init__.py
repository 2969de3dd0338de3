"""Plans: what a plan is, whether it holds, how its file reads, and how one becomes the next.

Planners, which make plans, are in `planners/`; `check.py` judges the plans of all of them.

May import: devices, profiles, workload.
Start with `plan.py`, what a plan is; `check.py` judges it.
"""

from __future__ import annotations

from spacetime.plan.calmed import calm as calm
from spacetime.plan.check import Violation as Violation
from spacetime.plan.check import check_plan as check_plan
from spacetime.plan.check import require as require
from spacetime.plan.options import Planner as Planner
from spacetime.plan.options import PlanOptions as PlanOptions
from spacetime.plan.plan import Assignment as Assignment
from spacetime.plan.plan import GpuPlan as GpuPlan
from spacetime.plan.plan import PartitionPlan as PartitionPlan
from spacetime.plan.plan import Plan as Plan
from spacetime.plan.plan import Reason as Reason

__all__ = [
    "Assignment",
    "GpuPlan",
    "PartitionPlan",
    "Plan",
    "PlanOptions",
    "Planner",
    "Reason",
    "Violation",
    "calm",
    "check_plan",
    "require",
]
