"""`bench models --device cuda:0`: whole models of R tenants, launched and under a session's load.

Launches: device time of one request of every tenant, medians of interleaved measurements that find
no weights in the L2. Load: the session in a closed loop, then Poisson arrivals at 80 % of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.loads import closed_loop, open_loop
from spacetime.benchmarks.gpu.contenders import RESNET_50, Ours, rivals, tenants_of
from spacetime.benchmarks.gpu.names import BOUND, OURS, WAYS
from spacetime.benchmarks.gpu.publishing import begun, first_line, judged, publish
from spacetime.benchmarks.gpu.rig import (
    CudaRig,
    DryRig,
    Launch,
    flat,
    interleaved,
    precision,
    rig_of,
    searched,
)
from spacetime.benchmarks.gpu.run import goals
from spacetime.units import SECOND

TENANTS = (16,)
DTYPES = ("bf16", "tf32")
KNOWN_DTYPES = ("bf16", "tf32", "fp32")
WORST = 0.1  # largest error of an answer, as part of the largest one; recorded for each way
OUTSTANDING = 2  # requests each tenant keeps under way in the closed loop
FEW = 3  # measurements of each way while others are still prepared
LOAD = 0.8  # of what the closed loop answered
Row = dict[str, Any]
Measure = Callable[[], float]  # microseconds of one launch


@dataclass(frozen=True, slots=True)
class DeviceEffort:
    """Interleaved measurements of each way, seconds of each load, what to leave out, and when."""

    repetitions: int
    seconds: float
    compiled: bool
    search: bool
    one_bucket: bool
    seed: int
    ends: float  # on the monotonic clock: no further way is begun


def run(
    *,
    device: str,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    models: Sequence[str] | None = None,
    tenants: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    seconds: float = 3.0,
    repetitions: int = 21,
    budget_s: float | None = None,
    compiled: bool = False,
    search: bool = True,
    one_bucket: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    picture: bool = True,
) -> dict[str, Any]:
    """Measures every way for every model, R and precision; prints, writes JSON and a picture.

    seconds: of each load; compiled: with torch.compile's loop, which takes a minute to compile;
    budget_s: cases, and ways, are begun until this much time has passed. search: cuDNN times its
    algorithms for the baselines. one_bucket: the session captures the largest bucket only.
    dry_run: CPU tensors, and a session on a fake device. picture: False where it is drawn later.
    The record is rewritten whenever a row has more to say.
    """
    rig = rig_of(device, dry_run=dry_run)
    ends = time.monotonic() + (budget_s or float("inf"))
    effort = DeviceEffort(
        3 if quick else repetitions,
        0.3 if quick else seconds,
        compiled,
        search,
        one_bucket,
        seed,
        ends,
    )
    record.known("dtypes", dtypes or (), KNOWN_DTYPES)
    chosen = {"models": models, "tenants": tenants, "dtypes": dtypes}
    result = begun(
        "models", rig, device=device, dry_run=dry_run, seed=seed, quick=quick, chosen=chosen
    )
    result |= {"cudnn_search": search, "one_bucket": one_bucket}
    cases = [
        (kind, count, dtype)
        for kind in models or (RESNET_50,)
        for dtype in dtypes or (DTYPES[:1] if quick else DTYPES)
        for count in tenants or TENANTS
    ]
    on = "fake:h200" if dry_run else device
    _measure_all(result, cases, rig, effort, device=on, out=out)
    publish(
        result, goals.models_goals, _tables(result), device=device, out=out, as_json=as_json,
        picture=picture,
    )  # fmt: skip
    return result


def _measure_all(
    result: dict[str, Any],
    cases: Sequence[tuple[str, int, str]],
    rig: CudaRig | DryRig,
    effort: DeviceEffort,
    *,
    device: str,
    out: Path | None,
) -> None:
    """Adds rows of all cases for which there is time, up to one that loses the device."""

    def tell() -> None:
        if out is not None:
            record.save(judged(result, goals.models_goals), out)

    for kind, count, dtype in cases:
        if time.monotonic() > effort.ends:
            result["left_out"].append([kind, count, dtype])
            continue
        operands = torch.bfloat16 if dtype == "bf16" else torch.float32
        row: Row = {"model": kind, "tenants": count, "precision": dtype, "us": {}}
        try:
            held = tenants_of(kind, count, operands, effort.seed)
            result["rows"].append(row | {"error": {}, "refused": {}})
            with rig.current(), precision(dtype):
                _measure(result["rows"][-1], held, rig, effort, device=device, tell=tell)
            rig.forget()
        except RuntimeError as fault:  # the device is lost: every later call fails alike
            result["fault"] = f"{kind}, R={count}, {dtype}: {first_line(fault)}"
            break


def _measure(
    row: Row,
    held: tuple[list[Any], Tensor],
    rig: CudaRig | DryRig,
    effort: DeviceEffort,
    *,
    device: str,
    tell: Callable[[], None],
) -> None:
    """Fills a row with launches and load of one case, and why a way is missing.

    tell: called whenever the row has more to say, so that a limit loses only what it cut off.
    """
    models, x = held
    exact = torch.cat([m.float()(x[i : i + 1].float()).reshape(-1) for i, m in enumerate(models)])
    for model in models:
        model.to(x.dtype)
    kept = CheckedWays({}, row["error"], row["refused"])
    with ExitStack() as stack:
        begin = time.perf_counter()
        try:
            ours = stack.enter_context(
                closing(Ours(device, models, x, one_bucket=effort.one_bucket))
            )
        except Exception as reason:  # the row says why our own way is missing, too
            kept.refused[OURS] = first_line(reason)
        else:
            row["admission_s"] = time.perf_counter() - begin
            kept.add(OURS, partial(_ours_us, ours, rig), lambda: _error(ours.launched(), exact))
            row["serving"] = _load(ours, x, effort)
        tell()
        moved = [_laid(model.to(rig.device), x.dtype) for model in models]
        on_device = _laid(x.to(rig.device), x.dtype)
        with searched(wanted=effort.search):
            for name, make in rivals(moved, on_device, rig, compiled=effort.compiled):
                if time.monotonic() > effort.ends:
                    kept.refused[name] = "left out for want of time"
                    continue
                kept.try_rival(name, make, exact, rig)
                row |= _launches(kept.measures, FEW)  # rough, and there if time ends
                tell()
            row |= _launches(kept.measures, effort.repetitions)


@dataclass(frozen=True, slots=True)
class CheckedWays:
    """The ways that answer rightly, how far each is off, and why the others are missing."""

    measures: dict[str, Measure]
    errors: dict[str, float]
    refused: dict[str, str]

    def add(self, name: str, measure: Measure, error: Callable[[], float]) -> None:
        """Keeps a way whose error is small."""
        largest = error()
        if largest <= WORST:  # not so for a NaN
            self.measures[name], self.errors[name] = measure, largest
        else:
            self.refused[name] = f"its largest error is {largest:.1e} of the largest answer"

    def try_rival(
        self, name: str, make: Callable[[], Launch], exact: Tensor, rig: CudaRig | DryRig
    ) -> None:
        """Prepares a way and keeps it, or the reason why there is none."""
        try:
            launch = make()
        except Exception as reason:  # libraries raise what they like
            self.refused[name] = first_line(reason)
            return
        error = (lambda: 0.0) if name == BOUND else partial(_error_of, launch, exact)
        self.add(name, partial(rig.elapsed_us, launch), error)


def _ours_us(ours: Ours, rig: CudaRig | DryRig) -> float:
    rig.flush()
    wall_us, device_us = ours.launch_us()
    return wall_us if isinstance(rig, DryRig) else device_us  # a fake's time is not comparable


def _laid(held: Any, dtype: torch.dtype) -> Any:
    """Returns a model or images in the layout that suits the precision, as in `ways`."""
    fits = dtype == torch.bfloat16 or torch.backends.cudnn.allow_tf32
    if not fits or (isinstance(held, Tensor) and held.dim() != 4):
        return held
    return held.to(memory_format=torch.channels_last)


def _error_of(launch: Callable[[], Any], exact: Tensor) -> float:
    return _error(launch(), exact)


def _error(answers: Any, exact: Tensor) -> float:
    """Returns the largest difference from fp32 on the CPU, as part of the largest answer."""
    return float((flat(answers).cpu() - exact).abs().max() / exact.abs().max())


def _launches(measures: dict[str, Measure], repetitions: int) -> Row:
    """Returns the median us of every way, interleaved, and what follows from them."""
    times = interleaved(measures, repetitions)
    row: Row = {"us": {name: median(values) for name, values in times.items()}}
    if OURS in measures and len({*measures} - {OURS, BOUND}) > 0:
        row |= {"speedup": goals.speedups(row), "hardest": goals.hardest(row)}
        row |= {"factor": goals.factors(row), "lost_to": goals.losses(row)}
    return row


def _load(ours: Ours, x: Tensor, effort: DeviceEffort) -> Row:
    """Returns the session's answers a second in a closed loop, and its tail at a part of that."""
    pools = [x[i : i + 1] for i in range(len(x))]
    wall_us, device_us = (
        median(t) for t in zip(*(ours.launch_us() for _ in range(9)), strict=True)
    )
    closed = closed_loop(ours, pools, outstanding=OUTSTANDING, seconds=effort.seconds)
    rate_rps = LOAD * closed.throughput_rps
    opened = open_loop(
        ours, pools, rate_rps=rate_rps, slo_ns=SECOND, seconds=effort.seconds, seed=effort.seed
    )
    p50_ms, p99_ms = opened.percentile_ms(50), opened.percentile_ms(99)
    return {
        "fused": ours.fused,
        "wall_us": wall_us,
        "device_us": device_us,
        "closed_rps": closed.throughput_rps,
        "offered_rps": rate_rps,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "p99_over_p50": p99_ms / p50_ms if p50_ms and p99_ms else None,
        "how": ours.session.explain(),
    }


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    ways = [way for way in WAYS if any(way in row["us"] for row in result["rows"])]
    yield record.table(
        f"one request of each tenant on {result['device']}: milliseconds of the device, medians",
        ("model", "R", "dtype", *ways, "over best other", "best other"),
        [
            (
                row["model"],
                row["tenants"],
                row["precision"],
                *(row["us"][way] / 1e3 if way in row["us"] else None for way in ways),
                f"x{row['speedup']['best rival']:.2f}" if "speedup" in row else None,
                row.get("hardest"),
            )
            for row in result["rows"]
        ],
    )
    loads = [(row, row["serving"]) for row in result["rows"] if "serving" in row]
    heads = ("closed loop, answers/s", "offered, requests/s", "p50 ms", "p99 ms", "p99 / p50",
             "a launch, host us", "a launch, device us")  # fmt: skip
    keys = ("closed_rps", "offered_rps", "p50_ms", "p99_ms", "p99_over_p50", "wall_us", "device_us")
    yield record.table(
        f"the session: closed loop, then Poisson arrivals at {LOAD:.0%} of its rate",
        ("model", "R", "dtype", *heads),
        [
            (row["model"], row["tenants"], row["precision"], *(load[key] for key in keys))
            for row, load in loads
        ],
    )
