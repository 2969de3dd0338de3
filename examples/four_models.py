"""What the Python servers serve: four tenants, one small architecture, weights of their own."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

TENANTS = 4
PIXELS = 64
EXAMPLE = torch.zeros(1, 1, 8, 8)
LARGEST_BATCH = 16
CORES = len(os.sched_getaffinity(0))


def model(tenant: int) -> nn.Module:
    """Twelve 3 x 3 convolutions over pictures `[N, 1, 8, 8]`, ten scores `[N, 10]`."""
    torch.manual_seed(tenant)  # stands for this tenant's own training
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()]
    for _ in range(11):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, 10)).eval()


def picture(pixels: list[float]) -> Tensor:
    """One request `[1, 1, 8, 8]` from the numbers in its JSON."""
    return torch.tensor(pixels).view(EXAMPLE.shape)
