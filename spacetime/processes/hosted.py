"""A process's tenants: the same families and runners a session's threads use, by tenant number.

Thread safety: `run` and `known_as` from the serving thread while another one adds and removes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput
from spacetime.models.cpu.family import Family, family_of
from spacetime.models.flat import Outputs
from spacetime.models.request import Work
from spacetime.models.signature import Leaf, signature_of
from spacetime.models.timing import on_cores
from spacetime.processes.packed import unpack
from spacetime.processes.wire import DTYPES


@dataclass(frozen=True, slots=True)
class _Member:
    family: Family
    number: int


class Hosted:
    """Takes models in, runs mixtures of them."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self.granted = len(cores)
        self._members: dict[int, _Member] = {}
        self._known: dict[str, Family] = {}

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
        """Takes the model packed in `fd` as `tenant`; what was found out about it, for JSON."""
        model, (args, kwargs) = unpack(fd, name)
        signature = signature_of(name, args, kwargs)
        family, print_ = family_of(
            model,
            signature,
            pytree.tree_leaves((args, kwargs)),
            self._known if fuse else {},
            buckets=buckets,
            slo_ns=slo_ns,
            on_lane=partial(on_cores, self._cores),
            batchable=batchable,
        )
        outputs = outputs_json(name, family.runner.outputs)
        kin = next((t for t, m in self._members.items() if m.family is family), None)
        alone = print_ is None or not fuse
        self._members[tenant] = _Member(family, family.join(model, alone=alone))
        if print_ is not None and fuse:
            self._known[print_] = family
        ns = {bucket: family.predicted_ns(0, bucket) for bucket in family.buckets}
        return {
            "kin": kin, "buckets": [*family.buckets], "ns": ns, "outputs": outputs,
            "lines": family.lines(),
        }  # fmt: skip

    def update(self, fd: int, *, tenant: int, name: str) -> dict[str, Any]:
        """Gives a tenant the weights of the model packed in `fd`."""
        model, _ = unpack(fd)
        member = self._members[tenant]
        member.family.update(name, member.number, model)
        return {}

    def leave(self, *, tenant: int) -> dict[str, Any]:
        """Forgets a tenant; its weights go."""
        member = self._members.pop(tenant, None)
        if member is not None:
            member.family.leave(member.number)
            if not member.family.members:
                self._known = {k: f for k, f in self._known.items() if f is not member.family}
        return {}

    def lines(self, *, tenant: int) -> dict[str, Any]:
        """What runs a tenant's family, for explain()."""
        return {"lines": self._members[tenant].family.lines()}

    def known_as(self, tenant: int) -> tuple[int, Sequence[Leaf]]:
        """Its number in its family, and the tensors of one of its requests."""
        member = self._members[tenant]
        return member.number, member.family.signature.leaves

    def run(self, tenant: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """Flat output tensors of each request; `tenant` is one of the family's."""
        runner = self._members[tenant].family.runner
        answers = runner.run(batch)
        if runner.whole:
            for answer in answers:
                check_alike(runner.outputs, answer)
        return [tensors_of(answer) for answer in answers]


def check_alike(outputs: Outputs, answer: Any) -> None:
    """Raises ValueError where an answer is not built as the example's: only its tensors travel."""
    flat, spec = pytree.tree_flatten(answer)
    constants = tuple((i, x) for i, x in enumerate(flat) if not isinstance(x, Tensor))
    if spec != outputs.spec or constants != outputs.constants:
        raise ValueError(
            "the structure of this output, or a value in it that is no tensor, differs from the "
            "example's, which a lane in another process cannot pass on; use isolation='thread'"
        )


def tensors_of(answer: Any) -> list[Tensor]:
    """The tensors of what a model returned, flat."""
    if isinstance(answer, Tensor):
        return [answer]
    return [x for x in pytree.tree_leaves(answer) if isinstance(x, Tensor)]


def outputs_json(tenant: str, outputs: Outputs) -> dict[str, Any]:
    """How outputs become what the model returns, as JSON. Raises InvalidInput where it cannot."""
    expected = "tensors in tuples, lists and dicts, for a lane in another process"
    if outputs.why_not.startswith("it returns a") or "call to call" in outputs.why_not:
        raise InvalidInput(tenant, "outputs", expected, outputs.why_not)
    try:
        told = {
            "spec": pytree.treespec_dumps(outputs.spec),
            "constants": [[at, value] for at, value in outputs.constants],
            "single": outputs.single,
        }
        if json.loads(json.dumps(told)) == told:
            return told
        why = "values beside tensors that JSON does not keep"
    except (TypeError, ValueError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
    raise InvalidInput(tenant, "outputs", expected, why)


def outputs_from(told: dict[str, Any]) -> Outputs:
    """The other way round."""
    constants = tuple((int(at), value) for at, value in told["constants"])
    return Outputs(pytree.treespec_loads(told["spec"]), constants, bool(told["single"]))


def check_dtypes(tenant: str, leaves: Sequence[Leaf]) -> None:
    """Raises InvalidInput for inputs that have no place in shared memory."""
    for leaf in leaves:
        if leaf.dtype not in DTYPES:
            expected = f"one of {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
            raise InvalidInput(tenant, f"{leaf.path} dtype", expected, str(leaf.dtype))
