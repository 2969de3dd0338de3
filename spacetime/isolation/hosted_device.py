"""A process's tenants on a device of its own: an MPS client or a MIG instance sees only its share.

The same session a user would open inside that process admits the models; launches run here on its
one lane, whole, as they come. Named by `proc.process` and loaded by `proc.child`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation import mps_probe
from spacetime.models.cpu.runner import Work
from spacetime.models.cuda.family import ResidentFamily
from spacetime.models.signature import Leaf
from spacetime.processes.hosted import check_alike, outputs_json, tensors_of
from spacetime.processes.packed import unpack
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant


class HostedDevice:
    """Takes models in, runs mixtures of them; as proc.hosted.Hosted, on `device`.

    kind: `mps` refuses a process that found no daemon, which CUDA would not say. Raises MpsError.
    Thread safety: `run` and `known_as` from the serving thread while another one adds and removes.
    """

    def __init__(self, device: str, kind: str) -> None:
        if kind == "mps" and device.startswith("cuda") and not mps_probe.granted()["mps"]:
            raise MpsError("the process runs without MPS: it found no daemon")
        self._session = Session(device, lanes=1)
        self.granted = sum(self._session.device.sizes)
        self._tenants: dict[int, Tenant] = {}
        self._running = threading.Lock()  # a launch, or new weights: rows change between launches

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
        """Takes the model packed in `fd` as `tenant`; what was found out about it, for JSON."""
        model, (args, kwargs) = unpack(fd, name)
        slo_ms = None if slo_ns is None else slo_ns / 1e6
        taken = self._session.add(
            model, example_inputs=args, example_kwargs=kwargs, name=f"{name} {tenant}",
            slo_ms=slo_ms, batchable=batchable,
        )  # fmt: skip
        family = taken.family
        if not isinstance(family, ResidentFamily):
            raise UnsupportedError(f"device {self._session.device.name}: is for lanes of cores")
        kin = next((t for t, other in self._tenants.items() if other.family is family), None)
        self._tenants[tenant] = taken
        fitting = [b for b in family.buckets if fuse or b == 1]
        return {
            "kin": kin if fuse else None, "buckets": fitting,
            "ns": {bucket: family.predicted_ns(0, bucket) for bucket in fitting},
            "outputs": outputs_json(name, family.outputs), "lines": family.lines(),
        }  # fmt: skip

    def update(self, fd: int, *, tenant: int, name: str) -> dict[str, Any]:
        """Gives a tenant the weights of the model packed in `fd`; launches wait meanwhile."""
        model, _ = unpack(fd)
        with self._running:
            self._tenants[tenant].update(model.state_dict())
        return {}

    def leave(self, *, tenant: int) -> dict[str, Any]:
        """Forgets a tenant; its weights go."""
        if (taken := self._tenants.pop(tenant, None)) is not None:
            self._session.remove(taken)
        return {}

    def lines(self, *, tenant: int) -> dict[str, Any]:
        """What runs a tenant's family, for explain()."""
        return {"lines": self._tenants[tenant].family.lines()}

    def known_as(self, tenant: int) -> tuple[int, Sequence[Leaf]]:
        """What names it in a batch, for its row changes with its weights, and the tensors of one
        of its requests."""
        return tenant, self._family(tenant).signature.leaves

    def run(self, tenant: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """Flat output tensors of each request, from one launch; `tenant` is one of the family's."""
        with self._running:
            family = self._family(tenant)
            if not family.captured:
                with family.place.capturer.lane(family.place.partitions[0]):
                    answers = family.run(batch)
                for answer in answers:
                    check_alike(family.outputs, answer)
                return [tensors_of(answer) for answer in answers]
            rows = [self._tenants[work.member].member for work in batch]
            made = [
                family.payload(row, work.leaves, work.samples)
                for row, work in zip(rows, batch, strict=True)
            ]
            family.runners[0].time([payload for payload, _, _ in made])
            return [list(family.answered(written)) for _, written, _ in made]

    def _family(self, tenant: int) -> ResidentFamily:
        family = self._tenants[tenant].family
        assert isinstance(family, ResidentFamily)
        return family
