"""`bench flops`: the D-STS microbenchmark, R tenants of one layer in space and in time.

All ways run interleaved, A B C A B C, and each counts with its best repetition.
Source: D-STS, arXiv 1901.00041, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.interleave import fastest, interleaved
from spacetime.benchmarks.driving.lanes import PinnedLanes
from spacetime.benchmarks.flops.modes import (
    BASELINES,
    BOUND,
    MODES,
    CpuCase,
    allowed,
    case_of,
    check,
    choices,
    rivals,
)
from spacetime.benchmarks.flops.problems import PROBLEMS, LayerProblem, peak_candidates
from spacetime.benchmarks.gpu import flops as device_flops
from spacetime.terminal.progress import track

TENANTS = (1, 2, 4, 8, 16, 32, 64)
QUICK_PROBLEMS, QUICK_TENANTS = ("rnn", "3x3-32-8"), (1, 2, 4)
MOST_WEIGHT_BYTES = 2**31
TOLERANCE = 0.97  # a mode this close to the best has not lost: noise of the machine
AGAINST = (*MODES[:2], *BASELINES, BOUND)


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    problems: Sequence[str] | None = None,
    tenants: Sequence[int] | None = None,
    repetitions: int = 10,
    target_ms: float = 4.0,
    seed: int = 0,
    device: str = "cpu",
    dtypes: Sequence[str] | None = None,
    budget_s: float | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Measures every way for every problem and R; prints tables, writes JSON and a picture to out.

    device, dtypes, budget_s, dry_run: those of `benchmarks.gpu.flops`, for a CUDA device.
    repetitions: interleaved measurements of each way; target_ms: how long one lasts at least.
    quick: short measurements, and two problems with few tenants where none are named.
    """
    if device != "cpu":
        return device_flops.run(
            device=device, quick=quick, out=out, as_json=as_json, problems=problems,
            tenants=tenants, dtypes=dtypes, budget_s=budget_s, seed=seed, dry_run=dry_run,
        )  # fmt: skip
    if quick:
        repetitions, target_ms = 3, 0.5
    record.known("problems", problems or (), PROBLEMS)
    chosen = {"problems": problems, "tenants": tenants}
    result = record.header("flops", seed=seed, quick=quick, chosen=chosen)
    with PinnedLanes() as lanes:
        side = 512 if quick else 1024
        peaks = [_peak(lanes, side)]
        named = problems or (QUICK_PROBLEMS if quick else tuple(PROBLEMS))
        counts = tenants or (QUICK_TENANTS if quick else TENANTS)
        cases = [(PROBLEMS[p], r) for p in named for r in counts if _fits(PROBLEMS[p], r)]
        rows = []
        for problem, count in track(cases, "bench flops", quiet=as_json):
            case = case_of(problem, count, lanes, seed)
            rows.append(_row(case, repetitions, round(target_ms * 1e6)))
        peaks.append(_peak(lanes, side))  # twice: a disturbed moment must not make it low
    result["peak"] = max(peaks, key=lambda peak: peak["gflops"])
    result["rows"] = rows
    result["summary"] = _summary(rows, result["peak"]["gflops"])
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="flops")
    return result


def _fits(problem: LayerProblem, tenants: int) -> bool:
    return 4 * tenants * prod(problem.weight) <= MOST_WEIGHT_BYTES


def _peak(lanes: PinnedLanes, side: int) -> dict[str, Any]:
    """Measures the machine's best large product in GFLOP/s, and says by which library."""
    flop = 2 * side**3
    rounds = {name: [(lanes.whole, launch)] for name, launch in peak_candidates(side).items()}
    gflops = {
        name: flop / min(values)
        for name, values in interleaved(rounds, repetitions=25, target_ns=0).items()
    }
    library = max(gflops, key=gflops.__getitem__)
    return {"side": side, "library": library, "gflops": gflops[library], "by_library": gflops}


def _row(case: CpuCase, repetitions: int, target_ns: int) -> dict[str, Any]:
    """Measures one problem and R: the GFLOP/s of every way, and how much faster space-time is."""
    tried = choices(case)
    check(case, tried)
    calibration = interleaved(tried, repetitions=repetitions, target_ns=target_ns)
    chosen = {
        mode: fastest({name: t for name, t in calibration.items() if allowed(mode, name)})
        for mode in MODES
    }
    with rivals(case) as rounds:
        check(case, {name: round_ for name, round_ in rounds.items() if name != BOUND})
        rounds |= {name: tried[name] for name in chosen.values()}
        times = interleaved(rounds, repetitions=repetitions, target_ns=target_ns)
    # Modes that chose the same are the same launches on the same lanes: one measurement.
    times = {
        **{name: times[name] for name in AGAINST[2:]},
        **{m: times[c] for m, c in chosen.items()},
    }
    best = {name: min(values) for name, values in times.items()}
    speedups = {name: best[name] / best["space-time"] for name in AGAINST}
    hardest = min(AGAINST[:-1], key=speedups.__getitem__)
    flop = case.problem.flop * case.tenants
    return {
        "problem": case.problem.name,
        "tenants": case.tenants,
        "chosen": chosen,
        "gflops": {name: flop / ns for name, ns in best.items()},
        "median_gflops": {name: flop / median(values) for name, values in times.items()},
        "calibration": {name: flop / min(values) for name, values in calibration.items()},
        "speedup": speedups,
        "hardest": hardest,
        "lost": case.tenants > 1 and speedups[hardest] < TOLERANCE,
    }


def _summary(rows: list[dict[str, Any]], peak_gflops: float) -> list[dict[str, Any]]:
    """Returns geometric means over R of what space-time gains, by problem and over all."""
    names = [*dict.fromkeys(row["problem"] for row in rows)]
    groups = [(name, [row for row in rows if row["problem"] == name]) for name in names]
    return [_mean_row(name, part, peak_gflops) for name, part in [*groups, ("all", rows)]]


def _mean_row(name: str, rows: list[dict[str, Any]], peak_gflops: float) -> dict[str, Any]:
    several = [row for row in rows if row["tenants"] > 1]
    best = max(rows, key=lambda row: row["gflops"]["space-time"])
    return {
        "problem": name,
        "with_one": {a: record.geometric_mean(r["speedup"][a] for r in rows) for a in AGAINST},
        "several": {a: record.geometric_mean(r["speedup"][a] for r in several) for a in AGAINST},
        "best_gflops": best["gflops"]["space-time"],
        "peak_frac": best["gflops"]["space-time"] / peak_gflops,
        "lost": sum(row["lost"] for row in rows),
        "compared": len(several),
    }


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    peak = result["peak"]
    ways = (*MODES, *BASELINES, BOUND)
    yield record.table(
        f"GFLOP/s, fp32, {result['cores']} cores, {result['cpu']}; this machine's peak: "
        f"{peak['gflops']:.0f} ({peak['library']}, {peak['side']} squared)",
        ("problem", "R", *ways, "of peak", "over best other", "best other", "space-time chose"),
        [
            (
                row["problem"],
                row["tenants"],
                *(row["gflops"][way] for way in ways),
                f"{row['gflops']['space-time'] / peak['gflops']:.0%}",
                f"x{row['speedup'][row['hardest']]:.2f}{' LOST' * row['lost']}",
                row["hardest"],
                row["chosen"]["space-time"],
            )
            for row in result["rows"]
        ],
    )
    yield record.table(
        "how many times faster space-time is: geometric means over R >= 2 (over all R)",
        ("problem", *AGAINST, "best GFLOP/s", "of peak", "rows lost"),
        [
            (
                mean["problem"],
                *(_pair(mean["several"][a], mean["with_one"][a]) for a in AGAINST),
                mean["best_gflops"],
                f"{mean['peak_frac']:.0%}",
                f"{mean['lost']} of {mean['compared']}",
            )
            for mean in result["summary"]
        ],
    )


def _pair(several: float | None, with_one: float | None) -> str:
    return " ".join(
        "-" if value is None else form.format(value)
        for value, form in ((several, "{:.2f}"), (with_one, "({:.2f})"))
    )
