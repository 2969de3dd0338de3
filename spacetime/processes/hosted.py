"""A process's tenants: the same families and runners a session's threads use, by tenant number.

Thread safety: `run` and `known_as` from the serving thread while another one adds and removes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput
from spacetime.models.backend import FamilyOptions
from spacetime.models.cpu.backend import CpuBackend
from spacetime.models.cpu.family import CpuFamily
from spacetime.models.flat import Outputs
from spacetime.models.request import Work
from spacetime.models.signature import Leaf, signature_of
from spacetime.processes.packed import unpack
from spacetime.processes.wire import DTYPES


class _Member(NamedTuple):
    """A tenant: its number in its family, and the tensors of one of its requests."""

    backend: CpuBackend
    family: CpuFamily
    number: int
    leaves: Sequence[Leaf]


class Hosted:
    """Takes models in, runs mixtures of them."""

    def __init__(self, cores: Sequence[int]) -> None:
        self.granted = len(cores)
        self._members: dict[int, _Member] = {}
        self._together = CpuBackend([cores], fuses=True)
        self._alone = CpuBackend([cores], fuses=False)

    def add(
        self,
        fd: int,
        *,
        tenant: int,
        name: str,
        buckets: list[int],
        slo_ns: int | None,
        fuse: bool,
        batchable: bool | None,
    ) -> dict[str, Any]:
        """Takes the model packed in `fd` as `tenant`. What was found out about it, as JSON: `kin`,
        another tenant of its family, if there is one; its `buckets`; the nanoseconds `ns` of each;
        how its `outputs` are built; and the `lines` of explain()."""
        model, (args, kwargs) = unpack(fd, name)
        signature = signature_of(name, args, kwargs)
        example = pytree.tree_leaves((args, kwargs))
        backend = self._together if fuse else self._alone
        # The model itself, not a snapshot of it: its weights stay mapped, as in every process.
        family, number = backend.hold(
            model, signature, example, FamilyOptions(buckets, slo_ns, batchable)
        )
        try:
            outputs = outputs_json(name, family.outputs)
        except InvalidInput:
            backend.leave(family, number)
            raise
        kin = next((t for t, m in self._members.items() if m.family is family), None)
        self._members[tenant] = _Member(backend, family, number, signature.leaves)
        ns = {bucket: family.predicted_ns(0, bucket) for bucket in family.buckets}
        return {
            "kin": kin,
            "buckets": [*family.buckets],
            "ns": ns,
            "outputs": outputs,
            "lines": family.lines(),
        }

    def update(self, fd: int, *, tenant: int, name: str) -> dict[str, Any]:
        """Gives a tenant the weights of the model packed in `fd`."""
        model, _ = unpack(fd)
        member = self._members[tenant]
        member.backend.update(member.family, member.number, name, model, None)
        return {}

    def leave(self, *, tenant: int) -> dict[str, Any]:
        """Forgets a tenant; its weights go."""
        if (member := self._members.pop(tenant, None)) is not None:
            member.backend.leave(member.family, member.number)
        return {}

    def lines(self, *, tenant: int) -> dict[str, Any]:
        """What runs a tenant's family, for explain()."""
        return {"lines": self._members[tenant].family.lines()}

    def known_as(self, tenant: int) -> tuple[int, Sequence[Leaf]]:
        """Its number in its family, and the tensors of one of its requests."""
        member = self._members[tenant]
        return member.number, member.leaves

    def run(self, tenant: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """Flat output tensors of each request; `tenant` is one of the family's."""
        member = self._members[tenant]
        return member.backend.run(member.family, 0, batch)


def outputs_json(tenant: str, outputs: Outputs) -> dict[str, Any]:
    """How outputs become what the model returns, as JSON. Raises InvalidInput where it cannot."""
    expected = "tensors in tuples, lists and dicts, for a lane in another process"
    if outputs.why_not.startswith("it returns a") or "call to call" in outputs.why_not:
        raise InvalidInput(tenant, "outputs", expected, outputs.why_not)
    try:
        written = {
            "spec": pytree.treespec_dumps(outputs.spec),
            "constants": [[at, value] for at, value in outputs.constants],
            "single": outputs.single,
        }
        if json.loads(json.dumps(written)) == written:
            return written
        why = "values beside tensors that JSON does not keep"
    except (TypeError, ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
    raise InvalidInput(tenant, "outputs", expected, why)


def outputs_from(written: dict[str, Any]) -> Outputs:
    """The outputs that `outputs_json` has written."""
    constants = tuple((int(at), value) for at, value in written["constants"])
    return Outputs(pytree.treespec_loads(written["spec"]), constants, bool(written["single"]))


def check_dtypes(tenant: str, leaves: Sequence[Leaf]) -> None:
    """Raises InvalidInput for inputs that have no place in shared memory."""
    for leaf in leaves:
        if leaf.dtype not in DTYPES:
            expected = f"one of {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
            raise InvalidInput(tenant, f"{leaf.path} dtype", expected, str(leaf.dtype))
