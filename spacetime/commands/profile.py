"""`spacetime profile WORKLOAD`: measures models on an opened device, or predicts for another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from spacetime.devices import device_file
from spacetime.devices.device import open_device
from spacetime.devices.facts import DeviceFacts
from spacetime.devices.mig import SIZES
from spacetime.errors import UnsupportedError
from spacetime.fusion import CannotExport
from spacetime.live import profiler
from spacetime.live.profiler_rig import facts_name
from spacetime.models.layers import layers_of
from spacetime.models.loading import LoadedModel
from spacetime.profiles import cost
from spacetime.profiles.monotone import slower_with_units
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.profiles.profile_rounds import Round, Rounds
from spacetime.workload.workload import Tenant
from spacetime.workload.workload_file import read_workload

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
STEPS = 8  # partition sizes predicted where none are given and MIG does not say
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class MeasureCommand:
    """The options of `spacetime profile --device`."""

    path: Path
    device: str
    out: Path
    units: tuple[int, ...]
    batches: tuple[int, ...]
    procs: tuple[int, ...]
    fused: tuple[int, ...]
    rounds: int
    fresh: bool
    as_json: bool


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """The options of `spacetime profile --predict`, which gives the name of a device."""

    path: Path
    predict: str
    out: Path
    units: tuple[int, ...]
    batches: tuple[int, ...]
    procs: tuple[int, ...]
    kind: str | None
    dtype: str | None
    as_json: bool


def measure(asked: MeasureCommand) -> None:
    """Measure what is not in `out` yet, with a progress bar on a terminal, and say what came out.

    Raises what the readers of the files raise, and what admitting a model raises.
    """
    models = profiler.models_of(read_workload(asked.path), asked.path.parent)
    device = open_device(asked.device)
    source = "predicted" if device.fake else "measured"  # virtual time is nobody's measurement
    rounds = Rounds.open(
        asked.out, facts_name(device), source, enough=asked.rounds, fresh=asked.fresh
    )
    extent = profiler.Extent(asked.units, asked.batches, asked.procs, asked.fused)
    wanted = profiler.settings(models, device, extent)
    screen = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        total = profiler.missing_rounds(wanted, device, rounds)
        task = bar.add_task("measuring", total=total)

        def seen(new: Round) -> None:
            place = f"{new.model} {new.kind} {new.units} batch {new.batch} procs {new.procs}"
            bar.update(task, advance=1, description=place)

        notes = profiler.measure(wanted, device, rounds, seen=seen)
    for note in notes:
        screen.print(f"not measured: {note}", highlight=False, markup=False, soft_wrap=True)
    if not rounds.points():
        raise UnsupportedError("batches: nothing was measured; give --batches of at least --fused")
    rounds.write()
    summary = _summary(rounds.profiles(), asked.out) | _spread(rounds)
    summary |= {
        "rounds_measured": total,
        "rounds_file": str(rounds.beside),
        "not_measured": notes,
    }
    print_profile(summary, as_json=asked.as_json)


def _spread(rounds: Rounds) -> dict[str, Any]:
    """How far apart the rounds of a point are, and how many points smoothing moved."""
    spreads = sorted(rounds.spread(point.key) for point in rounds.points())
    raw = {point.key: point.latency_ms for point in rounds.points()}
    moved = sum(abs(raw[p.key] / p.latency_ms - 1) > 1e-9 for p in rounds.profiles())
    return {
        "spread": {"median": spreads[len(spreads) // 2], "largest": spreads[-1]},
        "smoothed": moved,
        "slower_with_units": slower_with_units(rounds.points(), rounds.noise()),
    }


def predict(asked: PredictCommand) -> None:
    """Predict every model of a workload for a device by name; see `cost`.

    Raises UnsupportedError for what the device lacks, or a model without a graph.
    """
    facts = device_file.device_named(asked.predict)
    if not (facts.bandwidth_gbs and facts.clock_mhz and facts.tflops):
        raise UnsupportedError(
            f"{asked.predict}: to predict, a device needs bandwidth_gbs, clock_mhz and tflops; "
            "add them"
        )
    kind = asked.kind or ("mig" if facts.mig else "mps")
    models = profiler.models_of(read_workload(asked.path), asked.path.parent)
    extent = profiler.Extent(batches=asked.batches)
    points: list[Point] = []
    for model, (tenant, live) in models.items():
        points += _predicted(
            model,
            tenant,
            live,
            facts,
            kind,
            units=asked.units or _sizes(facts, kind),
            procs=asked.procs,
            batches=profiler.batches_of(tenant, extent),
            dtype=asked.dtype or _dtype(live),
        )
    write_profiles(asked.out, points)
    print_profile(_summary(Profiles(tuple(points)), asked.out), as_json=asked.as_json)


def _predicted(
    model: str, tenant: Tenant, live: LoadedModel, facts: DeviceFacts, kind: str, **points: Any
) -> list[Point]:
    try:
        layers = layers_of(live.module, live.example_inputs)
    except CannotExport as reason:
        raise UnsupportedError(
            f"tenant {tenant.name}: {model} cannot be predicted, its graph is unknown: {reason}"
        ) from None
    tensors = (*live.module.parameters(), *live.module.buffers())
    weights = sum(t.numel() for t in tensors) * cost.BYTES[points["dtype"]] / MIB
    predicted = cost.points(model, layers, facts, kind, **points)
    return [replace(point, memory_mib=weights or None) for point in predicted]


def _sizes(facts: DeviceFacts, kind: str) -> tuple[int, ...]:
    """The sizes a kind comes in on this device: MIG's own, or eighths of the whole."""
    whole = facts.whole(kind)
    if kind == "mig":
        return SIZES
    return tuple(sorted({max(1, whole * step // STEPS) for step in range(1, STEPS + 1)}))


def _dtype(live: LoadedModel) -> str:
    """The dtype of most of a model's weights; fp32 where it has none that a device rates."""
    sizes: dict[str, int] = {}
    for tensor in live.module.parameters():
        dtype = DTYPES.get(tensor.dtype, "fp32")
        sizes[dtype] = sizes.get(dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default="fp32")


def _summary(points: Profiles, out: Path) -> dict[str, Any]:
    return {
        "device": points.device, "points": len(points), "models": list(points.models),
        "kinds": list(points.kinds), "source": sorted({point.source for point in points}),
        "file": str(out),
    }  # fmt: skip


def print_profile(summary: dict[str, Any], *, as_json: bool) -> None:
    """What was measured or predicted, in lines or as JSON."""
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    screen = Console()
    screen.print(
        f"{summary['points']:,} points of {len(summary['models'])} models on {summary['device']} "
        f"({' and '.join(summary['source'])}) in {summary['file']}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if "spread" in summary:
        spread = summary["spread"]
        screen.print(
            f"rounds of a point differ by {spread['median']:.0%} (median), {spread['largest']:.0%} "
            f"(most); smoothing moved {summary['smoothed']} of them; every round is in "
            f"{summary['rounds_file']}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for which in summary.get("slower_with_units", ()):
        screen.print(
            f"more units are slower beyond noise, and stay so: {which}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
