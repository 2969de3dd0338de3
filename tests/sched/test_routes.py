"""Which lane a request is queued on."""

from __future__ import annotations

from hand import scheduler, starts

ALONE = {"batch": "one", "order": "fifo", "lend": False}
# Three partitions: the small ones are slower.
SIZES = [{"units": 4}, {"units": 1}, {"units": 1}]


def sized(route: str = "elsa", *, latency: tuple[int, int, int] = (1000, 3000, 3000), **policy):
    made = scheduler(**ALONE, route=route, lanes=SIZES, families=[], tenants=[], **policy)
    family = made.add_family([1])
    for lane, latency_ns in enumerate(latency):
        made.set_latency(family, lane, 1, latency_ns)
    made.add_tenant(family)
    return made


def lanes_of(made, deadlines: list[int | None], now: int = 0) -> list[int]:
    """Requests arrive one after another; the lanes that serve them in the end."""
    lane_of: dict[int, int] = {}
    launches: dict[int, tuple[int, int]] = {}

    def note(actions) -> None:
        for action in actions:
            if action[0] == "start":
                _, launch, lane, _, _, requests, predicted = action
                launches[launch] = (now + predicted, lane)
                lane_of.update(dict.fromkeys(requests, lane))

    for number, deadline in enumerate(deadlines):
        note(made.arrive(number, 0, now, deadline=deadline))
    while launches:
        launch = min(launches, key=lambda key: launches[key])
        now, _ = launches.pop(launch)
        note(made.finish(launch, now))
    return [lane_of.get(number, -1) for number in range(len(deadlines))]


def test_pinned_goes_where_the_plan_says_even_if_another_lane_is_free() -> None:
    made = scheduler(**ALONE, route="pinned", lanes=2, tenants=[{"lane": 1}])
    assert [starts(made.arrive(n, 0, 0)) for n in range(3)] == [[(1, (0,))], [], []]


def test_weighted_follows_the_planned_rates_smoothly() -> None:
    tenants = [{"lane_weights": [3.0, 0.0, 1.0]}]
    made = scheduler(**ALONE, route="weighted", lanes=3, tenants=tenants)
    assert lanes_of(made, [None] * 8) == [0, 0, 2, 0, 0, 0, 2, 0]


def test_weighted_without_weights_uses_the_lane() -> None:
    made = scheduler(**ALONE, route="weighted", lanes=2, tenants=[{"lane": 1}])
    assert lanes_of(made, [None] * 3) == [1, 1, 1]


def test_least_wait_goes_where_the_answer_is_expected_first() -> None:
    # Lane 0 answers after 1000, 2000, ...; the small lanes after 3000, 6000. Where the answers
    # tie (3000), the lane with fewer requests.
    assert lanes_of(sized("least-wait"), [None] * 7) == [0, 0, 1, 2, 0, 0, 0]


def test_least_wait_counts_what_joining_a_batch_costs() -> None:
    made = scheduler(route="least-wait", order="fifo", batch="greedy", lend=False, lanes=2)
    made.arrive(0, 0, 0)  # lane 0 until 1000
    made.arrive(1, 0, 500)  # lane 1 until 1500
    made.arrive(2, 0, 500)  # lane 0
    # Joining 2 it is answered at 1000 + L(2) = 2200; alone on lane 1 at 1500 + L(1) = 2500.
    made.arrive(3, 0, 500)
    assert starts(made.finish(1, 1000)) == [(0, (2, 3))]


def test_least_wait_spreads_requests_whose_latency_nobody_knows() -> None:
    made = scheduler(**ALONE, route="least-wait", lanes=3, families=[], tenants=[])
    made.add_tenant(made.add_family([1]))
    assert [starts(made.arrive(n, 0, 0)) for n in range(3)] == [[(n, (n,))] for n in range(3)]


def test_only_lanes_with_latencies_are_chosen() -> None:
    made = scheduler(**ALONE, route="least-wait", lanes=3, families=[], tenants=[])
    family = made.add_family([1])
    made.set_latency(family, 2, 1, 1000)
    made.add_tenant(family)
    assert lanes_of(made, [None] * 3) == [2, 2, 2]


def test_elsa_takes_the_smallest_partition_whose_slack_stays_positive() -> None:
    assert lanes_of(sized(), [3001]) == [1]
    assert lanes_of(sized(), [3000]) == [0]  # slack 0 is not positive


def test_elsa_takes_the_least_wait_inside_a_size_class() -> None:
    assert lanes_of(sized(), [9000] * 6) == [1, 2, 1, 2, 0, 0]


def test_elsa_first_fit_piles_up_on_the_first_lane() -> None:
    assert lanes_of(sized(first_fit=True), [9000] * 6) == [1, 1, 2, 2, 0, 0]


def test_elsa_falls_back_to_the_earliest_finish() -> None:
    # Slack is positive nowhere: answers after 1000, 2000, 3000 (all on lane 0), then 3000 on 1.
    assert lanes_of(sized(), [999] * 1) == [0]
    made = sized(latency=(2000, 3000, 3000))
    assert lanes_of(made, [1999, 2001, 2001]) == [0, 1, 2]


def test_elsa_beta_weighs_the_requests_own_time_and_alpha_the_whole() -> None:
    assert lanes_of(sized(elsa_beta=1.1), [3200]) == [0]
    assert lanes_of(sized(elsa_alpha=1.1), [3200]) == [0]
    assert lanes_of(sized(elsa_alpha=1.1), [3301]) == [1]


def test_elsa_counts_the_rest_of_a_running_launch() -> None:
    made = sized(latency=(1000, 3000, 3000))
    for number in range(2):
        assert starts(made.arrive(number, 0, 0)) == [(number + 1, (number,))]
    # At 2000 the small lanes are busy until 3000: 1000 + 3000 < 4001.
    assert made.arrive(2, 0, 2000, deadline=6001) == []
    assert starts(made.finish(1, 3000)) == [(1, (2,))]
    assert starts(made.arrive(3, 0, 3000, deadline=6000)) == [(0, (3,))]
