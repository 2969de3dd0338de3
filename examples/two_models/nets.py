"""Two small models, as a workload names them: functions without arguments that return a module."""

from torch import nn


def small() -> nn.Module:
    """Scores `[N, 10]` of inputs `[N, 64]`; 19 thousand weights."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def large() -> nn.Module:
    """The same of 154 thousand weights."""
    return nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 10))
