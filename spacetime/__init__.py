"""Many neural networks share one accelerator in space and in time, under latency objectives.

Each name is loaded when it is first used. `import spacetime` loads nothing else, and whoever plans
or simulates needs no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spacetime.version import __version__ as __version__

if TYPE_CHECKING:
    from spacetime.devices import facts as _facts
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
    from spacetime.plan.check import check_plan as check_plan
    from spacetime.plan.options import PlanOptions as PlanOptions
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

    device_facts = _facts.device

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
# The module of each name; behind a colon what the name is called there, where that differs.
_HOME = {
    **dict.fromkeys(_ERRORS, "errors"),
    "CudaFunction": "models.cuda.cuda_function",
    "Fused": "fusion",
    "PlanOptions": "plan.options",
    "PlannedSession": "live.planned_session",
    "Policy": "policy",
    "Recording": "reports.recording",
    "Session": "session.session",
    "Tenant": "session.tenant",
    "WorkloadError": "workload.workload",
    "check_plan": "plan.check",
    "device_facts": "devices.facts:device",
    "fuse": "fusion",
    "mig_shares": "isolation.shares",
    "mps": "isolation.mps",
    "mps_shares": "isolation.shares",
    "planner": "planners.registry",
    "read_plan": "plan.plan_json",
    "read_profiles": "profiles.profile_file",
    "read_workload": "workload.workload_file",
    "replay": "reports.recording",
    "simulate": "simulation.simulator",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spacetime' has no attribute {name!r}")
    home, _, inside = _HOME[name].partition(":")
    module = import_module(f"spacetime.{home}")
    # `mps` is a module itself: its functions read `mps.daemon`, `mps.granted_sms`.
    value = module if home.endswith(f".{name}") else getattr(module, inside or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
