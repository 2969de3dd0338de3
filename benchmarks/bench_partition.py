"""`bench partition`: what a partition of SMs costs to switch to and to make, and what it can do.

Switching is choosing another rung's lane: the next launch goes to a stream that already exists.
The published way, a shadow process with another share, takes 10 to 15 s (gpulet, ATC'22).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import percentile
from spacetime.benchmarks.gpu.run import goals
from spacetime.benchmarks.gpu.rungs import WORK, Ladder
from spacetime.terminal.progress import track

PUBLISHED_S = (10, 15)  # gpulet, 2109.01611, section 5
SETTLED = 16  # launches before the clock counts


def run(
    *,
    device: str = "cuda:0",
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    repetitions: int = 9,
    switches: int = 400,
    seed: int = 0,
    picture: bool = True,
) -> dict[str, Any]:
    """Measures the ladder of `device`; prints tables, writes JSON and a picture to `out`.

    device: cuda:N, or a fake one, whose numbers are those of its model, in virtual time. picture:
    False where it is drawn later. The record is rewritten after each row.
    """
    repetitions, switches = (3, 40) if quick else (repetitions, switches)
    ladder = Ladder(device)
    native = ladder.native
    result = record.header("partition", seed=seed, quick=quick, chosen={})
    result["command"] += f" --device {device}"
    result |= {
        "device": f"{device}: {native.name}",
        "virtual": ladder.device.fake,
        "unreal": ladder.device.fake,
        "sms": native.sms,
        "unit_sms": list(native.unit_sms),
        "mechanism": native.why_unbounded or "green contexts",
        "published_s": list(PUBLISHED_S),
    }
    result |= _switching(ladder, switches)
    result["create_us"] = _creating(ladder, repetitions)
    result["launch_us"] = None if ladder.device.fake else _launching(ladder, switches)
    # A model's times reach no goal.
    result["goals"] = goals.told(goals.partition_goals({} if ladder.device.fake else result))
    prefixes = ladder.prefixes()[:: -4 if quick else -1][::-1]  # the whole device among them
    result["rows"] = []
    for units in track(prefixes, "bench partition", quiet=as_json):
        result["rows"].append(_row(ladder, units, repetitions))
        if out is not None:
            record.save(result, out)
    plots = "device" if picture else None
    record.publish(result, _tables(result), out=out, as_json=as_json, plots=plots)
    return result


def _switching(ladder: Ladder, switches: int) -> dict[str, Any]:
    """Times a launch that does nothing: on the rung of the launch before, and on another one."""
    prefixes = ladder.prefixes()
    pair = [ladder.rung(prefixes[len(prefixes) // 2]), ladder.rung(prefixes[-1])]
    for rung in pair * SETTLED:
        rung.run_ns("nothing")
    stay, switch = [], []
    for number in range(switches):  # in turn, so that both see the same machine
        stay += [pair[number % 2].run_ns("nothing")]  # the rung of the launch before
        switch += [pair[1 - number % 2].run_ns("nothing")]
    return {"stay_us": _spread(stay), "switch_us": _spread(switch)}


def _launching(ladder: Ladder, count: int) -> dict[str, Any]:
    """Returns what the runner adds to the bare driver calls of the same work, in us of the host."""
    rung = ladder.rung(ladder.prefixes()[-1])
    rung.host_ns("nothing", SETTLED)
    ours, bare = rung.host_ns("nothing", count)
    added = (median(ours) - median(bare)) / 1e3
    return {"runner": _spread(ours), "bare": _spread(bare), "added": added}


def _creating(ladder: Ladder, repetitions: int) -> dict[str, float]:
    """Times the creation of a partition with its streams: of every second unit, each a new one."""
    units, held, times = ladder.device.units, [], []
    for number in range(min(repetitions, max(1, len(units) - 2))):
        mask = [u for u in units if u % 2 == 0 and u != units[0] + 2 * number] or [units[-1]]
        begin = ladder.now_ns()
        held.append(ladder.native.partition(mask))
        times.append(ladder.now_ns() - begin)
    return _spread(times)


def _row(ladder: Ladder, units: Sequence[int], repetitions: int) -> dict[str, Any]:
    rung = ladder.rung(units, ("product", "copy"))
    product_ns, copy_ns = (rung.device_ns(kind, repetitions) for kind in ("product", "copy"))
    return {
        "units": list(units),
        "sms": rung.sms,
        "product_us": product_ns / 1e3,
        "copy_us": copy_ns / 1e3,
        "tflops": WORK["product"].flop / product_ns / 1e3,
        "gbs": WORK["copy"].moved_bytes / copy_ns,
    }


def _spread(ns: Sequence[int]) -> dict[str, float]:
    """Returns median, least and 99th percentile of times in ns, in us."""
    ordered = sorted(ns)
    return {
        "median": median(ordered) / 1e3,
        "least": ordered[0] / 1e3,
        "p99": percentile(ordered, 99) / 1e3,
    }


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    whole = result["rows"][-1]
    virtual = ", virtual time of a model" * result["virtual"]
    yield record.table(
        f"{result['device']}{virtual}: a bf16 product {WORK['product'].flop / 1e9:.0f} GFLOP, "
        f"a copy by SMs; by {result['mechanism']}",
        ("SMs", "units", "TFLOP/s", "of all SMs'", "GB/s", "of all SMs'"),
        [
            (
                row["sms"],
                len(row["units"]),
                row["tflops"],
                f"{row['tflops'] / whole['tflops']:.0%}",
                row["gbs"],
                f"{row['gbs'] / whole['gbs']:.0%}",
            )
            for row in result["rows"]
        ],
    )
    kinds = {"stay_us": "launch, same rung", "switch_us": "launch, other rung"}
    kinds["create_us"] = "new partition"
    spreads = {word: result[kind] for kind, word in kinds.items()}
    if launched := result["launch_us"]:
        spreads |= {"launch, our runner": launched["runner"], "bare calls": launched["bare"]}
    yield record.table(
        "time of the host",
        ("what", "median us", "least us", "p99 us"),
        [(word, *spread.values()) for word, spread in spreads.items()],
    )
    yield record.table(
        "goals", ("goal", "asked", "got", "verdict"), goals.goal_cells(result["goals"])
    )
    low, high = result["published_s"]
    yield f"the published way, a shadow process, takes {low} to {high} s"
