"""Predicted A100 profiles beside ParvaGPU's measured ones: the error of each model, left out.

    spacetime bench cost [--quick] [--out DIR]

Three constants of the device are fitted: the part of the peak and of the bandwidth it reaches, and
µs to launch a kernel (the artifact runs PyTorch eagerly in fp32 with tf32 products; small batches
wait for launches). Each model is predicted with constants fitted on all others, and again on those
of other families, since a ResNet among them tells much of another. The error of a model is the mean
of |predicted / measured - 1| over all its MIG sizes, batches and processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.studies import cost_plans
from spacetime.benchmarks.studies.architectures import MODELS
from spacetime.devices.facts import A100_80
from spacetime.profiles import cost
from spacetime.profiles.cost import Calibration, Layer
from spacetime.profiles.profile import Point
from spacetime.profiles.profile_file import read_profiles
from spacetime.terminal.progress import track

DTYPE = "tf32"
GOAL = 0.20
FAMILIES = ("resnet", "vgg", "densenet", "mobilenet", "inception", "bert")
PARTS = (0.4, 0.5, 0.6, 0.7, 0.8)  # of the peak, and of the bandwidth
QUICK_PARTS = (0.5, 0.6)
LAUNCH_US = tuple(map(float, range(16, 45, 2)))
Place = tuple[int, int]  # units and batch
Constants = tuple[float, float, float]  # compute, bandwidth, launch_us


@dataclass(frozen=True, slots=True)
class Studied:
    """A model: its launches, its points, and its work in µs by (compute, bandwidth) and place.

    The work is that of one process alone, and what each of several takes.
    """

    name: str
    launches: int
    points: tuple[Point, ...]
    work: Mapping[tuple[float, float], Mapping[Place, tuple[float, float]]]

    def predicted_us(self, point: Point, constants: Constants) -> float:
        """Returns the time of a batch in us, as `cost.latency_us` with `ahead` calculates it."""
        compute, bandwidth, launch_us = constants
        alone, shared = self.work[compute, bandwidth][point.units, point.batch]
        return max(self.launches * launch_us, alone, point.procs * shared)

    def error(self, constants: Constants) -> float:
        """Returns the mean of |predicted / measured - 1| over all points."""
        return fmean(abs(self.predicted_us(p, constants) / measured_us(p) - 1) for p in self.points)


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Fits and predicts, model by model; prints and records it.

    quick: a coarse fit on two sizes of the device. Raises UnsupportedError outside a checkout.
    """
    profiles = read_profiles(record.a100("profiles.csv"))
    parts = QUICK_PARTS if quick else PARTS
    kept = {1, 7} if quick else {1, 2, 3, 4, 7}
    studied = [
        study(name, make(), [p for p in profiles.of(name) if p.units in kept], parts)
        for name, make in track(MODELS.items(), "predicting", quiet=as_json)
    ]
    grid = list(itertools.product(parts, parts, LAUNCH_US))
    errors = {model.name: {c: model.error(c) for c in grid} for model in studied}
    result = record.header("cost", seed=seed, quick=quick, chosen={})
    result["rows"] = [_row(model, errors, grid) for model in studied]
    result["constants"] = fitted(errors, grid, set(errors))
    for of in ("left_out", "family_out"):
        result[f"median_{of}"] = median(row[of] for row in result["rows"])
    if not quick:
        by_name = {model.name: model for model in studied}
        left_out = {row["model"]: row["constants"] for row in result["rows"]}
        result["plans"] = cost_plans.compared(
            profiles, lambda p: by_name[p.model].predicted_us(p, left_out[p.model])
        )
    result["goal"], result["met"] = GOAL, result["median_left_out"] <= GOAL
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="cost")
    return result


def study(
    name: str, layers: Sequence[Layer], points: Sequence[Point], parts: Sequence[float]
) -> Studied:
    """Returns a model's work wherever it was measured, for every pair of parts of the peaks."""
    places = sorted({(p.units, p.batch) for p in points})
    work = {
        (compute, bandwidth): {
            place: _work(layers, place, Calibration(compute, bandwidth)) for place in places
        }
        for compute, bandwidth in itertools.product(parts, parts)
    }
    return Studied(name, sum(layer.count for layer in layers), tuple(points), work)


def _work(layers: Sequence[Layer], place: Place, reached: Calibration) -> tuple[float, float]:
    units, batch = place
    on = cost.granted(A100_80, "mig", units, dtype=DTYPE)

    def total(of: Callable[..., float]) -> float:
        return sum(layer.count * of(layer, batch, on, reached) for layer in layers)

    return total(cost.kernel_us), total(cost.fluid_us)


def measured_us(point: Point) -> float:
    """Returns the time of a batch in us, from its rate: latencies were published in whole ms."""
    return point.batch * point.procs / point.throughput_rps * 1e6


def fitted(
    errors: Mapping[str, Mapping[Constants, float]],
    grid: Sequence[Constants],
    models: Collection[str],
) -> Constants:
    """Returns the constants of the smallest mean error over some models."""
    return min(grid, key=lambda constants: fmean(errors[model][constants] for model in models))


def family(model: str) -> str:
    """Returns the architecture that a model is a size of."""
    return next(name for name in FAMILIES if model.startswith(name))


def _row(
    model: Studied, errors: Mapping[str, Mapping[Constants, float]], grid: Sequence[Constants]
) -> dict[str, Any]:
    fit = partial(fitted, errors, grid)
    without = fit(set(errors) - {model.name})
    strangers = fit({other for other in errors if family(other) != family(model.name)})
    small = [p for p in model.points if p.batch == 1 and p.procs == 1]
    return {
        "model": model.name,
        "family": family(model.name),
        "points": len(model.points),
        "launches": model.launches,
        "constants": without,
        "left_out": errors[model.name][without],
        "family_out": errors[model.name][strangers],
        "batch_one": fmean(abs(model.predicted_us(p, without) / measured_us(p) - 1) for p in small),
        "bias": median(model.predicted_us(p, without) / measured_us(p) - 1 for p in model.points),
        "pairs": [
            (round(measured_us(p) / 1e3, 3), round(model.predicted_us(p, without) / 1e3, 3))
            for p in model.points
        ],
    }


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    yield record.table(
        "A100-80GB, MIG sizes x batches x processes: mean error of predicted latency",
        ("model", "points", "launches", "left out", "its family out", "batch 1 only", "bias",
         "compute, of peak", "bandwidth, of peak", "launch us"),
        [
            (row["model"], row["points"], row["launches"],
             *(f"{row[of]:.0%}" for of in ("left_out", "family_out", "batch_one")),
             f"{row['bias']:+.0%}", *row["constants"])
            for row in result["rows"]
        ],
    )  # fmt: skip
    yield (
        f"median over models: {result['median_left_out']:.1%} left out, "
        f"{result['median_family_out']:.1%} with its family out; goal, at most {GOAL:.0%}: "
        f"{'met' if result['met'] else 'NOT met'}"
    )
    worst = [row["model"] for row in result["rows"] if row["left_out"] > GOAL]
    yield f"above {GOAL:.0%} by themselves: {', '.join(worst) or 'none'}"
    compute, bandwidth, launch_us = result["constants"]
    yield (
        f"fitted on all: {compute:.0%} of the tf32 peak, {bandwidth:.0%} of the bandwidth, "
        f"{launch_us:g} us a launch"
    )
    if "plans" in result:
        yield record.table(
            "ParvaGPU's scenarios planned from predictions, each model left out of the fit",
            ("scenario", "tenants", "devices, measured", "devices, predicted",
             "bounds broken, as measured"),
            [
                (row["scenario"], row["tenants"], *row["devices"].values(),
                 ", ".join(f"{word} {n}" for word, n in row["bounds"].items()) or "nothing")
                for row in result["plans"]
            ],
        )  # fmt: skip
