"""`spacetime profile WORKLOAD`: measures models on an opened device, or predicts for another."""

from __future__ import annotations

import json
from dataclasses import replace
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
from spacetime.models.loading import LiveModel
from spacetime.profiles import cost, profile_file
from spacetime.profiles.monotone import slower_with_units
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_rounds import Round, Rounds
from spacetime.workload import workload_file
from spacetime.workload.workload import Tenant

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
STEPS = 8  # partition sizes predicted where none are given and MIG does not say
MIB = 2**20


def measure(
    *, path: Path, name: str, out: Path, units: tuple[int, ...], batches: tuple[int, ...],
    procs: tuple[int, ...], fused: tuple[int, ...], rounds: int, fresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure what is not in `out` yet, with a progress bar on a terminal, and say what came out.

    Raises what the readers of the files raise, and what admitting a model raises.
    """
    models = profiler.models_of(workload_file.read(path), path.parent)
    device = open_device(name)
    source = "predicted" if device.fake else "measured"  # virtual time is nobody's measurement
    known = Rounds.open(out, facts_name(device), source, enough=rounds, fresh=fresh)
    extent = profiler.Extent(units, batches, procs, fused)
    wanted = profiler.settings(models, device, extent)
    screen = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        total = profiler.missing_rounds(wanted, device, known)
        task = bar.add_task("measuring", total=total)

        def seen(one: Round) -> None:
            place = f"{one.model} {one.kind} {one.units} batch {one.batch} procs {one.procs}"
            bar.update(task, advance=1, description=place)

        notes = profiler.measure(wanted, device, known, seen=seen)
    for note in notes:
        screen.print(f"not measured: {note}", highlight=False, markup=False, soft_wrap=True)
    if not known.points():
        raise UnsupportedError("batches: nothing was measured; give --batches of at least --fused")
    known.write()
    summary = _summary(known.profiles(), out) | _spread(known) | {
        "rounds_measured": total, "rounds_file": str(known.beside), "not_measured": notes,
    }  # fmt: skip
    _say(summary, as_json=as_json)


def _spread(known: Rounds) -> dict[str, Any]:
    """How far apart the rounds of a point are, and how many points smoothing moved."""
    spreads = sorted(known.spread(point.key) for point in known.points())
    raw = {point.key: point.latency_ms for point in known.points()}
    moved = sum(abs(raw[p.key] / p.latency_ms - 1) > 1e-9 for p in known.profiles())
    return {
        "spread": {"median": spreads[len(spreads) // 2], "largest": spreads[-1]},
        "smoothed": moved,
        "slower_with_units": slower_with_units(known.points(), known.noise()),
    }


def predict(
    *, path: Path, name: str, out: Path, units: tuple[int, ...], batches: tuple[int, ...],
    procs: tuple[int, ...], kind: str | None, dtype: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Predict every model of a workload for a device by name; see `cost`.

    Raises UnsupportedError for what the device lacks, or a model without a graph.
    """
    facts = device_file.named(name)
    if not (facts.bandwidth_gbs and facts.clock_mhz and facts.tflops):
        raise UnsupportedError(
            f"{name}: to predict, a device needs bandwidth_gbs, clock_mhz and tflops; add them"
        )
    kind = kind or ("mig" if facts.mig else "mps")
    models = profiler.models_of(workload_file.read(path), path.parent)
    sizes = units or _sizes(facts, kind)
    found: list[Point] = []
    for model, (tenant, live) in models.items():
        extent = profiler.Extent(batches=batches)
        found += _predicted(
            model, tenant, live, facts, kind, units=sizes, procs=procs,
            batches=profiler.batches_of(tenant, extent), dtype=dtype or _dtype(live),
        )  # fmt: skip
    profile_file.write(out, found)
    _say(_summary(Profiles(tuple(found)), out), as_json=as_json)


def _predicted(
    model: str, tenant: Tenant, live: LiveModel, facts: DeviceFacts, kind: str, **points: Any
) -> list[Point]:
    try:
        layers = layers_of(live.module, live.example_inputs)
    except CannotExport as reason:
        raise UnsupportedError(
            f"tenant {tenant.name}: {model} cannot be predicted, its graph is unknown: {reason}"
        ) from None
    tensors = (*live.module.parameters(), *live.module.buffers())
    weights = sum(t.numel() for t in tensors) * cost.BYTES[points["dtype"]] / MIB
    made = cost.points(model, layers, facts, kind, **points)
    return [replace(point, memory_mib=weights or None) for point in made]


def _sizes(facts: DeviceFacts, kind: str) -> tuple[int, ...]:
    """The sizes a kind comes in on this device: MIG's own, or eighths of the whole."""
    whole = facts.whole(kind)
    if kind == "mig":
        return SIZES
    return tuple(sorted({max(1, whole * step // STEPS) for step in range(1, STEPS + 1)}))


def _dtype(live: LiveModel) -> str:
    """The dtype of most of a model's weights; fp32 where it has none that a device rates."""
    sizes: dict[str, int] = {}
    for tensor in live.module.parameters():
        known = DTYPES.get(tensor.dtype, "fp32")
        sizes[known] = sizes.get(known, 0) + tensor.numel()
    return max(sizes, key=lambda known: sizes[known], default="fp32")


def _summary(points: Profiles, out: Path) -> dict[str, Any]:
    return {
        "device": points.device, "points": len(points), "models": list(points.models),
        "kinds": list(points.kinds), "source": sorted({point.source for point in points}),
        "file": str(out),
    }  # fmt: skip


def _say(summary: dict[str, Any], *, as_json: bool) -> None:
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
