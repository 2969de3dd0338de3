"""Planners: from profiles, rates and objectives to partitions, batches and routes. No I/O.

Every planner is a pure function behind one Protocol, `check` judges the plans of all.
"""

from __future__ import annotations

from spacetime.plan.calmed import calm as calm
from spacetime.plan.check import Violation as Violation
from spacetime.plan.check import check as check
from spacetime.plan.check import require as require
from spacetime.plan.options import PLANNERS as PLANNERS
from spacetime.plan.options import Planner as Planner
from spacetime.plan.options import PlanOptions as PlanOptions
from spacetime.plan.options import planner as planner
from spacetime.plan.plan import Assignment as Assignment
from spacetime.plan.plan import GpuPlan as GpuPlan
from spacetime.plan.plan import PartitionPlan as PartitionPlan
from spacetime.plan.plan import Plan as Plan
from spacetime.plan.plan import Reason as Reason

__all__ = [
    "PLANNERS", "Assignment", "GpuPlan", "PartitionPlan", "Plan", "PlanOptions", "Planner",
    "Reason", "Violation", "calm", "check", "planner", "require",
]  # fmt: skip
