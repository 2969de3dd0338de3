"""Many neural networks share one accelerator in space and in time, under latency objectives.

Names are loaded when first used: planning and simulating need no PyTorch.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from spacetime.version import __version__ as __version__

if TYPE_CHECKING:
    from spacetime.errors import CannotExport as CannotExport
    from spacetime.errors import CannotFuse as CannotFuse
    from spacetime.errors import ClosedError as ClosedError
    from spacetime.errors import DeadlineExceeded as DeadlineExceeded
    from spacetime.errors import DriverError as DriverError
    from spacetime.errors import InfeasibleError as InfeasibleError
    from spacetime.errors import InvalidInput as InvalidInput
    from spacetime.errors import LaneLost as LaneLost
    from spacetime.errors import MigError as MigError
    from spacetime.errors import ModelError as ModelError
    from spacetime.errors import MpsError as MpsError
    from spacetime.errors import OutOfMemory as OutOfMemory
    from spacetime.errors import PlanError as PlanError
    from spacetime.errors import ProfileError as ProfileError
    from spacetime.errors import QueueFull as QueueFull
    from spacetime.errors import RecordingError as RecordingError
    from spacetime.errors import ReplayError as ReplayError
    from spacetime.errors import SpacetimeError as SpacetimeError
    from spacetime.errors import UnsupportedError as UnsupportedError
    from spacetime.fusion import Fused as Fused
    from spacetime.fusion import fuse as fuse
    from spacetime.isolation import mps as mps
    from spacetime.isolation.shares import mig_shares as mig_shares
    from spacetime.isolation.shares import mps_shares as mps_shares
    from spacetime.live.planned_session import PlannedSession as PlannedSession
    from spacetime.models.cuda.cuda_function import CudaFunction as CudaFunction
    from spacetime.plan.check import check as check_plan  # noqa: F401
    from spacetime.plan.plan_json import read_plan as read_plan
    from spacetime.planners.registry import planner as planner
    from spacetime.policy import Policy as Policy
    from spacetime.profiles.profile_file import read_profiles as read_profiles
    from spacetime.reports.recording import Recording as Recording
    from spacetime.reports.recording import replay as replay
    from spacetime.session.session import Session as Session
    from spacetime.session.tenant import Tenant as Tenant
    from spacetime.simulation.simulator import simulate as simulate
    from spacetime.workload.workload import WorkloadError as WorkloadError
    from spacetime.workload.workload_file import read_workload as read_workload

_ERRORS = (
    "CannotExport",
    "CannotFuse",
    "ClosedError",
    "DeadlineExceeded",
    "DriverError",
    "InfeasibleError",
    "InvalidInput",
    "LaneLost",
    "MigError",
    "ModelError",
    "MpsError",
    "OutOfMemory",
    "PlanError",
    "ProfileError",
    "QueueFull",
    "RecordingError",
    "ReplayError",
    "SpacetimeError",
    "UnsupportedError",
)
_HOME = {
    "Policy": "policy",
    "CudaFunction": "models.cuda.cuda_function",
    **dict.fromkeys(_ERRORS, "errors"),
    "WorkloadError": "workload.workload",
    "Fused": "fusion",
    "fuse": "fusion",
    "PlannedSession": "live.planned_session",
    "mig_shares": "isolation.shares",
    "mps_shares": "isolation.shares",
    "planner": "planners.registry",
    "read_plan": "plan.plan_json",
    "read_profiles": "profiles.profile_file",
    "read_workload": "workload.workload_file",
    "Recording": "reports.recording",
    "replay": "reports.recording",
    "Session": "session.session",
    "simulate": "simulation.simulator",
    "Tenant": "session.tenant",
}
_OTHERWISE = {  # modules, and what has another name at home
    "check_plan": "plan.check:check",
    "mps": "isolation.mps",
}
_PLACES = {name: f"{module}:{name}" for name, module in _HOME.items()} | _OTHERWISE
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'spacetime' has no attribute {name!r}")
    value = resolve_name(f"spacetime.{_PLACES[name]}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
