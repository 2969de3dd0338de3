"""What `spacetime serve` does: a workload's tenants in a session, behind ports, until told to stop.

Errors before the first request are one line and status 2; everything later is in the journal.
"""

from __future__ import annotations

import json
import logging
import stat
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from spacetime.live.controller_thread import Event
from spacetime.live.from_files import opened, share_of, watching
from spacetime.plan import PlanOptions
from spacetime.server import journal, tokens
from spacetime.server.limits import Limits
from spacetime.server.repository import Repository
from spacetime.server.serve import Options, Server, serve
from spacetime.server.tls import tls_of
from spacetime.session.session import Session
from spacetime.workload.workload import Workload
from spacetime.workload.workload_file import read_workload


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """The options of `spacetime serve`. `period` and `read_timeout` are in seconds, `body_limit`
    is in MiB, and `audit` is a part of all answers, from 0 to 1."""

    workload: Path
    plan: Path | None
    profiles: Path | None
    gpu: int | None
    max_procs: int
    max_utilisation: float
    policy: str | None
    controller: bool
    period: float
    device: str
    isolation: str
    max_batch: int | None
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    body_limit: float
    tensor_limit: int
    connection_limit: int
    queue_limit: int
    read_timeout: float
    audit: float
    audit_stop: bool
    log_requests: bool
    as_json: bool


def run(asked: ServeCommand) -> None:
    """Serves until SIGTERM or SIGINT. Raises what reading, planning, opening and loading raise."""
    declared = read_workload(asked.workload)
    options = _options(asked)
    with _session(asked, declared) as session:
        here = share_of(declared, session)
        watch = None
        if asked.controller:
            watch = watching(session, period_s=asked.period, tell=_replanned)
        folder = asked.workload.parent
        repository = Repository(session, here, folder, queue_limit=asked.queue_limit)
        server = Server(repository, options, watch)  # ports first: models may take minutes to load
        _warn(server, asked.token_file)
        repository.load_all()
        journal.write_to()
        with watch or nullcontext():
            serve(server, lambda: _announce(server, as_json=asked.as_json))
        journal.log.info("stopped")


def _session(asked: ServeCommand, declared: Workload) -> Session:
    """A session without a timeline, which would grow for as long as the server runs."""
    return opened(
        declared,
        plan=asked.plan,
        profiles=asked.profiles,
        gpu=asked.gpu,
        policy=asked.policy,
        device=asked.device,
        isolation=asked.isolation,
        options=PlanOptions(
            gpus=1, max_procs=asked.max_procs, max_utilisation=asked.max_utilisation
        ),
        max_batch=asked.max_batch,
        timeline=False,
        audit=asked.audit,
        audit_stop=asked.audit_stop,
    )


def _replanned(event: Event) -> None:
    """The journal's line of what the controller did."""
    moved = {} if event.moved is None else asdict(event.moved)
    fields = {"outcome": event.outcome, "why": event.why, "plan_ms": event.plan_ms} | moved
    level = logging.ERROR if event.outcome == "failed" else logging.INFO
    journal.log.log(level, "replan", extra={"fields": fields})


def _options(asked: ServeCommand) -> Options:
    allowed = tokens.Tokens() if asked.token_file is None else tokens.read_tokens(asked.token_file)
    return Options(
        host=asked.host,
        http_port=asked.http_port,
        grpc_port=asked.grpc_port,
        metrics_port=asked.metrics_port,
        limits=Limits(
            body_bytes=int(asked.body_limit * 2**20),
            tensors=asked.tensor_limit,
            connections=asked.connection_limit,
            queue=asked.queue_limit,
            read_seconds=asked.read_timeout,
        ),
        tokens=allowed,
        tls=tls_of(asked.tls_cert, asked.tls_key),
        log_requests=asked.log_requests,
    )


def _warn(server: Server, token_file: Path | None) -> None:
    """Says what is allowed, and rarely meant."""
    if server.public and token_file is None:
        host = server.options.host
        _say(f"{host} may be public and no --token-file says who may ask")
    if token_file is not None and token_file.stat().st_mode & stat.S_IROTH:
        _say(f"token_file {token_file} can be read by every user here; chmod o-r {token_file}")


def _say(warning: str) -> None:
    print(f"spacetime: {warning}", file=sys.stderr)


def _announce(server: Server, *, as_json: bool) -> None:
    addresses = server.addresses()
    if as_json:
        print(json.dumps(addresses), flush=True)
        return
    names = ", ".join(server.repository.models)
    where = "  ".join(f"{name} {address}" for name, address in addresses.items())
    print(f"serving {names}\n{where}", flush=True)
