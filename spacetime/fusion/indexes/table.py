"""Which operations read or write where an index says, and between which bounds it has to be.

An index beyond them raises on a CPU. On a CUDA device it ends the process's use of the device. In a
stack of several tenants' weights it would reach another tenant's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

WRAPS = {  # operations along `dim`: whether a negative index counts from the end
    "gather": False,
    "index_select": False,
    "scatter": False,
    "scatter_add": False,
    "scatter_reduce": False,
    "index_add": False,
    "index_copy": False,
    "index_reduce": False,
    "index_fill": True,
}
TABLES = {"embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"}
BY_LIST = {"index", "_unsafe_index", "index_put", "_unsafe_index_put", "_index_put_impl"}
FLAT = {"take", "put"}
LOSSES = {
    "nll_loss", "nll_loss_nd", "nll_loss2d", "nll_loss_forward", "nll_loss2d_forward",
    "cross_entropy_loss",
}  # fmt: skip
ASSERT = "_assert_async"
UNPOOLED = {"max_unpool2d", "max_unpool3d"}
SOLVERS = {
    "linalg_inv", "linalg_solve", "linalg_cholesky", "linalg_eigh", "linalg_eig", "linalg_eigvals",
    "linalg_eigvalsh", "linalg_svd", "linalg_svdvals", "linalg_lstsq", "linalg_lu_factor",
    "linalg_ldl_factor", "linalg_pinv", "linalg_tensorinv", "linalg_tensorsolve", "inverse",
    "cholesky",
}  # fmt: skip
DIVISIONS = {"div", "divide", "floor_divide", "remainder", "fmod"}
INDEX_ERRORS = {  # these raise IndexError, the others RuntimeError
    *BY_LIST, *LOSSES, "embedding", "index_select", "index_fill", "index_copy", "take", "put",
}  # fmt: skip
_INTEGERS = {torch.int8, torch.int16, torch.int32, torch.int64}

Valued = Callable[[Any], Any]  # from an argument of a call to its value


@dataclass(frozen=True, slots=True)
class IndexBound:
    """The bounds of one index of a call: low <= i < high.

    `argument`: of the operation's schema.
    `place`: the index's position, where the argument is a list; else None.
    `low`, `high`: whole numbers; `high` is symbolic where it holds the batch size.
    `also`: one value outside the bounds that the operation ignores; None where there is none.
    `error`: the text that the operation raises.
    """

    argument: str
    place: int | None
    low: Any
    high: Any
    also: int | None
    error: str

    @property
    def known(self) -> bool:
        """Whether the size of what is indexed is a number, whatever the batch."""
        return isinstance(self.high, int)


def base_name(target: Any) -> str:
    """The name of an ATen operation without the mark of its in-place form; "" for anything else."""
    if not isinstance(target, torch._ops.OpOverload):
        return ""
    return str(target._schema.name).removeprefix("aten::").rstrip("_")


def bounds(target: Any, args: Mapping[str, Any], valued: Valued = lambda x: x) -> list[IndexBound]:
    """The bounds of every index of a call.

    `target`: the operation.
    `args`: its arguments by name.
    `valued`: from an argument to its value; a graph's nodes are not their values.
    """
    name = base_name(target)
    if name in BY_LIST:
        return _by_list(args, valued)
    bound = _single(name, args, valued)
    if bound is None or not _is_index(valued(args[bound.argument])):
        return []
    return [bound]


def _single(name: str, args: Mapping[str, Any], valued: Valued) -> IndexBound | None:
    """The bounds of the one index of an operation; None where it has none."""
    if name in TABLES:
        return _bound("indices", valued(args["weight"]).shape[0])
    if name in WRAPS and "dim" in args:
        shape = valued(args["self"]).shape or (1,)
        dim = args["dim"] % len(shape)
        in_error = None if name == "index_select" else dim
        return _bound("index", shape[dim], wraps=WRAPS[name], dim=in_error)
    if name in FLAT:
        return _bound("index", prod(valued(args["self"]).shape), wraps=True)
    return _counted(name, args, valued)


def _counted(name: str, args: Mapping[str, Any], valued: Valued) -> IndexBound | None:
    """The bounds where an index counts something else than rows: classes, or places of a plane."""
    if name == "one_hot" and args["num_classes"] > 0:
        error = f"Class values must be non-negative and smaller than {args['num_classes']}."
        return replace(_bound("self", args["num_classes"]), error=error)
    if name in LOSSES:
        shape = valued(args["self"]).shape
        classes = shape[1] if len(shape) > 1 else shape[0]
        return _bound("target", classes, also=args["ignore_index"])
    if name in UNPOOLED:
        return _bound("indices", prod(map(valued, args["output_size"])))
    return None


def _by_list(args: Mapping[str, Any], valued: Valued) -> list[IndexBound]:
    """The bounds of `x[i, :, j]`, one for each index in the list."""
    shape, dim = valued(args["self"]).shape, 0
    listed = []
    for place, index in enumerate(args["indices"]):
        value = None if index is None else valued(index)
        if _is_index(value):
            listed.append(_bound("indices", shape[dim], wraps=True, dim=dim, place=place))
        # A mask stands for as many dimensions as it has, any other index for one.
        dim += value.dim() if isinstance(value, Tensor) and not _is_index(value) else 1
    return listed


def _bound(
    argument: str,
    high: Any,
    *,
    wraps: bool = False,
    dim: int | None = None,
    place: int | None = None,
    also: int | None = None,
) -> IndexBound:
    """The bounds below a size, and PyTorch's own text for an index beyond.

    `wraps` says whether a negative index counts from the end.
    """
    error = "index out of range in self"
    if dim is not None:
        error = f"index is out of bounds for dimension {dim} with size {high}"
    return IndexBound(argument, place, -high if wraps else 0, high, also, error)


def _is_index(value: Any) -> bool:
    """Whether a value is a tensor of whole numbers. Masks are indexes too, but cannot be beyond."""
    return isinstance(value, Tensor) and value.dtype in _INTEGERS
