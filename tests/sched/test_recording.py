"""A recorded run replays to the same decisions; one that was altered does not."""

from __future__ import annotations

import json
import random
import re
import struct
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Latch, X, mlp

from spacetime import Recording, Session, _native, replay
from spacetime.cli import root
from spacetime.errors import InvalidInput, RecordingError, ReplayError
from spacetime.policy import PRESETS
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimNoise,
    SimTenant,
    simulate,
)

MS = 1_000_000
HEAD = b"spacetime.recording/2\n"


def sealed(body: bytes) -> Recording:
    """A recording with the checksum that its bytes call for (FNV-1a 64)."""
    checksum = 0xCBF29CE484222325
    for byte in body:
        checksum = (checksum ^ byte) * 0x100000001B3 & (2**64 - 1)
    return Recording(body + struct.pack("<Q", checksum))


def simulated(policy: str, seed: int = 0, requests: int = 400) -> Recording:
    run = simulate(
        policy=policy,
        lanes=[LaneSpec(units=1), LaneSpec(units=2)],
        families=[FamilySpec.uniform(2, {1: 2 * MS, 2: 3 * MS, 4: 4 * MS})] * 2,
        tenants=[
            SimTenant(
                family=i % 2,
                arrivals=SimArrivals(rate_rps=300.0),
                slo_ns=12 * MS,
                queue_limit=4,
                lane=i % 2,
                lane_weights=(1.0, 2.0),
            )
            for i in range(4)
        ],
        duty={0: [(0, 2), (2, 1)]} if PRESETS[policy].order == "duty" else None,
        noise=SimNoise(kind="exponential"),
        requests=requests,
        seed=seed,
        record=True,
    )
    assert run.recording is not None
    assert sum(t.completed + sum(t.dropped.values()) for t in run.tenants) == requests
    return run.recording


def one_request() -> bytearray:
    """The body of the smallest run: tenant 0's request 5 arrives and starts at once."""
    made = _native.Scheduler(_native.Policy(), record=1 << 16)
    made.add_lane()
    made.add_family([1])
    made.add_tenant(0)
    made.arrive(5, 0, 100)
    made.finish(1, 200)
    return bytearray(made.recording()[:-8])


@pytest.mark.parametrize("policy", PRESETS)
def test_a_session_replays_to_the_same_decisions(policy: str) -> None:
    rng = random.Random(0)
    with Session("cpu", policy=policy, record=True) as session:
        tenants = [session.add(mlp(i), example_inputs=(X,), slo_ms=30) for i in range(4)]
        hold = Latch().eval()
        held = session.add(hold, example_inputs=(X,))
        stuck = held.submit(torch.ones(1, 6))
        assert hold.held.wait(60)
        futures = []
        for number in range(300):
            tenant = rng.choice(tenants[: 4 if number < 200 else 3])
            x = torch.randn(rng.choice([1, 1, 2, 5]), 6)
            deadline = rng.choice([None, 0.05, 5, 1000])
            futures.append(tenant.submit(x, deadline_ms=deadline, priority=rng.randint(-1, 1)))
            if number % 9 == 0:
                rng.choice(futures).cancel()
            if number == 200:
                session.remove(tenants[3])
        hold.open.set()
        wait([*futures, stuck], 60)
        early = replay(session.recording())
        late_tenant = session.add(mlp(9), example_inputs=(X,))
        late_tenant(X)
    recording = session.recording()
    again = replay(recording)
    again.check()
    assert again.complete
    assert again.requests == 302
    assert early.same
    assert early.requests == 301
    assert early.events < again.events
    assert again.drops > 0


@pytest.mark.parametrize("policy", PRESETS)
def test_a_simulation_replays_to_the_same_decisions(policy: str) -> None:
    again = replay(simulated(policy))
    again.check()
    assert (again.requests, again.complete) == (400, True)
    assert again.starts > 50
    assert again.drops > 0


def test_recording_is_off_unless_asked_for() -> None:
    with Session("cpu") as session, pytest.raises(InvalidInput, match="record must be True"):
        session.recording()


def test_a_full_recording_replays_as_far_as_it_goes() -> None:
    made = _native.Scheduler(_native.Policy(), record=300)
    made.add_lane()
    made.add_family([1])
    made.add_tenant(0)
    for number in range(100):
        made.arrive(number, 0, number * 10)
        made.finish(number + 1, number * 10 + 5)
    data = made.recording()
    again = replay(Recording(data))
    assert again.same
    assert not again.complete
    assert 0 < again.requests < 100
    assert len(data) < 400


def test_another_decision_is_found_at_its_time() -> None:
    body = one_request()
    start = body.index(b"s\x01\x00\x00\x01\x01\x01\x05")  # launch 1, lane 0, ..., request 5
    body[start + 7] = 6
    again = replay(sealed(bytes(body)))
    assert again.difference is not None
    assert (again.difference.event, again.difference.at_ns) == (1, 0)
    assert again.difference.recorded.endswith("requests 6")
    assert again.difference.replayed.endswith("requests 5")
    with pytest.raises(ReplayError, match=r"0\.000000 ms after its first event, at event 1"):
        again.check()


def test_a_decision_taken_out_or_added_is_found() -> None:
    body = one_request()
    start = body.index(b"s\x01\x00\x00\x01\x01\x01\x05")
    without = replay(sealed(bytes(body[:start] + body[start + 8 :])))
    assert without.difference is not None
    assert without.difference.recorded == "decides nothing more"
    end = body.rindex(b"E")
    more = replay(sealed(bytes(body[:end] + b"d\x05\x00\x02" + body[end:])))
    assert more.difference is not None
    assert more.difference.recorded == "drops request 5 of tenant 0 (cancelled)"
    assert more.difference.at_ns == 100


def test_another_policy_decides_otherwise() -> None:
    body = bytearray(simulated("parvagpu").data[:-8])
    batch = len(HEAD) + 3  # mark, route, order, batch
    assert body[batch] == _native.BATCHES.index("greedy")
    body[batch] = _native.BATCHES.index("one")
    assert not replay(sealed(bytes(body))).same


BODY = simulated("space-time", requests=40).data[:-8]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BODY) + 7), st.integers(1, 255))
def test_every_altered_byte_is_found(place: int, flip: int) -> None:
    data = bytearray(sealed(BODY).data)
    data[place] ^= flip
    with pytest.raises(RecordingError, match=r"^recording: byte \d+: "):
        replay(Recording(bytes(data)))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BODY) + 7))
def test_a_recording_cut_off_is_found(length: int) -> None:
    with pytest.raises(RecordingError, match="recording: byte"):
        replay(Recording(sealed(BODY).data[:length]))
    with pytest.raises(RecordingError, match="recording: byte"):
        replay(sealed(BODY[: min(length, len(BODY) - 1)]))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(len(HEAD), len(BODY)),
            st.integers(0, 4),
            st.binary(max_size=10),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_was_altered_and_sealed_again_is_judged_not_trusted(
    edits: list[tuple[int, int, bytes]],
) -> None:
    body = BODY
    for place, gone, new in edits:
        body = body[:place] + new + body[place + gone :]
    judged = None
    try:
        judged = replay(sealed(body))
    except RecordingError as error:
        judged = str(error)
    assert not isinstance(judged, str) or re.fullmatch(r"recording: byte \d+: .+", judged)


CASES = {
    "same": (simulated("elsa").data, 0, ""),
    "cut off": (sealed(BODY).data[:-1], 2, "the checksum does not match"),
    "empty": (b"", 2, "byte 0: is no spacetime.recording/2"),
    "of an older version": (
        HEAD.replace(b"/2", b"/1") + BODY[len(HEAD) :] + b"checksum",
        2,
        "byte 0: is spacetime.recording/1, of an older version: replay it with that version",
    ),
    "missing": (None, 2, "cannot be read"),
    "altered": (sealed(bytes(one_request()).replace(b"\1\5f", b"\1\6f")).data, 1, "requests 6"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_command_says_which_in_one_line(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, status, says = CASES[case]
    path = tmp_path / "run.recording"
    if data is not None:
        path.write_bytes(data)
    monkeypatch.setattr("sys.argv", ["spacetime", "replay", str(path)])
    with pytest.raises(SystemExit) as end:
        root.main()
    out, err = capsys.readouterr()
    assert end.value.code == status
    assert says in err
    assert err.count("\n") == (status > 0)
    assert out.startswith("same: 400 requests") or status > 0


def test_the_command_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "run.recording"
    Recording(sealed(BODY).data).save(path)
    said = json.loads(CliRunner().invoke(root.cli, ["replay", str(path), "--json"]).output)
    assert (said["same"], said["requests"], said["difference"]) == (True, 40, None)
