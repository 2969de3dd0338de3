"""Our way for one layer: all that a session's tuner would time for it, on the case's operands."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import nn

from spacetime.benchmarks.flops.problems import LayerProblem
from spacetime.benchmarks.gpu.rig import Launch
from spacetime.benchmarks.gpu.ways import DeviceCase
from spacetime.fusion import SlotGraph, placed, slot_graph
from spacetime.fusion.choice.operation import SlotOperation
from spacetime.fusion.choice.super_kernels import ways

NO_RUN = torch.tensor(-1)  # as in a session: nothing is known of the rows before they are there


def launches(case: DeviceCase) -> Iterator[tuple[str, Launch]]:
    """Yields launches with their names; a tenant's weight is the row of its number."""
    device = case.x.device
    graph = _graph(case.problem, case.x.dtype)
    (operation,) = (
        part for part in placed(graph, device).modules() if isinstance(part, SlotOperation)
    )
    rows, x, weight = torch.arange(case.tenants, device=device), case.x, case.weight
    if case.problem.convolves:  # as a layer before it would have left it
        x = x.contiguous(memory_format=torch.channels_last)
    if graph.plain.weights[0].channels_last:
        weight = weight.permute(0, 1, 3, 4, 2).contiguous().movedim(4, 2)
    args = (rows, NO_RUN, x, weight, None)
    kernels = operation.implementations
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        capability = 10 * facts.major + facts.minor
        kernels = ways(operation, args, sms=facts.multi_processor_count, capability=capability)
    for name, kernel in kernels.items():
        yield name, partial(kernel, *args)


def layer_of(problem: LayerProblem) -> nn.Module:
    """Returns a model of this layer and nothing else."""
    if problem.convolves:
        outputs, _, window, _ = problem.weight
        return nn.Conv2d(
            problem.request[0], outputs, window,
            padding=problem.padding, groups=problem.groups, bias=False,
        ).eval()  # fmt: skip
    outputs, inputs = problem.weight
    return nn.Linear(inputs, outputs, bias=False).eval()


@cache
def _graph(problem: LayerProblem, dtype: torch.dtype) -> SlotGraph:
    """Returns the layer as a session takes in a model of nothing else."""
    layer = layer_of(problem).to(dtype)
    x = torch.randn(2, *problem.request).to(dtype)
    return slot_graph(layer, [layer.state_dict()], example_inputs=(x,))
