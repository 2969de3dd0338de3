"""A plan, running: lanes, routes, batches and turns are as planned, every answer the model's."""

from __future__ import annotations

import os
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch
from models import Latch, X, convnet, mlp
from torch import nn

from spacetime.devices.device import open_device
from spacetime.devices.facts import cpu
from spacetime.errors import InvalidInput, PlanError, UnsupportedError
from spacetime.live.placement import laid_on
from spacetime.live.planned_session import PlannedSession
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan, PlanOptions
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

CORES = len(os.sched_getaffinity(0))
CPU = f"cpu-{CORES}"
SLO_MS = 30_000.0  # what is tested is where requests go, not how fast this machine is
PICTURE = torch.zeros(1, 1, 8, 8)

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")


def profiles(device: str = CPU, kind: str = "cores", sizes: tuple[int, ...] = (1, 2)) -> Profiles:
    return Profiles(tuple(
        Point(model, device, kind, units, batch, procs, ms * batch, procs / ms * 1000)
        for model, ms in (("mlp", 1.0), ("conv", 2.0))
        for units in sorted({*sizes})
        for batch in (1, 2, 4, 8)
        for procs in (1, 2)
    ))  # fmt: skip


def load(*models: str, rate_rps: float = 20.0) -> Workload:
    return Workload(tuple(
        Tenant(name=f"t{n}", model=model, slo_ms=SLO_MS, rate_rps=rate_rps)
        for n, model in enumerate(models)
    ))  # fmt: skip


def on(tenant: str, batch: int, rate_rps: float = 20.0, **fields: float) -> Assignment:
    return Assignment(tenant, batch, rate_rps, SLO_MS, **fields)


def part(name: str, *tenants: Assignment, units: int = 1, kind: str = "cores",
         procs: int = 1, device: int = 0) -> PartitionPlan:  # fmt: skip
    return PartitionPlan(name, kind, units, tenants, None, procs)


def plan(*parts: PartitionPlan, device: str = CPU) -> Plan:
    return Plan("by hand", device, (GpuPlan(0, parts),))


def module(model: str, seed: int) -> nn.Module:
    return mlp(seed) if model == "mlp" else convnet(seed)


def filled(session: PlannedSession, workload: Workload) -> dict[str, nn.Module]:
    """Adds every tenant; the modules by name."""
    made = {each.name: module(each.model, n) for n, each in enumerate(workload.tenants)}
    for each in workload.tenants:
        x = X if each.model == "mlp" else PICTURE
        session.add(made[each.name], example_inputs=(x,), name=each.name)
    return made


def same_answers(session: PlannedSession, models: dict[str, nn.Module], count: int) -> None:
    """Asks every tenant `count` times at once; every answer is its model's own."""
    asked = []
    for n in range(count):
        for name, model in models.items():
            shape = X if isinstance(next(model.children()), nn.Linear) else PICTURE
            x = torch.randn(shape.shape, generator=torch.Generator().manual_seed(n))
            asked.append((model, x, session.tenants[name].submit(x)))
    wait([future for _, _, future in asked], timeout=60)
    for model, x, future in asked:
        with torch.no_grad():
            torch.testing.assert_close(future.result(0), model(x), rtol=1e-4, atol=1e-5)


def test_tenants_run_on_their_partitions_in_the_planned_shares() -> None:
    workload = load("mlp", "conv", "mlp")
    made = plan(
        part("left", on("t0", 4, 15), on("t1", 1)), part("right", on("t0", 2, 5), on("t2", 8))
    )
    with PlannedSession(made, workload, profiles(), device="cpu", timeline=True) as session:
        models = filled(session, workload)
        same_answers(session, models, 40)
        counted = session.report()
        ran = {
            (event["name"], event["tid"] - 1): event["args"]["requests"]
            for event in session.timeline()
            if event["ph"] == "X" and "fused" not in event["name"]
        }
    assert counted["overall"]["offered"] == counted["overall"]["completed"] == 120
    assert [row["id"] for row in counted["partitions"]] == ["left", "right"]
    assert not {("t1", 1), ("t2", 0)} & set(ran)  # never on the other's partition


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_no_launch_is_larger_than_planned(batch: int) -> None:
    workload = load("mlp")
    with PlannedSession(
        plan(part("p", on("t0", batch))), workload, profiles(), device="cpu", timeline=True
    ) as session:
        filled(session, workload)
        wait([session.tenants["t0"].submit(X) for _ in range(50)], 60)
        sizes = [e["args"]["requests"] for e in session.timeline() if e["ph"] == "X"]
    assert sum(sizes) == 50
    assert max(sizes) <= {1: 1, 3: 4, 8: 8}[batch]  # padded to 4 as the profile's point is


def test_turns_are_taken_as_planned() -> None:
    """Held behind a latch, both tenants queue; then they take turns of their planned batches."""
    workload = Workload((*load("mlp", "mlp").tenants, Tenant("hold", "mlp", SLO_MS, 1.0)))
    cycle = [on("t0", 2, duty_ms=200), on("t1", 1, duty_ms=200), on("hold", 1, 1, duty_ms=200)]
    points = Profiles(tuple(p for p in profiles() if p.procs == 1))
    with PlannedSession(
        plan(part("p", *(replace(a, rate_rps=1.0) for a in cycle))),
        Workload(tuple(replace(t, rate_rps=1.0) for t in workload.tenants)),
        points, device="cpu", timeline=True,
    ) as session:  # fmt: skip
        latch = Latch().eval()
        hold = session.add(latch, example_inputs=(X,), name="hold")
        for n in range(2):
            session.add(convnet(n), example_inputs=(PICTURE,), name=f"t{n}")
        held = hold.submit(torch.ones(1, 6))
        latch.held.wait(60)
        asked = [session.tenants[f"t{n}"].submit(PICTURE) for n in (0, 0, 0, 0, 1, 1)]
        latch.open.set()
        wait([held, *asked], 60)
        ran = [(e["name"], e["args"]["requests"]) for e in session.timeline() if e["ph"] == "X"]
    assert ran == [("hold", 1), ("t0", 2), ("t1", 1), ("t0", 2), ("t1", 1)]


def test_processes_of_a_partition_are_lanes_on_the_same_cores() -> None:
    workload = load("mlp")
    made = plan(part("p", on("t0", 4), units=2, procs=2))
    with PlannedSession(made, workload, profiles(), device="cpu") as session:
        models = filled(session, workload)
        assert session.partitions[0] == session.partitions[1]
        same_answers(session, models, 30)
        launches = [row["launches"] for row in session.report()["partitions"]]
    assert all(launches)


def test_tenants_of_one_model_still_fuse() -> None:
    workload = load("mlp", "mlp")
    latched = Workload((*workload.tenants, Tenant("hold", "conv", SLO_MS, 1.0)))
    made = plan(part("p", on("t0", 8), on("t1", 8), on("hold", 1, 1.0)))
    with PlannedSession(made, latched, profiles(), device="cpu", timeline=True) as session:
        filled(session, workload)
        latch = Latch().eval()
        held = session.add(latch, example_inputs=(X,), name="hold").submit(torch.ones(1, 6))
        latch.held.wait(60)
        asked = [session.tenants[f"t{n % 2}"].submit(X) for n in range(6)]
        latch.open.set()
        wait([held, *asked], 60)
        fused = [e["args"]["tenants"] for e in session.timeline() if e["ph"] == "X"]
    assert fused == [1, 2]


def test_a_fused_partition_is_one_queue_whose_launches_mix_tenants() -> None:
    workload = Workload((*load("mlp", "mlp").tenants, Tenant("hold", "conv", SLO_MS, 1.0)))
    mixed = Point("mlp", CPU, "cores", 1, 8, 2, 8.0, 2000, tenants=2)
    points = Profiles((*profiles(), mixed))
    fused = replace(part("f", on("t0", 8), on("t1", 8), procs=2), fused=True)
    made = plan(fused, part("h", on("hold", 1, 1.0)))
    with PlannedSession(made, workload, points, device="cpu", timeline=True) as session:
        models = filled(session, Workload(workload.tenants[:2]))
        same_answers(session, models, 40)
        ran = [e for e in session.timeline() if e["ph"] == "X"]
    assert {e["tid"] for e in ran} <= {1, 2}  # the two processes of one partition
    assert max(e["args"]["requests"] for e in ran) <= 8
    assert sum(e["args"]["requests"] for e in ran) == 80


@pytest.mark.parametrize("name", ["spacetime", "whole-gpu", "time-only"])
def test_a_planners_plan_runs(name: str) -> None:
    workload, points = load("mlp", "conv", "mlp", rate_rps=5), profiles(sizes=(1, 2, CORES))
    made = planner(name).plan(workload, points, cpu(CORES), PlanOptions())
    here = {each.tenant for part in made.gpus[0].partitions for each in part.tenants}
    with PlannedSession(made, workload, points, device="cpu", gpu=0) as session:
        for n, each in enumerate(workload.tenants):
            if each.name in here:
                x = X if each.model == "mlp" else PICTURE
                session.add(module(each.model, n), example_inputs=(x,), name=each.name)(x)
        assert session.report()["overall"]["completed"] == len(here)
        assert "of the plan by" in session.explain()


def test_sms_and_percentages_lie_on_a_fake_device() -> None:
    workload = load("mlp", "conv")
    for kind, units, planned in (("sm", (48, 84), "48"), ("mps", (36, 64), "36 percent")):
        points = profiles("h200-141gb", kind, units)
        made = plan(
            part("a", on("t0", 4), units=units[0], kind=kind),
            part("b", on("t1", 2), units=units[1], kind=kind),
            device="h200-141gb",
        )
        with PlannedSession(made, workload, points, device="fake:h200") as session:
            models = filled(session, workload)
            same_answers(session, models, 10)
            granted = [session.device.size(units) for units in session.partitions]
            assert granted == [48, 84]
            assert (
                f"partition a: {planned} planned, 48 of 132 SMs granted" in session.explain()
                or (kind == "sm")
            )


@pytest.mark.parametrize(("parts", "percent"), [(9, 11), (13, 7), (16, 6), (2, 50), (3, 33)])
def test_percentages_that_fit_a_device_are_granted(parts: int, percent: int) -> None:
    made = plan(
        *(part(f"p{n}", on("t0", 1, 1.0), units=percent, kind="mps") for n in range(parts)),
        device="h200-141gb",
    )
    device = open_device("fake:h200")
    placed = laid_on(made, load("mlp"), profiles("h200-141gb", "mps", (percent,)), device)
    granted = [unit for units in placed.units for unit in units]
    assert len(placed.units) == parts
    assert len(set(granted)) == len(granted) <= len(device.units)


def test_a_plan_that_breaks_a_bound_is_refused_before_anything_opens() -> None:
    workload = load("mlp")
    busy = plan(part("p", on("t0", 1, 5000)))
    for made, reason in (
        (busy, "p: utilisation: busy"),
        (plan(part("p", on("t0", 1), units=CORES + 1)), "units"),
        (plan(part("p", on("t0", 1, 10))), "t0: rate"),
        (plan(part("p", Assignment("t0", 1, 20, 0.5))), "promises 0.5 ms"),
        (plan(part("p", on("t0", 1)), device="cpu-99"), "device"),
    ):
        with pytest.raises(PlanError, match=reason):
            PlannedSession(made, workload, profiles(), device="no such device is looked for")


def test_what_no_session_can_drive_is_refused_by_name() -> None:
    workload = load("mlp")
    mig = plan(part("g0p0", on("t0", 1), units=7, kind="mig"), device="h200-141gb")
    mig = replace(mig, gpus=(GpuPlan(0, (replace(mig.gpus[0].partitions[0], start=0),)),))
    with pytest.raises(PlanError, match="g0p0: a session cannot drive partitions of kind mig"):
        PlannedSession(mig, workload, profiles("h200-141gb", "mig", (7,)), device="fake:h200")
    with pytest.raises(PlanError, match="p: is of kind cores, device fake:h200 has sm and mps"):
        PlannedSession(plan(part("p", on("t0", 1))), workload, profiles(), device="fake:h200")
    larger = plan(part("p", on("t0", 1), units=64), device="cpu-64")
    if CORES < 64:
        with pytest.raises(UnsupportedError, match="64 cores are not there"):
            PlannedSession(larger, workload, profiles("cpu-64", sizes=(64,)), device="cpu")


def test_one_device_of_several_is_chosen_by_its_number() -> None:
    workload = load("mlp", "conv")
    first, second = part("a", on("t0", 1)), part("b", on("t1", 1))
    made = Plan("by hand", CPU, (GpuPlan(0, (first,)), GpuPlan(1, (second,))))
    with pytest.raises(PlanError, match="gpu: the plan has devices 0, 1; a session is one of them"):
        PlannedSession(made, workload, profiles(), device="cpu")
    with pytest.raises(PlanError, match="gpu: 2 is none of the plan's: 0, 1"):
        PlannedSession(made, workload, profiles(), device="cpu", gpu=2)
    with PlannedSession(made, workload, profiles(), device="cpu", gpu=1) as session:
        session.add(convnet(0), example_inputs=(PICTURE,), name="t1")
        with pytest.raises(InvalidInput, match="a tenant the plan serves here: t1"):
            session.add(mlp(0), example_inputs=(X,), name="t0")


def test_a_model_that_cannot_batch_is_refused_and_leaves_nothing() -> None:
    workload = load("mlp")
    with PlannedSession(plan(part("p", on("t0", 4))), workload, profiles(), device="cpu") as held:
        with pytest.raises(PlanError, match="t0: the plan gives it batches of 4, its model"):
            held.add(Centred().eval(), example_inputs=(torch.randn(1, 6),), name="t0")
        assert held.tenants == {}
        held.add(mlp(0), example_inputs=(X,), name="t0")(X)


class Centred(nn.Module):
    """Rows depend on each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)
