"""The tenants a workload names, loaded into a session and taken out again on request.

A client chooses among the workload's tenants; no code and no weights ever come from a client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from spacetime.errors import SpacetimeError
from spacetime.models.loading import LoadedModel, load_model, tried
from spacetime.server.model import VERSION, ServedModel, served, unknown
from spacetime.server.paths import check_names
from spacetime.server.refusal import RETRY, Kind, Refusal, refusal_of
from spacetime.session.session import Session
from spacetime.workload import workload
from spacetime.workload.workload import Workload


class Repository:
    """Owns the session of a server. Loading and unloading block; any thread may call.

    Raises WorkloadError for a tenant whose name no path can carry.
    """

    def __init__(
        self,
        session: Session,
        declared: Workload,
        folder: Path,
        *,
        queue_limit: int = 1024,
    ) -> None:
        check_names(tenant.name for tenant in declared.tenants)
        self.session = session
        self.closing = False
        self._declared = {tenant.name: tenant for tenant in declared.tenants}
        self._seeds = {t.name: declared.seed + n for n, t in enumerate(declared.tenants)}
        self._folder = folder
        self._queue_limit = queue_limit
        self._loaded: dict[str, ServedModel] = {}
        self._reasons: dict[str, str] = {}  # why a tenant is not loaded
        self._told: list[Callable[[], object]] = []  # of changes
        self._changing = threading.Lock()
        self._counting = threading.Lock()
        self._ended = threading.Condition(self._counting)
        self._accepted = 0
        self._wrong = dict.fromkeys(self._declared, 0)
        self._last_s = dict.fromkeys(self._declared, 0.0)  # 0: none yet

    @property
    def ready(self) -> bool:
        """Whether new requests are taken and every tenant not unloaded on purpose answers."""
        return not self.closing

    @property
    def models(self) -> dict[str, ServedModel]:
        """What is loaded, by name."""
        return dict(self._loaded)

    @property
    def accepted(self) -> int:
        """Requests that were accepted and have not ended."""
        return self._accepted

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """A loaded model. Raises Refusal where there is none of that name and version."""
        found = self._loaded.get(name)
        if found is None:
            raise unknown(name)
        if version not in {None, "", VERSION}:
            raise Refusal(Kind.UNKNOWN, f"model {name!r:.80} has version {VERSION} only")
        return found

    def loaded(self, name: str) -> bool | None:
        """Whether a tenant of the workload is loaded; None where it has none of that name."""
        return name in self._loaded if name in self._declared else None

    def on_change(self, then: Callable[[], object]) -> None:
        """Calls then() whenever a tenant is loaded or taken out, and at the end, in any thread."""
        self._told.append(then)

    def close(self) -> None:
        """Refuses what is new from now on; what was accepted goes on."""
        self.closing = True
        self._tell()

    def submit(self, model: ServedModel, tensors: Any, **options: int) -> Future[Any]:
        """A request's future. Raises Refusal; once closing, of every new request."""
        if self.closing:
            raise Refusal(Kind.CLOSING, "the server is stopping; retry elsewhere", RETRY)
        future = model.submit(tensors, **options)
        self._last_s[model.tenant.name] = time.time()
        with self._counting:
            self._accepted += 1
        future.add_done_callback(self._end)
        return future

    def load(self, name: str) -> None:
        """Adds the workload's tenant to the session. One that is there gets the weights its factory
        and its file give now, while it is served. Raises Refusal; what is there then stays."""
        declared = self._declaration(name)
        with self._changing:
            if self.closing:
                raise Refusal(Kind.CLOSING, "the server is stopping", RETRY)
            try:
                if (loaded := self._loaded.get(name)) is not None:
                    loaded.tenant.update(self._made(declared).module.state_dict())
                else:
                    self._loaded[name] = self._add(declared)
            except SpacetimeError as error:
                self._reasons[name] = str(error)
                raise refusal_of(error) from error
            self._reasons.pop(name, None)
        self._tell()

    def load_all(self) -> None:
        """Loads every tenant; raises what the first that fails raises, naming it."""
        with self._changing:
            for name, declared in self._declared.items():
                self._loaded[name] = self._add(declared)

    def unload(self, name: str) -> None:
        """Takes a tenant out: what waits is refused, what runs finishes. Raises Refusal."""
        self._declaration(name)
        with self._changing:
            model = self._loaded.pop(name, None)
            if model is not None:
                self._reasons[name] = "unloaded"
                self.session.remove(model.tenant)
        self._tell()

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Every tenant of the workload with its state; with `ready` those that answer only."""
        return [
            {
                "name": name,
                "version": VERSION,
                "state": state,
                "reason": self._reasons.get(name, ""),
            }
            for name in self._declared
            if (state := "READY" if name in self._loaded else "UNAVAILABLE") == "READY" or not ready
        ]

    def refused(self, name: str) -> None:
        """Counts a request that was wrong in itself."""
        if name in self._wrong:
            self._wrong[name] += 1

    def wrong(self, name: str) -> int:
        """Requests of the tenant that were wrong in themselves."""
        return self._wrong[name]

    def last_ms(self, name: str) -> int:
        """When the tenant's last request was accepted, in ms since 1970; 0 where none was."""
        return int(self._last_s[name] * 1e3)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Refuses what is new and waits until everything accepted has ended; False: not in time."""
        self.close()
        with self._ended:
            return self._ended.wait_for(lambda: not self._accepted, timeout_s)

    def _made(self, declared: workload.Tenant) -> LoadedModel:
        return load_model(declared, self._folder, seed=self._seeds[declared.name])

    def _add(self, declared: workload.Tenant) -> ServedModel:
        live = self._made(declared)
        with tried(declared):
            tenant = self.session.add(
                live.module,
                example_inputs=live.example_inputs,
                name=declared.name,
                slo_ms=declared.slo_ms,
                rate_rps=declared.rate_rps,
                priority=declared.priority,
                weight=declared.weight,
                batchable=declared.batchable,
                queue_limit=self._queue_limit,
            )
            return served(tenant, declared, live.example_inputs)

    def _declaration(self, name: str) -> workload.Tenant:
        if name not in self._declared:
            there = ", ".join(self._declared)
            raise Refusal(Kind.UNKNOWN, f"model {name!r:.80} is no tenant of the workload: {there}")
        return self._declared[name]

    def _tell(self) -> None:
        for then in self._told:
            then()

    def _end(self, _: Future[Any]) -> None:
        with self._counting:
            self._accepted -= 1
            if self.closing:  # nobody waits before
                self._ended.notify_all()
