"""Our way for one layer: a super-kernel over slots, in every configuration worth timing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import torch

from spacetime.benchmarks.gpu.rig import Launch
from spacetime.benchmarks.gpu.ways import Case
from spacetime.kernels.convolution import convolve_grouped
from spacetime.kernels.linear import linear_batched

PRECISIONS = {"fp32": ("ieee", "tf32x3"), "tf32": ("tf32",), "bf16": ("ieee",)}


def super_kernels(case: Case, *, most: int) -> Iterator[tuple[str, Launch]]:
    """Launches of at most so many configurations for each way to multiply, by name."""
    rows = torch.arange(case.tenants, device=case.x.device)
    if case.x.device.type == "cpu":  # a dry run: the CPU's super-kernels take the same arguments
        yield "the CPU's", _on_cpu(case, rows)
        return
    for precision in PRECISIONS[case.precision]:
        for config in _configs(case, precision, most):
            options = {"precision": precision, "config": config}
            yield f"{precision} {_words(config)}", _launch(case, rows, options)


def _launch(case: Case, rows: torch.Tensor, options: dict[str, Any]) -> Launch:
    run, problem = torch.tensor(0), case.problem
    if not problem.convolves:
        return partial(
            _triton("linear").linear_triton, rows, run, case.x, case.weight, None, **options
        )
    x = case.x.contiguous(memory_format=torch.channels_last)
    weight = case.weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    window = {"padding": (problem.padding,), "groups": problem.groups}
    return partial(
        _triton("convolution").convolve_triton, rows, run, x, weight, None, **window, **options
    )


def _configs(case: Case, precision: str, most: int) -> tuple[Any, ...]:
    layer = case.problem
    if layer.groups > 1:
        return (None,)  # a depthwise convolution's best guess
    facts = torch.cuda.get_device_properties(case.x.device)
    configs = _triton("configs")
    sized = configs.Problem(
        slots=case.tenants,
        points=prod(layer.request[1:]) if layer.convolves else layer.request[0],
        outputs=layer.weight[0],
        channels=layer.weight[1],
        taps=prod(layer.weight[2:]),
        itemsize=case.x.element_size(),
        precision=precision,
    )
    capability = 10 * facts.major + facts.minor
    sms = facts.multi_processor_count
    return tuple(configs.candidates(sized, sms=sms, capability=capability, most=most))


def _triton(module: str) -> Any:
    """Imported when asked for: Triton is there only where a device is."""
    return import_module(f"spacetime.kernels.triton.{module}")


def _words(config: Any) -> str:
    if config is None:
        return "as guessed"
    tile = f"{config.block_m}x{config.block_n}x{config.block_k}"
    return f"{tile} warps {config.warps} stages {config.stages} splits {config.splits}"


def _on_cpu(case: Case, rows: torch.Tensor) -> Launch:
    run, problem = torch.tensor(0), case.problem
    if not problem.convolves:
        return partial(linear_batched, rows, run, case.x, case.weight, None)
    pads = [problem.padding] * 2
    return lambda: convolve_grouped(
        rows, run, case.x, case.weight, None, [1, 1], pads, [1, 1], False, [0, 0], problem.groups
    )
