"""What `bench goodput` serves: small ResNets and vision transformers, R tenants with own weights.

Each is saved once and read by every server: safetensors and a factory for ours, a traced and
frozen TorchScript program for the others, which is the fastest form PyTorch documents for them.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spacetime.demo.zoo import exhibits as zoo

KINDS = ("transformer", "resnet")  # in turn
SLO_MS = 50.0  # some twenty times what one takes alone on a core
# What our server is told: a client's request also waits before it and its answer after it, and
# what is served at its deadline only would be late there. Of 30, 40 and 50 the best.
TOLD_MS = 30.0
SHAPE = (3, 64, 64)
LARGEST_BATCH = 16
TOLERANCE = 1e-3  # of the largest score


@dataclass(frozen=True, slots=True)
class GoodputTenant:
    """One tenant: its model in eval mode, a picture `[1, 3, 64, 64]`, its own scores `[1, 100]`."""

    name: str
    kind: str
    picture: Tensor
    scores: Tensor

    @property
    def body(self) -> bytes:
        """The picture's bytes."""
        return self.picture.numpy().tobytes()


def transformer() -> nn.Module:
    """Returns the model that the workload names; its weights are in a file."""
    return _architecture("transformer")


def resnet() -> nn.Module:
    """Returns the model that the workload names; its weights are in a file."""
    return _architecture("resnet")


def saved(folder: Path, tenants: int, *, seed: int) -> list[GoodputTenant]:
    """Makes `tenants` models, half of each kind, and writes what all servers read to `folder`."""
    kinds = [zoo.load(kind, tenants, seed=seed) for kind in KINDS]
    members = []
    for number, models in zip(range(tenants), itertools.cycle(kinds)):
        exhibit = next(models)
        picture = exhibit.pool[number : number + 1].contiguous()
        with zoo.one_thread(), torch.no_grad():
            scores = exhibit.model(picture)
        member = GoodputTenant(exhibit.name, KINDS[number % len(KINDS)], picture, scores)
        _write(folder, member, exhibit.model)
        members.append(member)
    workload = {"tenants": [*_tenants(members)], "seed": seed}
    workload_path(folder).write_text(json.dumps(workload))
    return members


def workload_path(folder: Path) -> Path:
    """Returns where `saved` wrote the workload."""
    return folder / "work.json"


def script_path(folder: Path, name: str) -> Path:
    """Returns where `saved` wrote a tenant's TorchScript program."""
    return folder / f"{name}.pt"


class TenantProgram:
    """A tenant's program on one core, as a server of one model at a time should run it.

    Called once for each batch size, since TorchScript optimises when it is first called.
    """

    def __init__(self, path: Path) -> None:
        torch.set_num_threads(1)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # see kernels/scripted.py
            load: Any = torch.jit.load  # untyped in PyTorch
            self._call = torch.jit.optimize_for_inference(load(str(path)))
            for size in range(1, LARGEST_BATCH + 1):
                for _ in range(3):
                    self._call(torch.zeros(size, *SHAPE))

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the scores `[N, 100]` of pictures `[N, 3, 64, 64]`."""
        with torch.inference_mode():
            scores: Tensor = self._call(x)
        return scores


def _architecture(kind: str) -> nn.Module:
    from spacetime.demo.zoo import photographs  # noqa: PLC0415  # needs the extra `demo`

    return photographs.ARCHITECTURES[kind]()


def _write(folder: Path, member: GoodputTenant, model: nn.Module) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415  # needs the extra `live`

    save_file(model.state_dict(), folder / f"{member.name}.safetensors")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # see kernels/scripted.py
        trace: Any = torch.jit.trace  # untyped in PyTorch
        frozen = torch.jit.freeze(trace(model, member.picture, check_trace=False))
        torch.jit.save(frozen, script_path(folder, member.name))


def _tenants(members: Sequence[GoodputTenant]) -> Iterator[dict[str, Any]]:
    for member in members:
        shape = [*member.picture.shape]
        yield {
            "name": member.name, "model": f"{__name__}:{member.kind}", "slo_ms": TOLD_MS,
            "rate_rps": 50, "weights": f"{member.name}.safetensors",
            "example_inputs": [{"shape": shape, "datatype": "FP32"}],
        }  # fmt: skip
