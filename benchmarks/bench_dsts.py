"""D-STS, Fig. 7: R tenants' products in time, in space and in both, predicted beside the paper.

    spacetime bench dsts [--out DIR]

Needs the digitised figure (SPACETIME_DATA). Nothing runs on a device: `cost` has the waves and what
a tile takes at the V100's peak from the device's facts; four constants are fitted to the figure,
because the paper says nothing about them: µs before the first launch (one for all three modes),
the part of the peak a tile reaches, µs a launch in series, and µs a launch on streams. Beside the
error of the fit stands that of every row when it is left out of the fit.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from spacetime.benchmarks import record
from spacetime.devices.facts import V100
from spacetime.profiles import cost

M, N, K = 256, 128, 1152  # ResNet-18's conv2_2 as one product
TILE = (128, 64)  # of cublasSgemmBatched: what a period of 20 on 80 SMs means
MODES = ("space-time", "space-only", "time-only")
CONSTANTS = ("begin_us", "wave_us", "stream_us", "serial_us")
PLOTTED = (1, *range(2, 119, 2))  # the figure's 60 points
PAPER_GAINS = {"space-only": 3.23, "time-only": 7.71}  # geometric means over them
GOAL = 0.10
FLOP = 2 * M * N * K
Row = tuple[int, dict[str, float]]


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Fits, predicts and compares; prints and records it. `quick` changes nothing.

    Raises UnsupportedError without the data.
    """
    paper = read_figure(record.published("dsts_fig7.csv"))
    result = record.header("dsts", seed=seed, quick=quick, chosen={})
    constants = fit(paper)
    result |= {
        "facts": {"sms": V100.sms, "period": period(), "peak_tflops": V100.tflops["fp32"]},
        "constants": dict(zip(CONSTANTS, constants, strict=True)),
        "tile_reaches": peak_wave_us() / constants[1],
        "rows": [
            _row(row, constants, fit([other for other in paper if other != row])) for row in paper
        ],
        "curve": {mode: [gflops(mode, r, constants) for r in PLOTTED] for mode in MODES},
        "tenants": PLOTTED,
    }
    result["error"] = {of: _means(result["rows"], of) for of in ("off", "left_out")}
    result["gains"] = {mode: _gain(mode, constants) for mode in MODES[1:]}
    result["met"] = max(result["error"]["off"].values()) <= GOAL
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="cost")
    return result


def read_figure(path: Path) -> list[Row]:
    """Returns the tenants, and the GFLOP/s by mode, of every row of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (
                int(row["tenants"]),
                {mode: float(row[f"{mode.replace('-', '_')}_gflops"]) for mode in MODES},
            )
            for row in csv.DictReader(file)
        ]


def period() -> int:
    """Returns how many tenants fill a wave: one tile an SM."""
    return V100.sms // cost.waves(M, N, 1, TILE, 1)


def peak_wave_us() -> float:
    """Returns the time of a wave at the V100's peak rate, in us."""
    on = cost.granted(V100, "sm", V100.sms)
    return cost.tile_us(K, TILE, on, cost.Calibration(compute=1.0))


def terms(mode: str, tenants: int) -> list[float]:
    """Returns how often each of CONSTANTS is spent; a predicted time is linear in them."""
    often = {
        "space-time": (cost.waves(M, N, tenants, TILE, V100.sms), 0, 0),
        "space-only": (0, tenants, 0),
        "time-only": (0, 0, tenants),
    }
    return [1.0, *map(float, often[mode])]


def fit(rows: Sequence[Row]) -> list[float]:
    """Returns the constants, in us, of the least squared relative error in time."""
    table, ones = [], []
    for tenants, rates in rows:
        for mode in MODES:
            took_us = tenants * FLOP / rates[mode] / 1e3
            table.append([term / took_us for term in terms(mode, tenants)])
            ones.append([1.0])
    wide, target = torch.tensor(table, dtype=torch.float64), torch.tensor(ones, dtype=torch.float64)
    solution: list[float] = torch.linalg.lstsq(wide, target).solution[:, 0].tolist()
    return solution


def gflops(mode: str, tenants: int, constants: Sequence[float]) -> float:
    """Returns the predicted rate in GFLOP/s."""
    took_us = sum(a * b for a, b in zip(terms(mode, tenants), constants, strict=True))
    return tenants * FLOP / took_us / 1e3


def _row(figure: Row, constants: Sequence[float], without: Sequence[float]) -> dict[str, Any]:
    """Returns a row of the figure beside its predictions.

    constants: fitted to all rows; without: fitted to all rows but this one.
    """
    tenants, paper = figure
    ours, blind = ({m: gflops(m, tenants, by) for m in MODES} for by in (constants, without))
    return {
        "tenants": tenants,
        "paper": paper,
        "ours": ours,
        "off": {mode: ours[mode] / paper[mode] - 1 for mode in MODES},
        "left_out": {mode: blind[mode] / paper[mode] - 1 for mode in MODES},
    }


def _means(rows: Sequence[dict[str, Any]], of: str) -> dict[str, float]:
    return {mode: sum(abs(row[of][mode]) for row in rows) / len(rows) for mode in MODES}


def _gain(mode: str, constants: Sequence[float]) -> float:
    ratios = [gflops("space-time", r, constants) / gflops(mode, r, constants) for r in PLOTTED]
    return record.geometric_mean(ratios) or 0.0


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    heads = [word for mode in MODES for word in (f"{mode}, paper", f"{mode}, ours", "error")]
    yield record.table(
        "D-STS Fig. 7, GFLOP/s of R tenants' 256 x 128 x 1152 products in fp32 on a V100",
        ("R", *heads),
        [
            (row["tenants"], *(
                cell for mode in MODES
                for cell in (row["paper"][mode], row["ours"][mode], f"{row['off'][mode]:+.1%}")
            ))
            for row in result["rows"]
        ],
    )  # fmt: skip
    for of, word in (("off", "mean absolute error"), ("left_out", "of rows left out of the fit")):
        yield f"{word}: " + ", ".join(f"{m} {e:.1%}" for m, e in result["error"][of].items())
    facts, constants = result["facts"], result["constants"]
    yield f"goal, at most {GOAL:.0%} in every mode: {'met' if result['met'] else 'NOT met'}"
    yield (
        f"derived: a wave holds {facts['period']} tenants. fitted: "
        + ", ".join(f"{name} {value:.1f}" for name, value in constants.items())
        + f" (a tile reaches {result['tile_reaches']:.0%} of the peak)"
    )
    for mode, gain in result["gains"].items():
        paper = PAPER_GAINS[mode]
        yield f"space-time over {mode}, geometric mean of 60 points: {gain:.2f}x, paper {paper}x"
