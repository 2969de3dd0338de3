"""Many neural networks share one accelerator in space and in time, under latency objectives.

Names are loaded when first used: planning and simulating need no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
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
    from spacetime.live.planned_session import PlannedSession as PlannedSession
    from spacetime.models.cuda.cuda_function import CudaFunction as CudaFunction
    from spacetime.policy import Policy as Policy
    from spacetime.reports.recording import Recording as Recording
    from spacetime.reports.recording import replay as replay
    from spacetime.session.session import Session as Session
    from spacetime.session.tenant import Tenant as Tenant
    from spacetime.simulation.simulator import simulate as simulate
    from spacetime.workload.workload import WorkloadError as WorkloadError

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
    "Recording": "reports.recording",
    "replay": "reports.recording",
    "Session": "session.session",
    "simulate": "simulation.simulator",
    "Tenant": "session.tenant",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spacetime' has no attribute {name!r}")
    value = getattr(import_module(f"spacetime.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
