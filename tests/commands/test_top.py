"""`spacetime top`: what is shown fits its terminal, and it outlives the server it watches."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as some
from rich.cells import cell_len
from rich.console import Console

from spacetime.cli.root import cli
from spacetime.commands.top import Reading, address, parse, summary
from spacetime.commands.top_screen import tables
from spacetime.errors import InvalidInput

HOME = b"\x1b[H"  # begins a picture
NAMES = ("resnet", "a-name-that-no-narrow-terminal-holds", "[red]x", "名前")


# One lane; two by the plan; any, as each request chooses.
ROUTES: list[list[tuple[int, float]]] = [
    [(1, 1.0)], [(0, 0.25), (1, 0.75)], [(lane, 0.0) for lane in range(40)]
]  # fmt: skip


def exposed(tenants: int, answered: int, *, lanes: int = 2, controlled: bool = True) -> str:
    """What a server exposes when each of its tenants has had so many answers."""
    names = [NAMES[n] if n < len(NAMES) else f"t{n}" for n in range(tenants)]
    lines = [
        'spacetime_info{version="1",policy="space-time",device="cpu-2"} 1',
        "spacetime_ready 1",
    ]
    for number, name in enumerate(names):
        of = f'{{model="{name}",version="1"}}'
        lines += [
            f"nv_inference_request_success{of} {answered * (number + 1)}",
            f"nv_inference_pending_request_count{of} {number}",
            f"spacetime_slo_met_total{of} {answered * number}",
            f"spacetime_slo_miss_total{of} {answered}",
            f"spacetime_latency_p99_seconds{of} 0.0123",
        ]
        lines += [
            f'spacetime_route_share{{model="{name}",lane="{lane}"}} {part}'
            for lane, part in ROUTES[number % len(ROUTES)][:lanes]
        ]
    for lane in range(lanes):
        of = f'{{lane="{lane}",kind="cores"}}'
        lines += [f"spacetime_units{of} {lane}", f"spacetime_launches_total{of} {answered}"]
    if controlled:
        lines += [
            "spacetime_controller_running 1",
            "spacetime_planned_units 2",
            'spacetime_replans_total{outcome="move",reason="rise"} 2',
            'spacetime_replans_total{outcome="move",reason="misses"} 1',
            'spacetime_replans_total{outcome="refused",reason="rise"} 4',
            "spacetime_last_replan_timestamp_seconds 1e9",
        ]
    return "\n".join(lines) + "\n"


def reading(seconds: float, tenants: int, answered: int, lanes: int = 2) -> Reading:
    return parse(exposed(tenants, answered, lanes=lanes), seconds)


def shown(width: int, height: int, now: Reading, last: Reading | None, trouble: str = "") -> str:
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as said:
        console.print(tables(summary(now, last), width, height, trouble))
    return said.get()


@settings(deadline=None)
@given(
    some.tuples(some.integers(24, 200), some.integers(20, 80)),
    some.integers(0, 60), some.integers(0, 10**9), some.integers(1, 40), some.booleans(),
)  # fmt: skip
def test_whatever_the_terminal_it_fits_and_cuts_no_number(
    size: tuple[int, int], tenants: int, answered: int, lanes: int, once: bool
) -> None:
    first, now = reading(1.0, tenants, 0, lanes), reading(2.0, tenants, answered, lanes)
    lines = shown(*size, now, None if once else first, "no answer").splitlines()
    assert max(map(cell_len, lines)) <= size[0]
    assert len(lines) <= size[1]
    rows = [line.split() for line in lines[3:]]
    assert not any("…" in cell for row in rows for cell in row[1:])
    assert sum(row[:1] == ["lane"] for row in rows) == 1
    if 0 < tenants < 8:
        assert sum(row[:1] == ["[red]x"] for row in rows) == (tenants > 2)


def test_forty_columns_show_what_matters() -> None:
    said = shown(40, 24, reading(12.0, 3, 2000), reading(10.0, 3, 0))
    assert "tenant" in said
    assert "in time" in said
    assert "3,000" in said  # a second, of the third
    assert "[red]x" in said
    assert "a-name-th…" in said


def test_re_plans_and_lanes_without_units() -> None:
    told = summary(reading(1.0, 1, 5), None)
    assert told["controller"] == {
        "running": True, "planned_units": 2, "last_replan": 1e9,
        "move": 3, "stay": 0, "refused": 4,
    }  # fmt: skip
    said = shown(100, 40, reading(1.0, 1, 5), None)
    assert "re-plans: 3 moves, 0 stays, 4 refused, last at " in said
    assert "2 units planned" in said
    assert [line.split()[0] for line in said.splitlines() if line[:2] in {" 0", " 1"}] == ["1"]
    assert summary(parse(exposed(1, 5, controlled=False), 1.0), None)["controller"] is None


def test_which_tenant_runs_where_and_on_what() -> None:
    said = shown(120, 40, reading(2.0, 3, 50, 2), reading(1.0, 3, 0, 2)).splitlines()
    heads = next(line for line in said if line.strip().startswith("tenant")).split()
    assert "lane" in heads
    rows = {line.split()[0]: line for line in said if line.split()[:1]}
    assert " 1 " in rows["resnet"]
    assert any("1: 75%, 0: 25%" in line for line in said)
    assert " any " in rows["[red]x"]
    assert "1 core" in rows["1"]
    assert "q ends" in said[0]


class Answers(BaseHTTPRequestHandler):
    """Each reading has one answer more."""

    readings = 0

    def do_GET(self) -> None:
        Answers.readings += 1
        body = exposed(2, Answers.readings).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metrics(port: int = 0) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", port), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@contextmanager
def watching(port: int) -> Iterator[tuple[subprocess.Popen[bytes], Callable[..., None], int]]:
    """`spacetime top` in a terminal of 40 columns, how to wait for what it writes, our end."""
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    url = f"http://127.0.0.1:{port}/metrics"
    main = (  # a shell that starts jobs behind itself leaves SIGINT ignored; a terminal does not
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from spacetime.cli.root import main; main()"
    )
    top = subprocess.Popen(
        [sys.executable, "-c", main, "top", "--url", url, "--interval", "0.05"],
        stdout=inside, stdin=inside, stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
        | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(inside)
    seen = bytearray()

    def until(text: bytes, without: bytes = HOME) -> None:
        """Reads up to a picture that has `text`, and not the other."""
        del seen[:]
        while not any(text in each and without not in each for each in seen.split(HOME)):
            seen.extend(os.read(terminal, 65536))  # ends with the test's own timeout, if never

    try:
        yield top, until, terminal
    finally:
        top.kill()
        top.communicate()
        os.close(terminal)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_when_told_and_gives_the_terminal_back(number: signal.Signals, status: int) -> None:
    with metrics() as port, watching(port) as (top, until, _):
        until(b"resnet")
        top.send_signal(number)
        until(b"\x1b[?1049l")
        assert top.wait(30) == status
        assert top.stderr is not None
        assert b"Traceback" not in top.stderr.read()


def test_a_server_that_goes_away_is_waited_for_and_shown_again() -> None:
    with ExitStack() as opened:
        with metrics() as port:
            top, until, _ = opened.enter_context(watching(port))
            until(b"resnet")
        until(b"no answer for")
        with metrics(port):
            until(b"in time", without=b"no answer for")
            assert top.poll() is None


def test_without_a_terminal_it_prints_once() -> None:
    with metrics() as port:
        before = Answers.readings
        said = CliRunner().invoke(cli, ["top", "--url", f"http://127.0.0.1:{port}/metrics"])
        assert said.exit_code == 0
        assert "since the start" in said.output
        assert Answers.readings == before + 1


def test_q_ends_it_and_gives_the_terminal_back() -> None:
    with metrics() as port, watching(port) as (top, until, terminal):
        until(b"resnet")
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO  # a key is not shown
        os.write(terminal, b"xq")
        until(b"\x1b[?1049l")
        assert top.wait(30) == 0
        assert termios.tcgetattr(terminal)[3] & termios.ECHO


@pytest.mark.parametrize(
    ("told", "means"),
    [
        ("localhost:8002", "http://localhost:8002/metrics"),
        ("127.0.0.1", "http://127.0.0.1:8002/metrics"),
        ("9002", "http://127.0.0.1:9002/metrics"),
        ("[::1]:81", "http://[::1]:81/metrics"),
        ("[::1]", "http://[::1]:8002/metrics"),
        ("host:1/metrics", "http://host:1/metrics"),
        ("http://host:1", "http://host:1/metrics"),
        ("http://host:1/", "http://host:1/metrics"),
        ("https://host/own/path", "https://host/own/path"),
    ],
)
def test_an_address_may_be_short(told: str, means: str) -> None:
    assert address(told) == means


@pytest.mark.parametrize("told", ["", "ftp://host:1", "http://", "host:port", "file:///etc/hosts"])
def test_what_is_no_address_is_refused(told: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        address(told)


def test_what_answers_without_metrics_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics() as port:
        for body in ("<html>hello</html>", "up 1\n", "", "a{b=\x00"):
            monkeypatch.setattr(f"{__name__}.exposed", lambda *_, body=body: body)
            said = CliRunner().invoke(cli, ["top", "--url", f"localhost:{port}"])
            assert str(said.exception).endswith("something else than metrics of spacetime is")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/metrics", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://[::1"],
)
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    said = CliRunner().invoke(cli, ["top", "--url", url])
    assert isinstance(said.exception, InvalidInput)
    assert str(said.exception).startswith("url must be a server's metrics, got http")
    assert "\n" not in str(said.exception)
    if ":1/" in url:
        assert "no server there (Connection refused)" in str(said.exception)
