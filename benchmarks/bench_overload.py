"""`bench overload`: more is asked than can be answered; a lane is held; a flood beside who matters.

Three parts. *Overload*: what a server answers in time at 0.5 to 5 times what it answers in a
closed loop, how fast it refuses, whether its memory grows, and whether every request is accounted
for: ours beside our space-only, which sheds nothing, and beside a pool of threads with a bounded
queue. Latency counts from when a request was due; who sends shares the cores with who answers, so
what sending took and how late it was are in the table. *Timeouts*: with a lane
held for 9 s, when requests with a timeout of 1 s are answered. *Priority*: p99 of a tenant under
order `priority` beside a best-effort tenant of the same family that floods every lane: at most 1.2
times its p99 alone and a launch that it may have to wait for (p99 of the flood's).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import spacetime as st
from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import timed_ns
from spacetime.benchmarks.driving.loads import closed_loop, schedule
from spacetime.benchmarks.driving.servers import scripted
from spacetime.benchmarks.overload.load import (
    SHAPE,
    SMALL,
    TENANTS,
    asked,
    drive,
    net,
    pool_answers_ms,
    timed_out_ms,
)
from spacetime.policy import Policy
from spacetime.units import ms_from_ns, ns_from_ms

OURS = "space-time"
WAYS = (OURS, "space-only", "thread pool")
LOADS = (0.5, 1.0, 2.0, 5.0)  # of what the way itself answers in the closed loop
WORST = LOADS[-1]
LEAST_OF_PEAK, MOST_GROWTH_MIB, MOST_REFUSAL_MS = 0.95, 64.0, 1.0
TIMEOUT_TOLERANCE_MS = 20.0
ALONE_FACTOR = 1.2
FLOOD = 64  # best-effort requests under way
Row = dict[str, Any]


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Measures, prints and records; at 5 x capacity for 60 s (quick: 1 s)."""
    seconds = (0.6, 1.0) if quick else (10.0, 60.0)  # at the lower loads, at the highest
    slo_ms = objective_ms()
    rows = [row for way in WAYS for row in overloaded(way, slo_ms, seconds, seed)]
    hold_s, timeout_s = (1.0, 0.2) if quick else (9.0, 1.0)
    result = record.header("overload", seed=seed, quick=quick, chosen={})
    result |= {
        "tenants": TENANTS, "slo_ms": slo_ms, "seconds": seconds, "rows": rows,
        "timeouts": timeouts(hold_s, timeout_s), "priority": priority(100 if quick else 2000),
    }  # fmt: skip
    result["goals"] = goals(result)
    record.publish(result, shown(result), out=out, as_json=as_json, plots="overload")
    return result


def objective_ms() -> float:
    """Returns the objective: ten times what the model takes alone, and at least 50 ms."""
    x = torch.randn(SHAPE)
    call = scripted(net(0), x)
    with torch.no_grad():
        took_ns = timed_ns(partial(call, x), 20)
    return max(50.0, 10 * ms_from_ns(min(took_ns)))


def overloaded(way: str, slo_ms: float, seconds: tuple[float, float], seed: int) -> Iterator[Row]:
    """Yields a row of one way at each load.

    seconds: of the lower loads, and of the highest.
    """
    with asked(way, None) as server:
        pools = [torch.randn(4, *SHAPE[1:])] * TENANTS
        capacity = closed_loop(server, pools, outstanding=8, seconds=max(0.5, seconds[0] / 2))
    capacity_rps = capacity.throughput_rps
    with asked(way, slo_ms) as server:
        for load in LOADS:
            length_s = seconds[load == WORST]
            rate_rps, slo_ns = load * capacity_rps, ns_from_ms(slo_ms)
            arrivals = schedule(TENANTS, rate_rps, slo_ns, length_s, seed)
            seen = drive(server.submit, arrivals, length_s)
            counts = seen.counts()
            yield {
                "way": way, "load": load, "capacity_rps": capacity_rps,
                "offered": len(seen.ends), "goodput_rps": seen.goodput_rps(slo_ms),
                **{word: counts[word] for word in counts if word != "pending"},
                "unaccounted": counts["pending"], "p99_ms": seen.p99_ms("answered"),
                "refusal_p99_ms": seen.p99_ms("queue-full"), "grown_mib": seen.grown_mib,
                "sender_cores": seen.sender_cores, "sent_late_p99_ms": seen.sent_late_p99_ms,
            }  # fmt: skip


def timeouts(hold_s: float, timeout_s: float) -> Row:
    """Returns when requests with a timeout are answered while their only lane is held."""
    answered_ms = timed_out_ms(hold_s, timeout_s)
    return {
        "hold_s": hold_s, "timeout_ms": 1000 * timeout_s, "answered_ms": answered_ms,
        "off_ms": max((abs(ms - 1000 * timeout_s) for ms in answered_ms), default=None),
        "thread_pool_ms": pool_answers_ms(hold_s),
    }  # fmt: skip


class Flood:
    """Keeps a tenant's queue filled until it is stopped."""

    def __init__(self, tenant: st.Tenant, x: Tensor) -> None:
        self._tenant, self._x, self._stopped = tenant, x, False
        self._idle = threading.Semaphore(0)
        for _ in range(FLOOD):
            self._again(None)

    def _again(self, _: Future[Tensor] | None) -> None:
        if self._stopped:
            self._idle.release()
            return
        self._tenant.submit(self._x).add_done_callback(self._again)

    def stop(self) -> None:
        """Submits no more, and waits for the requests that are under way."""
        self._stopped = True
        for _ in range(FLOOD):
            self._idle.acquire()


def priority(requests: int) -> Row:
    """Measures the p99 of the tenant that matters, alone and under a flood, in `requests` each."""
    x = torch.randn(SMALL)
    policy = Policy(order="priority")
    with st.Session("cpu", policy=policy, timeline=True) as session:
        matters = session.add(net(0), example_inputs=(x,), name="matters", priority=10)
        flooding = session.add(net(1), example_inputs=(x,), name="flood", queue_limit=2 * FLOOD)
        alone_ms = asked_in_turn(matters, x, requests)
        session.timeline()
        flood = Flood(flooding, x)
        beside_ms = asked_in_turn(matters, x, requests)
        flood.stop()
        events = session.timeline()
    launches_ms = [event["dur"] / 1e3 for event in events if event["name"] == "flood"]
    launch_ms = float(np.percentile(launches_ms, 99))
    return {
        "requests": requests, "alone_p99_ms": alone_ms, "beside_p99_ms": beside_ms,
        "launch_p99_ms": launch_ms, "bound_ms": ALONE_FACTOR * alone_ms + launch_ms,
    }  # fmt: skip


def asked_in_turn(tenant: st.Tenant, x: Tensor, requests: int) -> float:
    """Returns the p99, in ms, of one request after the other."""
    return ms_from_ns(float(np.percentile(timed_ns(partial(tenant, x), requests), 99)))


def goals(result: Row) -> Row:
    """Returns whether each goal, in words, was met; None where nothing could show it."""
    own = [row for row in result["rows"] if row["way"] == OURS]
    peak, worst = max(row["goodput_rps"] for row in own), own[-1]
    refusal = worst["refusal_p99_ms"]
    met: Row = {
        "goodput at 5 x >= 95 % of its peak": worst["goodput_rps"] >= LEAST_OF_PEAK * peak,
        f"memory grows by <= {MOST_GROWTH_MIB:.0f} MiB":
            max(row["grown_mib"] for row in own) <= MOST_GROWTH_MIB,
        f"refused within {MOST_REFUSAL_MS:.0f} ms (p99)":
            None if refusal is None else refusal <= MOST_REFUSAL_MS,
        "every request accounted for":
            all(row["unaccounted"] == row["failed"] == 0 for row in own),
    }  # fmt: skip
    off, first = result["timeouts"]["off_ms"], result["priority"]
    met["a timeout is answered within 20 ms of it"] = (
        off is not None and off <= TIMEOUT_TOLERANCE_MS
    )
    met["p99 under flood <= 1.2 x alone + a launch"] = first["beside_p99_ms"] <= first["bound_ms"]
    return met


def shown(result: Row) -> Iterator[Any]:
    """Yields the tables, and the goals."""
    heads = ("way", "load, of capacity", "requests offered", "in time, answers/s", "answered",
             "queue full", "deadline", "answered, p99 ms", "refused, p99 ms", "memory, MiB more",
             "sender's cores", "sent late, p99 ms")  # fmt: skip
    keys = ("way", "load", "offered", "goodput_rps", "answered", "queue-full", "deadline",
            "p99_ms", "refusal_p99_ms", "grown_mib", "sender_cores",
            "sent_late_p99_ms")  # fmt: skip
    slo, last = result["slo_ms"], result["seconds"][1]
    yield record.table(
        f"open loop at parts of each way's closed loop, objective {slo:.0f} ms, {last:g} s at 5 x",
        heads, [[row[key] for key in keys] for row in result["rows"]],
    )  # fmt: skip
    held, first = result["timeouts"], result["priority"]
    yield (
        f"a lane held for {held['hold_s']:g} s, {len(held['answered_ms'])} requests with a timeout "
        f"of {held['timeout_ms']:g} ms: answered at most {record.text(held['off_ms'])} ms off it; "
        f"a pool of one thread answers after {held['thread_pool_ms']:.0f} ms"
    )
    yield (
        f"order priority, {first['requests']} requests: p99 {first['alone_p99_ms']:.3g} ms alone, "
        f"{first['beside_p99_ms']:.3g} ms under a flood whose launches take "
        f"{first['launch_p99_ms']:.3g} ms (p99): bound {first['bound_ms']:.3g} ms"
    )
    words = {True: "met", False: "NOT met", None: "nothing was refused"}
    yield record.table(
        "goals", ("goal", "verdict"), [(goal, words[met]) for goal, met in result["goals"].items()]
    )
