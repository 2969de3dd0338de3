"""The ways to run R tenants' launches that `bench flops` compares.

A way is a *round*: what each lane runs once. The three modes are those of D-STS; each is as good
as calibration can make it: `choices` holds what it may choose from. The baselines are what a user
would write; the upper bound runs the R requests as one batch of one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

import spacetime as st
from spacetime.benchmarks.driving.lanes import Launch, PinnedLanes, Round, elapsed_ns
from spacetime.benchmarks.flops import problems
from spacetime.benchmarks.flops.problems import LayerProblem
from spacetime.fusion import Exported, export

MODES = ("time-only", "space-only", "space-time")
BASELINES = ("python loop", "vmap", "thread pool")
BOUND = "one batch"
SMALL_BATCH = 4


@dataclass(frozen=True, slots=True)
class CpuCase:
    """One problem with R tenants: requests x `[R, ...]`, weights `[R, ...]`, lanes to run on."""

    problem: LayerProblem
    x: Tensor
    weight: Tensor
    lanes: PinnedLanes

    @property
    def tenants(self) -> int:
        """How many tenants there are: R."""
        return self.x.shape[0]

    def on_all_cores(self, launch: Callable[[int, int], Launch]) -> Round:
        """Returns one lane on every core that runs `launch(begin, end)` for all tenants."""
        return [(self.lanes.whole, launch(0, self.tenants))]

    def on_lanes(self, launch: Callable[[int, int], Launch]) -> Round:
        """Returns one-core lanes that run `launch(begin, end)` for their part of the tenants."""
        count = len(self.lanes.single)
        edges = [round(i * self.tenants / count) for i in range(count + 1)]
        parts = zip(self.lanes.single, edges, edges[1:], strict=False)
        return [(lane, launch(a, b)) for lane, a, b in parts if a < b]


def case_of(problem: LayerProblem, tenants: int, lanes: PinnedLanes, seed: int) -> CpuCase:
    """Returns a case with requests and weights drawn from `seed`."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(tenants, *problem.request, generator=draw)
    weight = torch.randn(tenants, *problem.weight, generator=draw)
    return CpuCase(problem, x, weight, lanes)


def choices(case: CpuCase) -> dict[str, Round]:
    """Returns what the modes choose from, named `<launches>, <lanes>`; each has run once."""
    rounds: dict[str, Round] = {}
    template = export(case.problem.layer().eval(), (case.x[:1],))
    layouts = {"all cores": case.on_all_cores, "one-core lanes": case.on_lanes}
    loops = {"loop": _loop(case)}
    if problems.packs():
        loops["packed loop"] = _packed_loop(case)
    for name, layout in layouts.items():
        for kind, launch in {**_fused(case, template), **loops}.items():
            rounds[f"{kind}, {name}"] = layout(launch)
            elapsed_ns(rounds[f"{kind}, {name}"], 1)  # a fused launch tunes itself where it runs
    return rounds


def allowed(mode: str, choice: str) -> bool:
    """Whether a mode may choose this: only space-time fuses, time-only has one lane."""
    if mode == "time-only":
        return not choice.startswith("fused") and choice.endswith("all cores")
    if mode == "space-only":
        return not choice.startswith("fused") and choice.endswith("one-core lanes")
    return True


def _fused(case: CpuCase, template: Exported) -> dict[str, Callable[[int, int], Launch]]:
    """Returns all tenants in one launch, and a few at a time, which may suit a core's cache."""
    states = [{"weight": weight} for weight in case.weight]
    call = st.fuse(template, states).script()

    def launch(begin: int, end: int, *, most: int) -> Launch:
        edges = [*range(begin, end, most), end]
        parts = [(torch.arange(a, b), case.x[a:b]) for a, b in pairwise(edges)]
        return lambda: [answer for index, x in parts for answer in call(index, x)]

    kinds: dict[str, Callable[[int, int], Launch]] = {
        "fused": lambda a, b: launch(a, b, most=case.tenants)
    }
    if case.tenants > SMALL_BATCH:
        kinds[f"fused by {SMALL_BATCH}"] = lambda a, b: launch(a, b, most=SMALL_BATCH)
    return kinds


def _loop(case: CpuCase) -> Callable[[int, int], Launch]:
    rows, weights = _rows(case), [*case.weight]
    return lambda a, b: lambda: case.problem.loop(rows[a:b], weights[a:b])


def _packed_loop(case: CpuCase) -> Callable[[int, int], Launch]:
    rows = _rows(case)
    packed = [case.problem.packed(weight) for weight in case.weight]
    return lambda a, b: lambda: case.problem.packed_loop(rows[a:b], packed[a:b])


def _rows(case: CpuCase) -> list[Tensor]:
    return [case.x[i : i + 1] for i in range(case.tenants)]


@contextmanager
def rivals(case: CpuCase) -> Iterator[dict[str, Round]]:
    """Yields the baselines and the upper bound; the pool's threads live for the block."""
    problem, x, weight = case.problem, case.x, case.weight
    parts = [*zip(_rows(case), weight, strict=True)]
    mapped: Any = torch.func.vmap(problem.one)
    with ThreadPoolExecutor(len(case.lanes.cores), initializer=_one_thread) as pool:
        launches: dict[str, Launch] = {
            "python loop": lambda: [problem.one(row, w) for row, w in parts],
            "vmap": lambda: mapped(x[:, None], weight),
            "thread pool": lambda: list(pool.map(lambda part: problem.one(*part), parts)),
            BOUND: lambda: problem.one(x, weight[0]),
        }
        yield {name: [(case.lanes.whole, launch)] for name, launch in launches.items()}


def check(case: CpuCase, rounds: Mapping[str, Round]) -> None:
    """Raises RuntimeError where a way's answers differ from those of the tenants one by one."""
    own = zip(_rows(case), case.weight, strict=True)
    expected = torch.cat([case.problem.one(row, weight) for row, weight in own]).flatten()
    for name, round_ in rounds.items():
        answers = [launch() for _, launch in round_]
        flat = torch.cat([part.flatten() for answer in answers for part in _tensors(answer)])
        if not torch.allclose(flat, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            raise RuntimeError(f"{case.problem.name}, R={case.tenants}: {name} answers wrongly")


def _tensors(answer: object) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else [*cast(Sequence[Tensor], answer)]


def _one_thread() -> None:
    torch.set_num_threads(1)
