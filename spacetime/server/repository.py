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
from spacetime.live.from_files import add_declared
from spacetime.models.loading import LoadedModel, load_model, tried
from spacetime.server.model import VERSION, ServedModel, served_model, unknown_model
from spacetime.server.paths import check_names
from spacetime.server.refusal import RETRY, Refusal, RefusalKind, refusal_of
from spacetime.session.session import Session
from spacetime.workload import workload
from spacetime.workload.workload import Workload


class Repository:
    """Owns the session of a server, and the tenants that are loaded into it.

    declared: the workload whose tenants may be loaded. folder: where its files of weights lie.
    queue_limit: the most requests of a tenant that wait for a launch.
    Any thread may call; `load` and `unload` block until they are done. Raises WorkloadError for a
    tenant whose name no path can carry.
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
        self._listeners: list[Callable[[], object]] = []  # called after each change
        self._changing = threading.Lock()
        self._counting = threading.Lock()
        self._ended = threading.Condition(self._counting)
        self._accepted = 0
        self._wrong = dict.fromkeys(self._declared, 0)
        # When each tenant's last request was accepted, in s since 1970; 0 where none was yet.
        self._last_s = dict.fromkeys(self._declared, 0.0)

    @property
    def ready(self) -> bool:
        """Whether new requests are taken: from the start until the server is told to stop."""
        return not self.closing

    @property
    def models(self) -> dict[str, ServedModel]:
        """The models that are loaded, by name."""
        return dict(self._loaded)

    @property
    def accepted(self) -> int:
        """How many requests were accepted and have not ended."""
        return self._accepted

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Returns a loaded model. Raises Refusal where none has that name and version."""
        model = self._loaded.get(name)
        if model is None:
            raise unknown_model(name)
        if version not in {None, "", VERSION}:
            raise Refusal(RefusalKind.UNKNOWN, f"model {name!r:.80} has version {VERSION} only")
        return model

    def loaded(self, name: str) -> bool | None:
        """Whether a tenant is loaded; None where the workload has no tenant of that name."""
        return name in self._loaded if name in self._declared else None

    def on_change(self, then: Callable[[], object]) -> None:
        """Calls then(), in any thread, after a tenant is loaded or taken out, and at the end."""
        self._listeners.append(then)

    def close(self) -> None:
        """Refuses every new request from now on; requests that were accepted go on."""
        self.closing = True
        self._tell_listeners()

    def submit(self, model: ServedModel, tensors: Any, **options: int) -> Future[Any]:
        """Submits a request and returns the future of its answer; see ServedModel.submit.

        Raises Refusal as the model does, and for every request once the server is stopping.
        """
        if self.closing:
            raise Refusal(RefusalKind.CLOSING, "the server is stopping; retry elsewhere", RETRY)
        future = model.submit(tensors, **options)
        self._last_s[model.tenant.name] = time.time()
        with self._counting:
            self._accepted += 1
        # After the count: the callback takes it back, at once where the future has ended already.
        future.add_done_callback(self._end)
        return future

    def load(self, name: str) -> None:
        """Adds a tenant of the workload to the session.

        A tenant that is loaded already gets the weights that its factory and its file give now,
        while it is served. Raises Refusal; then what was loaded before stays as it is.
        """
        declared = self._declaration(name)
        with self._changing:
            if self.closing:
                raise Refusal(RefusalKind.CLOSING, "the server is stopping", RETRY)
            try:
                if (loaded := self._loaded.get(name)) is not None:
                    loaded.tenant.update(self._load(declared).module.state_dict())
                else:
                    self._loaded[name] = self._add(declared)
            except SpacetimeError as error:
                self._reasons[name] = str(error)
                raise refusal_of(error) from error
            self._reasons.pop(name, None)
        self._tell_listeners()

    def load_all(self) -> None:
        """Loads every tenant of the workload; raises the error, naming the tenant, of the first
        that fails."""
        with self._changing:
            for name, declared in self._declared.items():
                self._loaded[name] = self._add(declared)

    def unload(self, name: str) -> None:
        """Takes a tenant out: its waiting requests are refused, its running launches finish.

        A tenant that is not loaded is no error. Raises Refusal where the workload has none of that
        name.
        """
        self._declaration(name)
        with self._changing:
            model = self._loaded.pop(name, None)
            if model is not None:
                self._reasons[name] = "unloaded"
                self.session.remove(model.tenant)
        self._tell_listeners()

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Returns every tenant of the workload with its state; with `ready` only those loaded."""
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

    def count_wrong(self, name: str) -> None:
        """Counts a request for the tenant that was refused because it was wrong in itself."""
        if name in self._wrong:
            self._wrong[name] += 1

    def wrong(self, name: str) -> int:
        """Returns how many requests for the tenant were wrong in themselves."""
        return self._wrong[name]

    def last_ms(self, name: str) -> int:
        """Returns when the tenant's last request was accepted, in ms since 1970; 0 if none was."""
        return int(self._last_s[name] * 1e3)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Refuses every new request and waits until the accepted ones have ended.

        Returns whether they ended within `timeout_s` seconds; None waits without a limit.
        """
        self.close()
        with self._ended:
            return self._ended.wait_for(lambda: not self._accepted, timeout_s)

    def _load(self, declared: workload.Tenant) -> LoadedModel:
        return load_model(declared, self._folder, seed=self._seeds[declared.name])

    def _add(self, declared: workload.Tenant) -> ServedModel:
        live = self._load(declared)
        tenant = add_declared(self.session, declared, live, queue_limit=self._queue_limit)
        with tried(declared):
            return served_model(tenant, declared, live.example_inputs)

    def _declaration(self, name: str) -> workload.Tenant:
        if name not in self._declared:
            there = ", ".join(self._declared)
            raise Refusal(
                RefusalKind.UNKNOWN, f"model {name!r:.80} is no tenant of the workload: {there}"
            )
        return self._declared[name]

    def _tell_listeners(self) -> None:
        for then in self._listeners:
            then()

    def _end(self, _: Future[Any]) -> None:
        with self._counting:
            self._accepted -= 1
            if self.closing:  # `drain` alone waits, and it closes first
                self._ended.notify_all()
