"""The tenants of one process on the device it sees: an MPS client's share, or a MIG instance.

A session of one lane, as a user would open it inside that process, takes the models in. Launches
run one at a time, in the order in which they come. `shares.py` names this class, and
`processes/child.py` loads it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation import mps_probe
from spacetime.models.request import Work
from spacetime.models.signature import Leaf, signature_of
from spacetime.processes.hosted import outputs_json
from spacetime.processes.packed import unpack
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant


class HostedDevice:
    """Takes models in and runs mixtures of them on `device`, as processes.hosted does on cores.

    kind: `mps` or `mig`. With `mps`, MpsError is raised in a process that found no daemon, since
    CUDA itself would not say so.
    Thread safety: the serving thread may call `run` and `known_as` while another one adds, updates
    and removes tenants.
    """

    def __init__(self, device: str, kind: str) -> None:
        if kind == "mps" and device.startswith("cuda") and not mps_probe.granted()["mps"]:
            raise MpsError("the process runs without MPS: it found no daemon")
        self._session = Session(device, lanes=1)
        self.granted = sum(self._session.device.sizes)
        if self._session.device.kind == "cores":
            raise UnsupportedError(f"device {device}: is for lanes of cores")
        self._tenants: dict[int, Tenant] = {}
        self._leaves: dict[int, Sequence[Leaf]] = {}
        # Held by a launch, or by new weights: rows of weights change between launches only.
        self._running = threading.Lock()

    def add(
        self,
        fd: int,
        *,
        tenant: int,
        name: str,
        buckets: list[int],
        slo_ns: int | None,
        fuse: bool,
        batchable: bool | None = None,
    ) -> dict[str, Any]:
        """Takes in the model packed in the file of descriptor `fd`, as the tenant of that number.

        slo_ns: its latency objective. fuse: whether its requests may share launches with others'.
        Returns what was found out about it, for JSON: `kin`, a tenant of the same family or None;
        `buckets`, and the predicted `ns` of each; its `outputs`; the `lines` of explain(). Raises
        UnsupportedError where the device runs models on cores.
        """
        model, (args, kwargs) = unpack(fd, name)
        slo_ms = None if slo_ns is None else slo_ns / 1e6
        added = self._session.add(
            model, example_inputs=args, example_kwargs=kwargs, name=f"{name} {tenant}",
            slo_ms=slo_ms, batchable=batchable,
        )  # fmt: skip
        family = added.family
        kin = next((t for t, other in self._tenants.items() if other.family is family), None)
        self._tenants[tenant] = added
        self._leaves[tenant] = signature_of(name, args, kwargs).leaves
        fitting = [b for b in family.buckets if fuse or b == 1]
        return {
            "kin": kin if fuse else None, "buckets": fitting,
            "ns": {bucket: family.predicted_ns(0, bucket) for bucket in fitting},
            "outputs": outputs_json(name, family.outputs), "lines": family.lines(),
        }  # fmt: skip

    def update(self, fd: int, *, tenant: int, name: str) -> dict[str, Any]:
        """Gives a tenant the weights of the model packed in `fd`; launches wait meanwhile.

        Returns nothing to tell.
        """
        model, _ = unpack(fd)
        with self._running:
            self._tenants[tenant].update(model.state_dict())
        return {}

    def leave(self, *, tenant: int) -> dict[str, Any]:
        """Removes a tenant and its weights; an unknown one is no error. Returns nothing to tell."""
        if (left := self._tenants.pop(tenant, None)) is not None:
            del self._leaves[tenant]
            self._session.remove(left)
        return {}

    def lines(self, *, tenant: int) -> dict[str, Any]:
        """Returns what runs a tenant's family, as lines of explain()."""
        return {"lines": self._tenants[tenant].family.lines()}

    def known_as(self, tenant: int) -> tuple[int, Sequence[Leaf]]:
        """Returns the name of a tenant in a batch, and the tensors of one of its requests.

        The name is its number and not its row of weights, for the row changes with its weights.
        """
        return tenant, self._leaves[tenant]

    def run(self, tenant: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """Runs a batch in one launch; returns the flat output tensors of each request.

        tenant: any tenant of the batch's family.
        """
        with self._running:
            rows = [self._tenants[work.member].member for work in batch]
            works = [replace(work, member=row) for work, row in zip(batch, rows, strict=True)]
            return self._session.backend.run(self._tenants[tenant].family, 0, works)
