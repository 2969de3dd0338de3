"""What `spacetime serve` does: a workload's tenants in a session, behind ports, until told to stop.

Errors before the first request are one line and status 2; everything later is in the journal.
"""

from __future__ import annotations

import json
import logging
import stat
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spacetime.live.controller_thread import Event
from spacetime.live.from_files import opened, share_of, watching
from spacetime.plan import PlanOptions
from spacetime.server import journal, tokens
from spacetime.server.limits import Limits
from spacetime.server.repository import Repository
from spacetime.server.serve import Options, Server, serve
from spacetime.server.tls import tls_of
from spacetime.workload import workload_file


def from_options(
    workload: Path,
    *,
    plan: Path | None,
    profiles: Path | None,
    gpu: int | None,
    max_procs: int,
    max_utilisation: float,
    policy: str | None,
    device: str,
    isolation: str,
    max_batch: int | None,
    controller: bool,
    period: float,
    queue_limit: int,
    audit: float,
    audit_stop: bool,
    as_json: bool,
    **network: Any,
) -> None:
    """Serves until SIGTERM or SIGINT. Raises what reading, planning, opening and loading raise."""
    declared = workload_file.read(workload)
    options = _options(queue_limit=queue_limit, **network)
    planning = PlanOptions(gpus=1, max_procs=max_procs, max_utilisation=max_utilisation)
    with opened(
        declared, plan=plan, profiles=profiles, gpu=gpu, policy=policy, device=device,
        isolation=isolation, options=planning, max_batch=max_batch, timeline=False,
        audit=audit, audit_stop=audit_stop,
    ) as session:  # fmt: skip
        here = share_of(declared, session)
        watch = watching(session, period_s=period, tell=_replanned) if controller else None
        repository = Repository(session, here, workload.parent, queue_limit=queue_limit)
        server = Server(repository, options, watch)  # ports first: models may take minutes to load
        _warn(server, network["token_file"])
        repository.load_all()
        journal.write_to()
        with watch or nullcontext():
            serve(server, lambda: _announce(server, as_json=as_json))
        journal.log.info("stopped")


def _replanned(event: Event) -> None:
    """The journal's line of what the controller did."""
    moved = {} if event.moved is None else asdict(event.moved)
    fields = {"outcome": event.outcome, "why": event.why, "plan_ms": event.plan_ms} | moved
    level = logging.ERROR if event.outcome == "failed" else logging.INFO
    journal.log.log(level, "replan", extra={"fields": fields})


def _options(
    *,
    host: str,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    body_limit: float,
    tensor_limit: int,
    connection_limit: int,
    queue_limit: int,
    read_timeout: float,
    log_requests: bool,
    **ports: int,
) -> Options:
    allowed = tokens.Tokens() if token_file is None else tokens.read(token_file)
    return Options(
        host=host,
        limits=Limits(
            body_bytes=int(body_limit * 2**20),
            tensors=tensor_limit,
            connections=connection_limit,
            queue=queue_limit,
            read_seconds=read_timeout,
        ),
        tokens=allowed,
        tls=tls_of(tls_cert, tls_key),
        log_requests=log_requests,
        **ports,
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
