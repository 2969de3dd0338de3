"""Models to try the runtime on: different weights in families, real pictures, nothing downloaded.

`load` is the one entry. Its siblings import scikit-learn and `transformers` only when asked for,
so that knowing the names of the kinds costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from spacetime.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor, nn

KINDS = ("digits", "resnet", "mobilenet", "transformer")


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One tenant-to-be: a model in eval mode and the inputs it may be asked about.

    `pool` is `[N, ...]`; request i is `pool[i : i + 1]`. `labels` is `[N]` of class numbers where
    the right answers are known, else None.
    """

    name: str
    model: nn.Module
    pool: Tensor
    labels: Tensor | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core: the same weights on any machine, and small layers gain from no more."""
    import torch  # noqa: PLC0415  # the names of the kinds are known without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(kind: str, tenants: int, *, seed: int = 0) -> Iterator[ZooModel]:
    """Build `tenants` models of `kind` (one of KINDS, or `all`: each kind in turn), one at a time.

    The same arguments give the same weights. An iterator, because training takes a moment each and
    a caller may show progress. Raises ValueError for an unknown kind, UnsupportedError where an
    optional package is missing.

    >>> models = list(load("digits", 2))
    >>> models[0].model(models[0].pool[:1]).shape
    torch.Size([1, 10])
    """
    if kind not in (*KINDS, "all"):
        raise ValueError(f"kind must be one of {', '.join((*KINDS, 'all'))}, got {kind}")
    kinds = KINDS if kind == "all" else (kind,)
    for tenant in range(tenants):
        index, turn = divmod(tenant, len(kinds))
        yield _builder(kinds[turn])(index, seed)


def _builder(kind: str) -> Callable[[int, int], ZooModel]:
    try:
        module = import_module(
            f"spacetime.demo.zoo.{'digits' if kind == 'digits' else 'photographs'}"
        )
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"model {kind} needs {error.name}: pip install 'spacetime[demo]'"
        ) from error
    build: Callable[[int, int], ZooModel] = module.BUILDERS[kind]
    return build
