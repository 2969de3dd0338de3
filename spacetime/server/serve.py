"""The serving process: ports, the session behind them, and how they stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socket import socket
from typing import Any

import uvloop

from spacetime.errors import InvalidInput
from spacetime.interruption import SIGNALS
from spacetime.live.controller_thread import LiveController
from spacetime.server.answers import Answers
from spacetime.server.grpc import service as rpc
from spacetime.server.grpc.health import Health
from spacetime.server.http.application import Application
from spacetime.server.http.intake import Intake
from spacetime.server.http.listener import GRACE_SECONDS, Listener, bind
from spacetime.server.http.page import Ports
from spacetime.server.journal import Journal, log
from spacetime.server.limits import Limits
from spacetime.server.metrics import MetricsApplication
from spacetime.server.repository import Repository
from spacetime.server.tls import Tls
from spacetime.server.tokens import Tokens

# The loop and the lanes' threads hand Python's lock to each other: the default of 5 ms is longer
# than a small launch.
SWITCH_SECONDS = 0.0005
# Requests leave hardly any cycle of references behind. Python's own threshold of 700 objects would
# look for one every ten requests.
YOUNG_OBJECTS = 20_000
OTHER_FILES = 256  # that are open besides the connections: models, lanes, libraries
POLL_SECONDS = 0.001  # between two looks at whether the listeners serve: uvicorn tells nobody


@dataclass(frozen=True, slots=True)
class Options:
    """Where a server listens and what it allows. Port 0 takes any free port.

    log_requests: the journal notes every request, not only those that end in a fault.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    limits: Limits = field(default_factory=Limits)
    tokens: Tokens = field(default_factory=Tokens)
    tls: Tls | None = None
    log_requests: bool = False


class Server:
    """A repository behind three ports: HTTP, gRPC and metrics.

    The ports are bound when it is made. Raises InvalidInput naming a port that is in use, or a
    host that is not this machine's.
    """

    def __init__(
        self, repository: Repository, options: Options, controller: LiveController | None = None
    ) -> None:
        self.repository = repository
        self.options = options
        self._controller = controller  # for its metrics; whoever made it starts and stops it
        self._told_to_stop = False  # perhaps before it runs
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        _check_ports_differ(options)
        with contextlib.ExitStack() as undo:
            self._http = _bound(undo, "http_port", options.host, options.http_port)
            self._grpc = _bound(undo, "grpc_port", options.host, options.grpc_port)
            self._metrics = _bound(undo, "metrics_port", options.host, options.metrics_port)
            self._grpc_port = _port(self._grpc)
            undo.pop_all()

    @property
    def public(self) -> bool:
        """Whether other machines may reach the server: its address is not a loopback one."""
        return not ipaddress.ip_address(self._http.getsockname()[0]).is_loopback

    @property
    def http_port(self) -> int:
        """The port that HTTP is bound to."""
        return _port(self._http)

    @property
    def grpc_port(self) -> int:
        """The port that gRPC is bound to."""
        return self._grpc_port

    @property
    def metrics_port(self) -> int:
        """The port that the metrics are bound to."""
        return _port(self._metrics)

    def addresses(self) -> dict[str, str]:
        """Returns the addresses of `http`, `grpc` and `metrics`: URLs, and host:port for gRPC."""
        scheme = "http" if self.options.tls is None else "https"
        host = self._host()
        return {
            "http": f"{scheme}://{host}:{self.http_port}",
            "grpc": f"{host}:{self.grpc_port}",
            "metrics": f"{scheme}://{host}:{self.metrics_port}/metrics",
        }

    def _ports(self) -> Ports:
        scheme = "http" if self.options.tls is None else "https"
        return Ports(scheme, grpc=self.grpc_port, metrics=self.metrics_port)

    async def run(self, started: Callable[[], object] = lambda: None) -> None:
        """Serves until `stop` is called, then ends gracefully.

        started: called once, when all three ports answer. At the end the readiness checks fail, new
        requests are refused, and requests that were accepted get their answers.
        """
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._told_to_stop:  # after the event is there: a stop() that comes now sets it itself
            self._stopping.set()
        limits, tokens = self.options.limits, self.options.tokens
        journal = Journal(every=self.options.log_requests)
        answers = Answers(self._loop)
        intake = Intake(self.repository, limits, journal, answers)
        app = Application(self.repository, intake, tokens, self._ports())
        metrics = MetricsApplication(self.repository, tokens, self._controller)
        listeners = [
            Listener(app, self._http, limits, self.options.tls, app.exchange),
            Listener(metrics, self._metrics, limits, self.options.tls),
        ]
        running = [asyncio.ensure_future(listener.run_until_told()) for listener in listeners]
        service = rpc.Service(self.repository, limits, tokens, journal, answers)
        health = Health(self.repository, tokens, service)
        calls = await self._answer_calls(service, health)
        while not all(listener.started for listener in listeners):
            await asyncio.sleep(POLL_SECONDS)
        try:
            started()
            stopped = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # In this order. First readiness fails and new requests are refused, while the ports
            # still answer: load balancers read that and send nothing more. Then every accepted
            # request ends, however long it takes: a listener that closed earlier would drop its
            # answer. Then the watches of health end, since gRPC would wait for them. At last the
            # ports close, with GRACE_SECONDS for answers that are still being sent.
            self.repository.close()
            await self._loop.run_in_executor(None, self.repository.drain)
            health.end()
            for listener in listeners:
                listener.should_exit = True
            await asyncio.gather(*running, calls.stop(GRACE_SECONDS))

    async def _answer_calls(self, *services: rpc.Service | Health) -> Any:
        """Returns a gRPC server of these services that has started.

        gRPC binds its port by itself, so the socket that held the port is closed first. Raises
        InvalidInput where another process took the port meanwhile.
        """
        self._grpc.close()
        handlers = [service.handler() for service in services]
        server = rpc.grpc_server(handlers, self.options.limits)
        address = f"{self._host()}:{self.grpc_port}"
        if not rpc.add_port(server, address, self.options.tls):
            expected = f"free on {self.options.host} (another --grpc-port, or 0 for any)"
            raise InvalidInput("-", "grpc_port", expected, str(self.grpc_port))
        await server.start()
        return server

    def _host(self) -> str:
        return f"[{self.options.host}]" if ":" in self.options.host else self.options.host

    def stop(self) -> None:
        """Begins the graceful end of `run`, from any thread; a run to come ends at once."""
        # First: where `run` has not made its event yet, it finds this.
        self._told_to_stop = True
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)


def serve(server: Server, started: Callable[[], object]) -> None:
    """Runs the server in this thread until SIGTERM or SIGINT; a second signal stops at once."""
    sys.setswitchinterval(SWITCH_SECONDS)
    _allow_files(3 * server.options.limits.connections + OTHER_FILES)
    gc.collect()
    gc.freeze()  # with PyTorch imported a collection costs more than a request
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    with _signals(server):
        uvloop.run(server.run(started))


@contextlib.contextmanager
def background(server: Server) -> Iterator[Server]:
    """Runs the server on a thread of its own for the block, and stops it gracefully at its end.

    For tests and programs. Raises what the server raised where it did not start.
    """
    up = threading.Event()
    failed: list[BaseException] = []

    def body() -> None:
        try:
            uvloop.run(server.run(up.set))
        except BaseException as error:
            failed.append(error)
            up.set()

    thread = threading.Thread(target=body, name="spacetime-server", daemon=True)
    thread.start()
    up.wait()
    try:
        if failed:
            raise failed[0]
        yield server
    finally:
        server.stop()
        thread.join()


def _allow_files(wanted: int) -> None:
    """Raises this process's limit of open files to `wanted`, or as far as the system allows.

    Many systems allow 1024 unless asked, which is less than the connections need.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        fields = {"allowed": most, "wanted": wanted}
        log.warning("fewer open files are allowed than connections", extra={"fields": fields})


def _check_ports_differ(options: Options) -> None:
    """Raises InvalidInput naming the second of two ports with one number; 0, any, may repeat."""
    seen: dict[int, str] = {}
    for name in ("http_port", "grpc_port", "metrics_port"):
        port = getattr(options, name)
        if port and port in seen:
            raise InvalidInput("-", name, f"another port than {seen[port]}", str(port))
        seen[port] = name


def _port(bound: socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def _bound(undo: contextlib.ExitStack, name: str, host: str, port: int) -> socket:
    return undo.enter_context(contextlib.closing(bind(name, host, port)))


@contextlib.contextmanager
def _signals(server: Server) -> Iterator[None]:
    """Handles SIGTERM and SIGINT for the block; at its end the handlers before are back."""

    def handle(number: int, _: Any) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)  # a second signal ends the process at once
        log.info("stopping", extra={"fields": {"signal": signal.Signals(number).name}})
        server.stop()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
