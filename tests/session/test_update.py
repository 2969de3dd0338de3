"""Weights that change: the owner's module, which no answer follows, and update(), which all do."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from update_models import BranchLevel, Level, Norm, Picks, Scale, Tied, X

import spacetime as st
from spacetime.models.cpu.family import CpuFamily

PLACES = [("cpu", "thread"), ("cpu", "process"), ("fake:h200", "thread")]
MAKERS: list[Callable[[int], nn.Module]] = [Picks, Tied, Norm, lambda seed: Scale(seed, 2.0)]


@pytest.fixture(params=PLACES, ids="-".join)
def session(request: pytest.FixtureRequest) -> Iterator[st.Session]:
    device, isolation = request.param
    with st.Session(device, lanes=1, isolation=isolation) as opened:
        yield opened


def same(got: Any, want: Any) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> Any:
    return model(x)


def added(session: st.Session, model: nn.Module) -> st.Tenant:
    return session.add(model.eval(), example_inputs=(torch.randn(1, 4),))


@torch.no_grad()
def spoil(model: nn.Module) -> None:
    """Everything an owner may do to a module."""
    for x in (*model.parameters(), *model.buffers()):
        x.zero_()
    model.load_state_dict({k: torch.ones_like(v) for k, v in model.state_dict().items()})
    for part in model.children():
        for name in [*part._parameters]:
            setattr(part, name, None)
    model.train()
    model.__dict__["_modules"].clear()
    model.forward = lambda *_: torch.zeros(())  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("make", [Picks, Tied, BranchLevel])
@pytest.mark.parametrize("members", [1, 3])
def test_a_tenant_is_a_snapshot(
    session: st.Session, make: Callable[[int], nn.Module], members: int
) -> None:
    models = [make(seed) for seed in range(members)]
    x = torch.randn(3, 4)
    wanted = [answer(model, x) for model in models]
    tenants = []
    for model in models:
        tenants.append(added(session, model))
        spoil(model)  # before the next one joins
        for tenant, want in zip(tenants, wanted, strict=False):
            same(tenant(x), want)
    session.remove(tenants[0])
    late = make(7)
    wanted = [*wanted[1:], answer(late, x)]
    tenants = [*tenants[1:], added(session, late)]
    del late
    for tenant, want in zip(tenants, wanted, strict=True):
        same(tenant(x), want)


def test_what_cannot_be_copied_is_used_as_it_is() -> None:
    model = nn.Linear(4, 3).eval()
    model.lock = threading.Lock()  # type: ignore[assignment]
    model.computed = model.weight * 2  # type: ignore[assignment]
    want = answer(model, X)
    with st.Session("cpu", lanes=1) as session:
        tenant = added(session, model)
        spoil(model)
        same(tenant(X), want)


@pytest.mark.parametrize("make", [*MAKERS, BranchLevel], ids=lambda make: make.__name__)
def test_an_update_brings_all_of_the_new_weights(
    session: st.Session, make: Callable[[int], nn.Module]
) -> None:
    models = [make(seed).eval() for seed in range(3)]
    tenants = [added(session, model) for model in models]
    x = torch.randn(3, 4)
    for turn, tenant in enumerate(tenants):
        models[turn] = make(10 + turn).eval()
        tenant.update(models[turn].state_dict())
        futures = [(i, tenants[i].submit(x)) for i in (0, 1, 2) * 3]
        for i, future in futures:
            same(future.result(), answer(models[i], x))
    last = make(20).eval()
    want = answer(last, x)
    session.update(tenants[0], last.state_dict())
    with torch.no_grad():
        for value in last.parameters():
            value.zero_()  # it was copied
    same(tenants[0](x), want)
    session.remove(tenants[1])
    same(tenants[0](x), want)
    same(tenants[2](x), answer(models[2], x))


def test_weights_that_are_not_numbers_are_weights(session: st.Session) -> None:
    model = Tied(0).eval()
    tenant = added(session, model)
    with torch.no_grad():
        model.inner.weight[0, 0] = float("nan")
        model.outer.bias[1] = float("inf")
    tenant.update(model.state_dict())
    same(tenant(X), answer(model, X))
    tenant.update(Tied(1).state_dict())
    same(tenant(X), answer(Tied(1), X))


def without(state: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in keys}


def test_a_state_dict_that_does_not_fit_changes_nothing(session: st.Session) -> None:
    model = Tied(0).eval()
    tenant = session.add(model, example_inputs=(X,), name="a")
    want, state = answer(model, X), dict(Tied(1).state_dict())
    other = state["inner.weight"] + 1
    wrong: list[tuple[Any, str]] = [
        (without(state, "inner.bias"), r"\['inner.bias'\] must be given"),
        (state | {"more": X}, r"\['more'\] must be left out"),
        (state | {"inner.bias": torch.zeros(5)}, r"\['inner.bias'\] must be .*shape \[4\]"),
        (state | {"inner.bias": torch.zeros(4).double()}, r"\['inner.bias'\] .*float64"),
        (state | {"inner.bias": torch.zeros(4, device="meta")}, r"\['inner.bias'\] .*meta"),
        (state | {"inner.bias": [0.0] * 4}, r"\['inner.bias'\] must be a tensor, got list"),
        (state | {"outer.weight": other}, "'inner.weight', with which it is tied"),
        (3, "state_dict must be a mapping"),
    ]
    for given, words in wrong:
        with pytest.raises(st.InvalidInput, match=f"^tenant a: state_dict.*{words}|{words}") as why:
            tenant.update(given)
        assert "\n" not in str(why.value)
        same(tenant(X), want)
    tenant.update(without(state, "outer.weight"))  # as safetensors keeps tied weights
    same(tenant(X), answer(Tied(1), X))


def test_a_value_that_a_family_shares_is_one_tenants_own_afterwards() -> None:
    with st.Session("cpu", lanes=1) as session:
        models = [Picks(seed).eval() for seed in range(3)]
        tenants = [added(session, model) for model in models]
        x = torch.randn(2, 4)

        def all_are_right() -> None:
            for i, future in [(i, tenants[i].submit(x)) for i in (*range(len(tenants)),) * 5]:
                same(future.result(), answer(models[i], x))

        for seed, picks in enumerate([(3, 1, 0, 0), (2, 2, 1, 0), (0, 1, 2, 3)]):
            models[1] = Picks(seed + 5, picks).eval()
            tenants[1].update(models[1].state_dict())
            all_are_right()
        models.append(Picks(9).eval())
        tenants.append(added(session, models[3]))
        all_are_right()


def test_what_is_no_tensor_in_a_state_dict_counts() -> None:
    with st.Session("cpu", lanes=1) as session:
        tenants = [added(session, Scale(seed, 2.0)) for seed in range(3)]
        for scale in (5.0, 2.0):
            for tenant in tenants[::2]:
                tenant.update(Scale(7, scale).state_dict())
                same(tenant(X), answer(Scale(7, scale), X))
        same(tenants[1](X), answer(Scale(1, 2.0), X))


@pytest.mark.parametrize("policy", ["space-time", "time-only"])
def test_a_member_that_returns_to_an_empty_family_is_itself(policy: str) -> None:
    with st.Session("cpu", policy=policy) as session:
        for members in (1, 2):
            models = [Tied(10 * members + i) for i in range(members + 2)]
            first = [added(session, model) for model in models[:members]]
            for tenant in first:
                session.remove(tenant)
            later = [added(session, model) for model in models[members:]]
            for tenant, model in zip(later, models[members:], strict=True):
                same(tenant(X), answer(model, X))
            for tenant in later:
                session.remove(tenant)


def test_tenants_that_are_gone_take_no_weights(session: st.Session) -> None:
    gone, stays = added(session, Tied(0)), added(session, Tied(1))
    state = Tied(2).state_dict()
    session.remove(gone)
    with pytest.raises(st.ClosedError, match="removed"):
        gone.update(state)
    with st.Session("cpu", lanes=1) as other, pytest.raises(st.InvalidInput, match="stranger"):
        other.update(stays, state)
    session.close()
    with pytest.raises(st.ClosedError, match="closed"):
        stays.update(state)


def levels_of(y: Tensor, z: Tensor) -> set[float]:
    """The levels that could have computed an answer to ones; empty where none could alone."""
    return {k for k in map(float, range(1, 60)) if _is(y, 5 * k) and _is(z, 40 * k * k + 2 * k)}


def _is(x: Tensor, value: float) -> bool:
    return bool(torch.allclose(x, torch.full_like(x, value), rtol=1e-5))


@pytest.mark.parametrize("make", [Level, BranchLevel])
@pytest.mark.parametrize("alone", [True, False])
def test_no_answer_is_mixed_and_none_is_lost_while_weights_change(
    session: st.Session, make: type[Level], alone: bool
) -> None:
    """Callers in threads know which levels may answer: at least the last that was in force when
    they asked, at most the newest that was begun before they got the answer."""
    count = 1 if alone else 3
    tenants = [added(session, make(1)) for _ in range(count)]
    begun, in_force = [1.0] * count, [1.0] * count
    stop, failures, answered = threading.Event(), list[str](), [0] * count

    def call(i: int) -> None:
        try:
            while not stop.is_set():
                least = in_force[i]
                futures = [tenants[i].submit(torch.ones(1 + n % 3, 4)) for n in range(6)]
                for future in futures:
                    found = levels_of(*future.result(60))
                    if not any(least <= level <= begun[i] for level in found):
                        failures.append(f"{i}: {found}, from {least} to {begun[i]}")
                answered[i] += len(futures)
        except BaseException as error:
            failures.append(repr(error))

    def update(i: int) -> None:
        try:
            for level in range(2, 8):
                begun[i] = float(level)
                tenants[i].update(make(level).state_dict())
                in_force[i] = float(level)
        except BaseException as error:
            failures.append(repr(error))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(count) for _ in range(2)]
    updaters = [threading.Thread(target=update, args=(i,)) for i in range(count)]
    for thread in (*callers, *updaters):
        thread.start()
    for thread in updaters:
        thread.join()
    stop.set()
    for thread in callers:
        thread.join()
    assert not failures
    assert all(answered)
    for tenant in tenants:
        assert levels_of(*tenant(X)) == {7.0}
    overall = session.report()["overall"]
    assert overall["offered"] == overall["completed"] == sum(answered) + count


def test_one_tenants_updates_come_from_several_threads(session: st.Session) -> None:
    tenant = added(session, Level(1))
    failures: list[BaseException] = []

    def update(level: int) -> None:
        try:
            tenant.update(Level(level).state_dict())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=update, args=(level,)) for level in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert levels_of(*tenant(X)) < {2.0, 3.0, 4.0, 5.0}


def test_a_callback_may_update_its_tenant(session: st.Session) -> None:
    tenant, done = added(session, Level(1)), threading.Event()

    def update(_: Any) -> None:
        tenant.update(Level(2).state_dict())
        done.set()

    tenant.submit(X).add_done_callback(update)
    assert done.wait(60)
    assert levels_of(*tenant(X)) == {2.0}


def test_the_program_of_a_tenant_that_has_left_is_not_kept() -> None:
    with st.Session("cpu", lanes=1) as session:
        tenant = added(session, Norm(0))
        family = tenant.family
        assert isinstance(family, CpuFamily)
        program = weakref.ref(family.runner.alone[tenant.member])
        session.remove(tenant)
        gc.collect()
        assert program() is None  # with it the weights go, although the family may be joined again
