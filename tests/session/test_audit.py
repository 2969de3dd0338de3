"""An audit in production: what it finds, what it must not find, and what it does about it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import Latch, Picky, X, mlp
from torch import Tensor, nn

import spacetime as st
from spacetime.errors import InvalidInput, ModelError
from spacetime.models.cpu.family import CpuFamily
from spacetime.models.cuda.family import CudaFamily
from spacetime.models.reference import Reference
from spacetime.reports.report import AuditCounts
from spacetime.session import audit
from spacetime.session.apart import alone_of
from spacetime.session.tenant import Tenant

INF, NAN = float("inf"), float("nan")


class Halved(nn.Module):
    """Cannot be exported, so it is run from the very weights its process maps."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x if x.sum() > 0 else x / 2)


def add(session: st.Session, count: int, make: Any = mlp, x: Tensor = X) -> list[Tenant]:
    return [
        session.add(make(n).eval(), example_inputs=(x,), name=f"{make.__name__}-{n}")
        for n in range(count)
    ]


def counts(session: st.Session, tenant: Tenant) -> AuditCounts:
    assert session.auditor is not None
    assert session.auditor.settle(60)
    return session.counters().tenants[tenant.name].audit


def spoil(session: st.Session, tenant: Tenant) -> None:
    """Zeroes, in the memory they are computed from, the weights of this tenant's family."""
    family = tenant.family
    if isinstance(family, CudaFamily):
        for row in family.members:  # no memory stands behind the others
            for weight in family.weights.of(row):
                weight.zero_()
    elif isinstance(family, CpuFamily):
        if family.fused is not None:
            for stack in family.fused.stacks.values:
                stack.zero_()
        else:  # another's program under its number
            programs = family.runner.alone
            programs[tenant.member] = programs[max(n for n in programs if n != tenant.member)]
    else:
        area = family.lanes._keeping.roster._tenants[tenant.member].model
        memory = area.reserve(1)
        at = bytes(memory).find(bytes(Halved(0).layer.weight.detach().numpy().tobytes()))
        assert at > 0
        memory[at : at + 72] = bytes(72)


def session_on(place: str, **options: Any) -> st.Session:
    if place == "process":
        return st.Session("cpu", isolation="process", lanes=1, audit=1.0, **options)
    return st.Session(place, max_batch=4, audit=1.0, **options)


PLACES = ["cpu", "fake:h200", "process"]


@pytest.mark.parametrize("place", PLACES)
def test_a_family_that_answers_wrongly_is_found_and_taken_apart(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = Halved if place == "process" else mlp
    with session_on(place, audit_stop=True) as session:
        tenants = add(session, 3, make)
        models = [make(n).eval() for n in range(3)]
        for tenant in tenants:
            tenant(torch.randn(2, 6))
            assert counts(session, tenant).differences == 0
        assert "taken apart" not in session.explain()
        spoil(session, tenants[0])
        for _ in range(3):
            tenants[0](torch.rand(1, 6) + 1)
        found = counts(session, tenants[0])
        assert 1 <= found.differences <= 3
        assert found.worst > 0.1
        assert alone_of(tenants[0].family) is not None
        asked = [
            (models[n], x := torch.randn(1 + k % 3, 6), tenants[n].submit(x))
            for k in range(40)
            for n in range(3)
        ]
        for model, x, future in asked:
            torch.testing.assert_close(future.result(60), model(x).detach())
        report, counted = session.report(), session.counters()
        assert session.auditor is not None
        text = session.explain()
    assert report["overall"]["completed"] == report["overall"]["offered"] == 126
    assert report["tenants"][f"{make.__name__}-0"]["audit"]["differences"] == found.differences
    assert counted.tenants[f"{make.__name__}-0"].apart
    assert "taken apart: each request runs alone, by the module itself, eagerly: tenant " in text
    told = [vars(record) for record in caplog.records if hasattr(record, "event")]
    lines = [line["fields"] for line in told if line["event"] == "audit"]
    assert {line["model"] for line in lines} == {tenants[0].name}
    assert "lane" in lines[0]
    assert [line["event"] for line in told].count("apart") == 1


def test_without_audit_stop_a_wrong_family_goes_on_and_is_counted() -> None:
    with st.Session("cpu", audit=1.0) as session:
        one, _ = add(session, 2)
        spoil(session, one)
        for _ in range(5):
            one(X + 1)
        assert counts(session, one).differences == 5
        assert alone_of(one.family) is None
        assert not session.counters().tenants[one.name].apart
        assert "audit: 100 %" in session.explain()
        assert one.report()["audit"]["differences"] == 5


@pytest.mark.parametrize("place", ["cpu", "fake:h200"])
def test_what_waits_and_runs_while_a_family_comes_apart_is_answered(place: str) -> None:
    with session_on(place, audit_stop=True) as session:
        tenants = add(session, 3)
        models = [mlp(n) for n in range(3)]
        spoil(session, tenants[0])
        xs = torch.randn(300, 1, 6)
        futures = [tenants[k % 3].submit(x) for k, x in enumerate(xs)]
        answers = [future.result(60) for future in futures]
        assert counts(session, tenants[0]).differences > 0
        late = [tenants[k % 3].submit(x) for k, x in enumerate(xs)]
        for k, (x, future) in enumerate(zip(xs, late, strict=True)):
            torch.testing.assert_close(future.result(60), models[k % 3](x).detach())
        assert len(answers) == 300
        assert session.report()["overall"]["completed"] == 600


@pytest.mark.parametrize("place", ["cpu", "fake:h200"])
def test_one_that_joins_a_family_taken_apart_is_answered_alone_and_one_may_leave(
    place: str,
) -> None:
    with session_on(place, audit_stop=True) as session:
        one, two = add(session, 2)
        spoil(session, one)
        one(X + 1)
        assert counts(session, one).differences == 1
        late = session.add(mlp(7), example_inputs=(X,), name="late")
        session.remove(two)
        torch.testing.assert_close(late(X + 1), mlp(7)(X + 1).detach())
        torch.testing.assert_close(one(X + 1), mlp(0)(X + 1).detach())
        assert session.counters().tenants["late"].apart == (late.family is one.family)


def test_inputs_and_answers_may_be_changed_once_the_future_is_resolved() -> None:
    with st.Session("cpu", audit=1.0) as session:
        (tenant,) = add(session, 1)
        for _ in range(50):
            x = torch.randn(3, 6)
            tenant(x).fill_(7)
            x.fill_(9)
        found = counts(session, tenant)
        assert (found.checked, found.differences) == (50, 0)


def test_an_error_where_the_module_answers_is_a_difference_and_its_own_is_none() -> None:
    ids = torch.zeros(1, 5, dtype=torch.long)
    with st.Session("cpu", audit=1.0) as session:
        tenant = session.add(Picky(0).eval(), example_inputs=(ids,))
        with pytest.raises(ModelError):
            tenant(ids + 99)
        assert counts(session, tenant) == AuditCounts(checked=1)
        assert isinstance(tenant.family, CpuFamily)
        tenant.family.runner.alone.clear()  # a fault of the runner, not of the model
        with pytest.raises(ModelError):
            tenant(ids)
        found = counts(session, tenant)
        assert (found.checked, found.differences, found.worst) == (2, 1, INF)
        assert session.report()["tenants"][tenant.name]["audit"]["worst_difference"] is None


def test_a_full_queue_skips_and_counts_and_holds_nobody_up() -> None:
    with st.Session("cpu", audit=1.0) as session:
        tenant = add(session, 1)[0]
        assert tenant.watch is not None
        held = Latch()
        tenant.watch.reference = Reference(held, tenant.watch.reference.spec, 1.0)
        tenant(X + 1)
        assert held.held.wait(60)  # the audit is busy
        for _ in range(audit.QUEUED + 10):
            tenant(X + 1)
        assert session.counters().tenants[tenant.name].audit.skipped == 10
        held.open.set()
        found = counts(session, tenant)
        assert (found.checked, found.skipped) == (audit.QUEUED + 1, 10)


def test_an_update_voids_what_was_sampled_before_it() -> None:
    with st.Session("cpu", audit=1.0) as session:
        tenant = add(session, 1)[0]
        assert tenant.watch is not None
        assert isinstance(tenant.family, CpuFamily)
        before = tenant.watch.sampled([X + 1])
        assert before is not None
        other = mlp(5)
        with audit.updating(tenant.watch, other.state_dict()):
            assert tenant.watch.sampled([X + 1]) is None
            tenant.family.runner.alone[0] = lambda x: (other(x),)
            during = tenant(X + 1)
        torch.testing.assert_close(during, other(X + 1).detach())
        tenant.watch.keep(before, torch.zeros(1, 3))  # answered late, by neither
        assert counts(session, tenant) == AuditCounts()
        tenant(X + 1)
        assert counts(session, tenant).checked == 1
        assert counts(session, tenant).differences == 0
        with pytest.raises(RuntimeError), audit.updating(tenant.watch, mlp(6).state_dict()):
            raise RuntimeError
        tenant(X + 1)
        assert counts(session, tenant).differences == 0


@pytest.mark.parametrize("part", [0.3, 0.01])
def test_a_part_of_each_tenants_requests_is_audited_and_its_first(part: float) -> None:
    with st.Session("cpu", audit=part) as session:
        often, seldom = add(session, 2)
        seldom(X)
        assert counts(session, seldom).checked == 1
        assert often.watch is not None
        taken = sum(often.watch.sampled([X]) is not None for _ in range(20_000))
        assert 0.8 * part < taken / 20_000 < 1.2 * part


@pytest.mark.parametrize("wrong", [-0.1, 1.5, 2, NAN, True, "some"])
def test_a_part_that_is_none_is_refused_in_a_line(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"audit must be .* from 0 to 1") as refused:
        st.Session("cpu", audit=wrong)
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidInput, match="audit_stop"):
        st.Session("cpu", audit_stop=True)


@pytest.fixture
def audits() -> Iterator[None]:
    yield
    gc.collect()
    assert "spacetime-audit" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("audits")
def test_close_ends_the_thread_and_the_counts_stay() -> None:
    session = st.Session("cpu", audit=1.0)
    tenant = add(session, 1)[0]
    for _ in range(20):
        tenant(X + 1)
    session.close()
    session.close()
    assert "spacetime-audit" not in [thread.name for thread in threading.enumerate()]
    assert session.counters().tenants[tenant.name].audit.checked == 20


@pytest.mark.usefixtures("audits")
def test_a_session_that_is_dropped_ends_its_audit() -> None:
    session = st.Session("cpu", audit=1.0, audit_stop=True)
    add(session, 1)[0](X + 1)
    del session
    gc.collect()


def test_a_tenant_that_leaves_takes_its_audit_along() -> None:
    with st.Session("cpu", audit=1.0) as session:
        one, _ = add(session, 2)
        one(X)
        session.remove(one)
        again = session.add(mlp(9), example_inputs=(X,), name=one.name)
        again(X + 1)
        assert counts(session, again).checked == 1
        assert counts(session, again).differences == 0


def test_nothing_is_audited_unless_asked() -> None:
    with st.Session("cpu") as session:
        (tenant,) = add(session, 1)
        tenant(X)
        assert session.auditor is None
        assert tenant.watch is None
        assert "audit" not in session.report()["tenants"][tenant.name]
        assert "audit" not in session.explain()


def test_a_tenant_of_a_family_taken_apart_gets_its_new_weights() -> None:
    # Without sharing a captured graph names the only row of the weights, and is captured anew.
    with st.Session("fake:h200", policy="time-only", audit=1.0, audit_stop=True) as session:
        (tenant,) = add(session, 1)
        spoil(session, tenant)
        tenant(torch.rand(1, 6) + 1)
        assert counts(session, tenant).differences == 1
        assert alone_of(tenant.family) is not None
        tenant.update(mlp(5).eval().state_dict())
        x = torch.randn(3, 6)
        torch.testing.assert_close(tenant(x), mlp(5).eval()(x).detach(), rtol=1e-4, atol=1e-5)
        assert not tenant.family.functions
