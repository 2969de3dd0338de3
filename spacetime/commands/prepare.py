"""What a device needs compiled for its models, worked out without the device.

    python -m spacetime.commands.prepare work.yaml --device h200 --out kernels.json
    python -m spacetime.commands.prepare --zoo resnet --sizes 48,84 --precision bf16 --out k.json

A session on the simulated device admits each model by the path of a real one and lists the kernels
that tuning would launch; nothing is timed. `python -m spacetime.kernels.triton.ahead` compiles the
list here or on the machine. The session there finds what is compiled in Triton's cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from spacetime.demo.zoo import exhibits as zoo
from spacetime.errors import SpacetimeError, UnsupportedError
from spacetime.kernels import triton
from spacetime.kernels.triton.ahead import written
from spacetime.models.cuda.backend import CudaBackend
from spacetime.models.cuda.capture import TorchFake
from spacetime.models.loading import load_models
from spacetime.session.session import Session
from spacetime.workload.workload_file import read_workload

Example = tuple[nn.Module, tuple[Tensor, ...]]  # a model and one request's inputs


@dataclass(frozen=True)
class Listing(TorchFake):
    """A fake device's capturer that lists kernels instead of compiling them."""

    kernels: set[str] = field(default_factory=set)

    def compile(self, kernels: Callable[[], set[str]]) -> str:
        """Takes them down."""
        wanted = kernels()
        self.kernels.update(wanted)
        return f"{len(wanted)} listed"


def kernels_for(
    models: Iterable[Example], device: str, *, sizes: Sequence[int] = (), max_batch: int = 16
) -> set[str]:
    """kernels_for([(model, (x,))], "h200"): what `compile_all` takes, for a session of these lanes.

    `device` is a fake's name; `sizes` are the lanes' SMs, the policy's own layout without. Raises
    UnsupportedError where Triton is missing or the device unknown, and what `Session.add` raises.
    """
    if not triton.available:
        raise UnsupportedError("listing kernels needs Triton: pip install 'spacetime[cuda]'")
    with Session(f"fake:{device}", sizes=[*sizes] or None, max_batch=max_batch) as session:
        backend = session.backend
        assert isinstance(backend, CudaBackend)
        assert isinstance(backend.lanes.capturer, TorchFake)
        listing = Listing(backend.lanes.capturer.native, backend.lanes.capturer.device)
        backend.lanes = replace(backend.lanes, capturer=listing)
        for model, example in models:
            session.remove(session.add(model, example_inputs=example))
    return listing.kernels


@contextmanager
def _precision(name: str | None) -> Iterator[torch.dtype | None]:
    """How float32 is multiplied meanwhile, which decides between kernels; the models' own type."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    if name is not None:
        cudnn.allow_tf32 = matmul.allow_tf32 = name == "tf32"
    try:
        yield torch.bfloat16 if name == "bf16" else None
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def _examples(given: argparse.Namespace, dtype: torch.dtype | None) -> Iterator[Example]:
    examples: list[Example] = []
    if given.workload is not None:
        models = load_models(read_workload(given.workload), given.workload.parent).values()
        examples += [(live.module, live.example_inputs) for live in models]
    for kind in given.zoo:
        examples += [(entry.model, (entry.pool[:1],)) for entry in zoo.load(kind, 1)]
    for model, example in examples:
        cast = [x.to(dtype) if dtype and x.is_floating_point() else x for x in example]
        yield model.to(dtype) if dtype else model, tuple(cast)


def main(arguments: Sequence[str] | None = None) -> int:
    """main(): the commands above; 2 for what is wrong with the workload or the device."""
    plain = argparse.RawDescriptionHelpFormatter
    name = "python -m spacetime.commands.prepare"
    parser = argparse.ArgumentParser(prog=name, description=__doc__, formatter_class=plain)
    parser.add_argument("workload", type=Path, nargs="?", help="whose models are to be served")
    parser.add_argument("--zoo", action="append", default=[], choices=zoo.KINDS)
    parser.add_argument("--device", default="h200", help="h200, h100, b200, a100-80gb, v100")
    parser.add_argument("--sizes", default="", help="SMs of each lane, such as 48,84")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"))
    parser.add_argument("--out", type=Path, required=True, help="the list of kernels")
    given = parser.parse_args(arguments)
    try:
        sizes = [int(size) for size in given.sizes.split(",") if size]
        with _precision(given.precision) as dtype:
            kernels = kernels_for(
                _examples(given, dtype), given.device, sizes=sizes, max_batch=given.max_batch
            )
        given.out.write_text(written(kernels), encoding="utf-8")
    except (SpacetimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(kernels)} kernels listed in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
