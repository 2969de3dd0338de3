"""`bench flops --device cuda:0`: one layer, R tenants, against everything PyTorch's libraries can.

Device time by events, after a write of twice the L2: as in a server, a tenant's weights were last
used a while ago. The eager ways, which are the paper's, and ours are timed by the host too, from
the call to the end. All ways interleaved, A B C A B C; medians count, and every way's answers are
compared with float64 before it is timed. The record is rewritten after each case.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.flops.problems import PROBLEMS
from spacetime.benchmarks.gpu.names import BOUND, EAGER, OURS, STANDS_FOR, WAYS
from spacetime.benchmarks.gpu.ours import launches as offered_by_us
from spacetime.benchmarks.gpu.publishing import begun, first_line, judged, publish
from spacetime.benchmarks.gpu.rig import (
    CudaRig,
    DryRig,
    Launch,
    flat,
    interleaved_us,
    precision,
    rig_of,
    searched,
)
from spacetime.benchmarks.gpu.run import goals
from spacetime.benchmarks.gpu.ways import DeviceCase, baselines, case_of, expected
from spacetime.terminal.progress import track

TENANTS = (2, 4, 8, 16, 32, 64, 120)
QUICK_TENANTS = (2, 16)
NAMED = ("conv2_2", "3x3-128-28", "3x3-512-7", "1x1-64-256-56", "square", "rnn")
DTYPES = ("fp32", "tf32", "bf16")
WORST = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}  # error of the largest answer, to be refused
COMPILED_TENANTS = 8  # the one R that torch.compile's loop is compiled for: seconds a tenant
CALIBRATION = 5  # interleaved measurements to choose among a session's ways
Row = dict[str, Any]


def run(
    *,
    device: str,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    problems: Sequence[str] | None = None,
    tenants: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    repetitions: int = 21,
    budget_s: float | None = None,
    seed: int = 0,
    compiled: bool = True,
    dry_run: bool = False,
    picture: bool = True,
) -> dict[str, Any]:
    """Measures every way for every case; prints tables, writes JSON and a picture to `out`.

    budget_s: cases are begun until this much time has passed; what was left out is recorded.
    compiled: with torch.compile's loop, at one R. dry_run: the same code on CPU tensors. picture:
    False where it is drawn later, from the JSON.
    """
    rig = rig_of(device, dry_run=dry_run)
    repetitions = 3 if quick else repetitions
    cases = _cases(problems, tenants or (QUICK_TENANTS if quick else TENANTS), dtypes, quick=quick)
    chosen = {"problems": problems, "tenants": tenants, "dtypes": dtypes}
    result = begun(
        "flops", rig, device=device, dry_run=dry_run, seed=seed, quick=quick, chosen=chosen
    )
    end = time.monotonic() + (budget_s or float("inf"))
    with rig.current():
        for name, count, dtype in track(cases, "bench flops", quiet=as_json):
            if time.monotonic() > end:
                result["left_out"].append([name, count, dtype])
                continue
            try:
                with precision(dtype) as operands:
                    case = case_of(PROBLEMS[name], count, dtype, operands, rig, seed=seed)
                    row = _row(case, rig, repetitions, compiled=compiled)
                    result["rows"].append(row)
                    del case
                rig.forget()
                if out is not None:
                    record.save(judged(result, goals.flops_goals), out)
            except RuntimeError as fault:  # the device is lost: every later call fails alike
                result["fault"] = f"{name}, R={count}, {dtype}: {first_line(fault)}"
                break
    publish(
        result, goals.flops_goals, _tables(result), device=device, out=out, as_json=as_json,
        picture=picture,
    )  # fmt: skip
    return result


def _cases(
    problems: Sequence[str] | None,
    tenants: Sequence[int],
    dtypes: Sequence[str] | None,
    *,
    quick: bool,
) -> list[tuple[str, int, str]]:
    """Returns the cases, what matters most first since time may run out, problem by problem."""
    names = problems or (NAMED[:2] if quick else NAMED)
    record.known("problems", names, PROBLEMS)
    record.known("dtypes", dtypes or (), DTYPES)
    return [
        (name, count, dtype) for name in names for dtype in dtypes or DTYPES for count in tenants
    ]


def _row(case: DeviceCase, rig: CudaRig | DryRig, repetitions: int, *, compiled: bool) -> Row:
    """Measures one case: us, rate and error of every way, and why a way is missing."""
    exact = expected(case)
    launches: dict[str, Launch] = {}
    errors: dict[str, float] = {}
    refused: dict[str, str] = {}
    compiled = compiled and case.tenants == COMPILED_TENANTS
    with searched():
        for name, make in baselines(case, compiled=compiled):
            _admit(name, make, case, exact, (launches, errors, refused))
    chosen, calibration = _calibrated(case, rig, exact, (launches, errors, refused))
    hosted = {name: launches[name] for name in (*EAGER, OURS) if name in launches}
    with searched():  # the eager ways look up what was found for them
        times = interleaved_us(rig.elapsed_us, launches, repetitions)
        walls = interleaved_us(rig.wall_us, hosted, repetitions)
    us = {name: median(values) for name, values in times.items()}
    flop = case.problem.flop * case.tenants
    row: Row = {
        "problem": case.problem.name,
        "tenants": case.tenants,
        "precision": case.precision,
        "us": us,
        "best_us": {name: min(values) for name, values in times.items()},
        "wall_us": {name: median(values) for name, values in walls.items()},
        "tflops": {name: flop / time_us / 1e6 for name, time_us in us.items()},
        "error": errors,
        "refused": refused,
        "chosen": chosen,
        "calibration_us": calibration,
    }
    if OURS in us:
        row["speedup"] = goals.speedups(row)
        row["hardest"] = goals.hardest(row)
        row |= {"factor": goals.factors(row), "lost_to": goals.losses(row)}
    return row


Held = tuple[dict[str, Launch], dict[str, float], dict[str, str]]


def _admit(name: str, make: Any, case: DeviceCase, exact: Any, held: Held) -> None:
    """Prepares a way and compares its answers; it is refused where it cannot or is wrong."""
    launches, errors, refused = held
    try:
        launch = make()
        error = 0.0 if name == BOUND else _error(launch, exact)
    except Exception as reason:  # libraries raise what they like; the row says why a way is missing
        refused[name] = first_line(reason)
        return
    if error <= WORST[case.precision]:  # not so for a NaN
        launches[name], errors[name] = launch, error
    else:
        refused[name] = f"its largest error is {error:.1e} of the largest answer"


def _calibrated(
    case: DeviceCase, rig: CudaRig | DryRig, exact: Any, held: Held
) -> tuple[str | None, dict[str, float]]:
    """Adds what a session's tuner would choose; its name, and everyone's median microseconds."""
    launches, errors, refused = held
    tried: Held = ({}, {}, {})
    try:
        offered = [*offered_by_us(case)]
    except Exception as reason:  # the layer is no slot graph
        refused[OURS] = first_line(reason)
        return None, {}
    for name, launch in offered:
        _admit(name, lambda launch=launch: rig.captured(launch), case, exact, tried)
    refused |= {f"{OURS}: {name}": reason for name, reason in tried[2].items()}
    if not tried[0]:
        return None, {}
    times = interleaved_us(rig.elapsed_us, tried[0], CALIBRATION)
    medians = {name: median(values) for name, values in times.items()}
    best = min(medians, key=medians.__getitem__)
    launches[OURS], errors[OURS] = tried[0][best], tried[1][best]
    return best, medians


def _error(launch: Launch, exact: Any) -> float:
    """Returns the largest difference from float64, as part of the largest answer."""
    answers = flat(launch()).double()
    return float((answers - exact).abs().max() / exact.abs().max())


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    ways = [way for way in WAYS if any(way in row["us"] for row in result["rows"])]
    yield record.table(
        f"TFLOP/s on {result['device']}, medians; clocks {result['clocks']}",
        ("problem", "R", "dtype", *ways, "over best other", "best other", "largest error"),
        [
            (
                row["problem"],
                row["tenants"],
                row["precision"],
                *(row["tflops"].get(way) for way in ways),
                f"x{row['speedup']['best rival']:.2f}" if "speedup" in row else None,
                row.get("hardest"),
                f"{row['error'][OURS]:.0e}" if OURS in row["error"] else None,
            )
            for row in result["rows"]
        ],
    )
    yield _baselines_table(result)


def _baselines_table(result: dict[str, Any]) -> Any:
    """Returns a table of every case and baseline: by which factor ours is faster."""
    return record.table(
        "ours over each baseline; below 1 ours is slower (eager baselines: the host's time)",
        ("problem", "R", "dtype", "baseline", "factor"),
        [
            (row["problem"], row["tenants"], row["precision"], STANDS_FOR[way], f"x{factor:.2f}")
            for row in result["rows"]
            for way, factor in row.get("factor", {}).items()
        ],
    )
