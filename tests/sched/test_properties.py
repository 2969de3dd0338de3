"""What holds for every policy, whatever happens: driven by random events, checked at each step."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime import Recording, _native, replay

LIMIT = 6  # waiting requests of a tenant


@dataclass
class Account:
    """An independent account of a scheduler's requests and lanes, made from its actions alone."""

    made: _native.Scheduler
    lanes: int
    sheds: bool
    now: int = 0
    waiting: dict[int, int | None] = field(default_factory=dict)  # request -> deadline
    tenant_of: dict[int, int] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    running: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    arrived: int = 0
    completed: int = 0
    dropped: int = 0

    def note(self, actions: list[tuple]) -> None:
        for action in actions:
            if action[0] == "drop":
                _, request, tenant, reason = action
                assert self.tenant_of[request] == tenant
                deadline = self.waiting.pop(request)
                due = deadline is not None and deadline <= self.now
                early = self.sheds and deadline is not None
                assert (reason == "deadline") == due or (early and reason == "deadline")
                self.dropped += 1
                continue
            _, launch, lane, family, bucket, requests, _predicted = action
            assert lane not in {lane for lane, _ in self.running.values()}
            assert requests
            samples = sum(self.samples[r] for r in requests)
            assert bucket >= samples
            assert bucket in {1, 2, 4} or len(requests) == 1
            assert {self.tenant_of[r] % 2 for r in requests} == {family}
            for request in requests:
                deadline = self.waiting.pop(request)
                assert deadline is None or deadline > self.now
            self.running[launch] = (lane, requests)
        self.check()

    def check(self) -> None:
        assert self.made.waiting == len(self.waiting)
        assert self.made.running == len(self.running)
        flying = len(self.waiting) + sum(len(r) for _, r in self.running.values())
        assert self.arrived == self.completed + self.dropped + flying
        wake = self.made.next_wake
        assert wake is None or wake > self.now
        deadlines = [d for d in self.waiting.values() if d is not None]
        assert all(d > self.now for d in deadlines)
        if deadlines:
            assert wake is not None
            assert wake <= min(deadlines)

    def arrive(self, request: int, tenant: int, samples: int, slo: int | None) -> None:
        deadline = None if slo is None else self.now + slo
        self.arrived += 1
        self.waiting[request] = deadline
        self.tenant_of[request] = tenant
        self.samples[request] = samples
        self.note(self.made.arrive(request, tenant, self.now, samples=samples, deadline=deadline))

    def finish(self, launch: int) -> None:
        _, requests = self.running.pop(launch)
        self.completed += len(requests)
        self.note(self.made.finish(launch, self.now))

    def pass_time(self, by: int) -> None:
        """Time goes on, stopping at every wake-up on the way."""
        end = self.now + by
        while (wake := self.made.next_wake) is not None and wake <= end:
            self.now = wake
            self.note(self.made.wake(wake))
        self.now = end


def build(rng: random.Random, choice: dict[str, str], lanes: int) -> Account:
    sheds = rng.random() < 0.3
    made = _native.Scheduler(
        _native.Policy(
            **choice,
            shed=sheds,
            timeout_ns=700,
            lend=rng.random() < 0.5,
            straggler_multiple=rng.choice([0.0, 1.5]),
            straggler_patience=2,
            straggler_lane=rng.choice([None, lanes - 1]),
        ),
        record=1 << 20,
    )
    for _ in range(lanes):
        made.add_lane(units=rng.randint(1, 3), borrows=rng.random() < 0.8)
    for family in range(2):
        made.add_family([1, 2, 4])
        for lane in range(lanes):
            for bucket, latency in ((1, 1000), (2, 1200), (4, 1600)):
                made.set_latency(family, lane, bucket, latency * (1 + lane))
    for tenant in range(6):
        made.add_tenant(
            tenant % 2,
            lane=rng.randrange(lanes),
            lane_weights=[rng.random() + 0.1 for _ in range(lanes)],
            weight=rng.choice([0.5, 1.0, 4.0]),
            priority=rng.randint(-1, 1),
            queue_limit=LIMIT,
        )
    if choice["order"] == "duty":
        for lane in range(lanes):
            turns = [(rng.randrange(6), rng.randint(1, 4)) for _ in range(rng.randint(0, 4))]
            made.set_duty(lane, turns)
    return Account(made, lanes, sheds)


def step(account: Account, rng: random.Random, number: int, removed: set[int]) -> None:
    event = rng.random()
    if event < 0.5:
        tenant = rng.randrange(6)
        account.arrive(number, tenant, rng.choice([1, 1, 1, 2, 7]), rng.choice([None, 900, 5000]))
    elif event < 0.75 and account.running:
        account.finish(rng.choice(sorted(account.running)))
    elif event < 0.82 and account.waiting:
        request = rng.choice(sorted(account.waiting))
        found, actions = account.made.cancel(request, account.now)
        assert found
        account.note(actions)
    elif event < 0.83 and len(removed) < 4:
        tenant = rng.randrange(6)
        removed.add(tenant)
        account.note(account.made.remove_tenant(tenant, account.now))
        assert not [r for r in account.waiting if account.tenant_of[r] == tenant]
    else:
        account.pass_time(rng.choice([0, 1, 50, 1000, 4000]))


CHOICES = st.fixed_dictionaries(
    {
        "route": st.sampled_from(_native.ROUTES),
        "order": st.sampled_from(_native.ORDERS),
        "batch": st.sampled_from(_native.BATCHES),
    }
)


@settings(max_examples=300, deadline=None)
@given(choice=CHOICES, lanes=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_every_request_leaves_once_and_no_lane_runs_two(
    choice: dict[str, str], lanes: int, seed: int
) -> None:
    rng = random.Random(seed)
    account = build(rng, choice, lanes)
    removed: set[int] = set()
    for number in range(120):
        step(account, rng, number, removed)
    while account.running or account.waiting:
        account.pass_time(2000)
        for launch in sorted(account.running):
            account.finish(launch)
    assert account.arrived == account.completed + account.dropped
    again = replay(Recording(account.made.recording()))
    assert again.same
    assert (again.requests, again.drops) == (account.arrived, account.dropped)


@settings(max_examples=60, deadline=None)
@given(choice=CHOICES, lanes=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_closing_at_any_moment_leaves_nothing_waiting(
    choice: dict[str, str], lanes: int, seed: int
) -> None:
    rng = random.Random(seed)
    account = build(rng, choice, lanes)
    for number in range(rng.randint(1, 60)):
        step(account, rng, number, set())
    account.note(account.made.drop_all(account.now))
    assert not account.waiting
    assert account.made.next_wake is None
    for launch in sorted(account.running):
        account.finish(launch)
    account.arrive(1000, 0, 1, None)
    assert account.arrived == account.completed + account.dropped


@settings(max_examples=60, deadline=None)
@given(choice=CHOICES, seed=st.integers(0, 2**32))
def test_no_lane_idles_while_work_it_may_start_waits(choice: dict[str, str], seed: int) -> None:
    """Only the rules timeout and slack hold work back, and only until the wake they ask for."""
    rng = random.Random(seed)
    account = build(rng, choice, 1)
    for number in range(80):
        step(account, rng, number, set())
        if account.waiting and not account.running:
            assert choice["batch"] in {"timeout", "slack"}
            assert choice["order"] != "duty"
            assert account.made.next_wake is not None


@pytest.mark.parametrize("order", ["fifo", "edf", "fair", "duty"])
def test_a_steady_flood_of_others_starves_nobody(order: str) -> None:
    made = _native.Scheduler(
        _native.Policy(route="pinned", order=order, batch="greedy", lend=False)
    )
    made.add_lane()
    for family in range(2):
        made.add_family([1, 4])
        made.set_latency(family, 0, 1, 1000)
        made.set_latency(family, 0, 4, 1600)
        made.add_tenant(family, lane=0)
    made.add_tenant(0, lane=0)
    if order == "duty":
        made.set_duty(0, [(0, 4), (1, 4)])  # tenant 2 has no turn of its own
    now, launch, number = 0, 1, 10
    actions = made.arrive(0, 0, now, deadline=10_000)
    made.arrive(1, 2, now, deadline=100_000)
    for _ in range(100):
        if any(1 in action[5] for action in actions if action[0] == "start"):
            return
        for tenant in (0, 1, 0, 1, 0, 1, 0, 1):
            made.arrive(number, tenant, now, deadline=now + 10_000)
            number += 1
        now += 1600
        actions = made.finish(launch, now)
        launch += 1
    pytest.fail("tenant 2 starved")
