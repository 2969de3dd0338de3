"""The ways to launch one layer for R tenants, each as well as PyTorch's own libraries can.

All operands lie ready in the layout that their way likes best, and every way but the two eager
ones is captured as one graph: no way pays for the host. What differs is how the device is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spacetime.benchmarks.flops.problems import LayerProblem
from spacetime.benchmarks.gpu.names import (
    BATCHED,
    BOUND,
    BRANCHES,
    COMPILED,
    GROUPED,
    LOOP,
    SERIAL,
    STREAMS,
    VMAP,
)
from spacetime.benchmarks.gpu.rig import DeviceRig, Launch

MOST_COMPILED = 8  # tenants: compiling a loop takes seconds for each of them


@dataclass(frozen=True, slots=True)
class DeviceCase:
    """R requests `[R, ...]`, as many weights, and where and how precisely they are computed."""

    problem: LayerProblem
    x: Tensor
    weight: Tensor
    precision: str
    rig: DeviceRig

    @property
    def tenants(self) -> int:
        """How many tenants there are: R."""
        return len(self.weight)

    @property
    def channels_last(self) -> bool:
        """Whether pixels have their channels together, as tensor cores read them."""
        return self.problem.convolves and self.precision != "fp32"

    def laid(self, tensor: Tensor) -> Tensor:
        """Returns a 4-d operand in the layout that suits the precision; others as they are."""
        if tensor.dim() == 4 and self.channels_last:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.contiguous()


def case_of(
    problem: LayerProblem,
    tenants: int,
    precision: str,
    dtype: torch.dtype,
    rig: DeviceRig,
    *,
    seed: int,
) -> DeviceCase:
    """Returns operands drawn from `seed`, scaled so that answers are about 1 in size."""
    draw = torch.Generator(rig.device).manual_seed(seed)
    x = torch.randn(tenants, *problem.request, generator=draw, device=rig.device)
    weight = torch.randn(tenants, *problem.weight, generator=draw, device=rig.device)
    weight /= weight[0, 0].numel() ** 0.5
    return DeviceCase(problem, x.to(dtype), weight.to(dtype), precision, rig)


def baselines(case: DeviceCase, *, compiled: bool) -> Iterator[tuple[str, Callable[[], Launch]]]:
    """Every way but ours: its name, and what prepares it; preparing may raise, as the way may not
    exist for this case."""
    rig, single = case.rig, _singles(case)
    loop = partial(_run_all, single)
    yield LOOP, lambda: loop
    yield SERIAL, lambda: rig.captured(loop)
    yield STREAMS, lambda: rig.forked(single)
    yield BRANCHES, lambda: rig.captured(rig.forked(single))
    yield BATCHED, lambda: rig.captured(_batched(case))
    yield GROUPED, lambda: rig.captured(_grouped(case))
    yield VMAP, lambda: rig.captured(_mapped(case))
    if compiled and case.tenants <= MOST_COMPILED:
        yield COMPILED, lambda: rig.captured(_compiled(case))
    yield BOUND, lambda: rig.captured(_one_batch(case))


def _singles(case: DeviceCase) -> list[Launch]:
    """Returns a launch for each tenant: `[1, ...]` with its weight."""
    pairs = [
        (case.laid(case.x[i : i + 1].clone()), case.laid(case.weight[i].clone()))
        for i in range(case.tenants)
    ]
    return [partial(case.problem.one, x, weight) for x, weight in pairs]


def _run_all(launches: list[Launch]) -> list[Any]:
    return [launch() for launch in launches]


def _batched(case: DeviceCase) -> Launch:
    """Returns one strided batched product; a convolution k x k unfolds its input first."""
    problem, weight = case.problem, case.weight
    if not problem.convolves:
        transposed = weight.transpose(1, 2)
        return lambda: torch.bmm(case.x, transposed)
    if problem.groups > 1:
        raise ValueError("a grouped convolution is no batched product")
    matrices = weight.reshape(case.tenants, weight.shape[1], -1).contiguous()
    size, window = case.x.shape[2:], problem.weight[-1]

    def launch() -> Tensor:
        columns = case.x.flatten(2)
        if window > 1:
            columns = F.unfold(case.x, window, padding=problem.padding)
        return torch.bmm(matrices, columns).view(*matrices.shape[:2], *size)

    return launch


def _grouped(case: DeviceCase) -> Launch:
    """Returns one convolution with the tenants as groups, its operands laid out beforehand."""
    problem = case.problem
    if not problem.convolves:
        raise ValueError("a linear layer is no grouped convolution")
    x = case.laid(case.x.reshape(1, -1, *case.x.shape[2:]))
    weight = case.laid(case.weight.flatten(0, 1))
    groups = case.tenants * problem.groups

    def launch() -> Tensor:
        return F.conv2d(x, weight, padding=problem.padding, groups=groups)

    return launch


def _mapped(case: DeviceCase) -> Launch:
    mapped: Any = torch.func.vmap(case.problem.one)
    x = case.x[:, None]
    return lambda: mapped(x, case.weight)


def _compiled(case: DeviceCase) -> Launch:
    """Returns the loop through torch.compile, compiled for this R."""
    problem = case.problem
    xs = [case.laid(case.x[i : i + 1].clone()) for i in range(case.tenants)]
    weights = [case.laid(case.weight[i].clone()) for i in range(case.tenants)]

    def loop(xs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        return [problem.one(x, weight) for x, weight in zip(xs, weights, strict=True)]

    compiled: Any = torch.compile(loop)
    return lambda: compiled(xs, weights)


def _one_batch(case: DeviceCase) -> Launch:
    """Returns the upper bound: R requests to one model, whose weight is read once."""
    x, weight = case.laid(case.x.clone()), case.laid(case.weight[0].clone())
    return lambda: case.problem.one(x, weight)


def expected(case: DeviceCase) -> Tensor:
    """Returns every tenant's own answer in float64, flattened tenant after tenant."""
    pairs = zip(case.x.double(), case.weight.double(), strict=True)
    return torch.cat([case.problem.one(x[None], weight).reshape(-1) for x, weight in pairs])
