"""Whether a part of a model is in training mode, as far as its flag can say so."""

from __future__ import annotations

from torch import fx, nn


def is_exported(part: nn.Module) -> bool:
    """Whether torch.export made a module: its flag says nothing, and it refuses eval()."""
    return isinstance(part, fx.GraphModule) and bool({"train", "eval"} & set(vars(part)))


def is_quantised(part: nn.Module) -> bool:
    """Whether a module is quantised: it has no training mode, though it is made with the flag
    set.
    """
    home = type(part).__module__
    return home.startswith("torch.ao.nn.") and "quantized" in home.split(".")


def part_in_training(model: nn.Module) -> str | None:
    """The path of a part of the model that is in training mode; None where there is none.

    The flag is all there is to see. Parts that torch.export made are left out, and quantised parts,
    which have one mode only.
    """
    fixed = [
        path for path, part in model.named_modules() if is_exported(part) or is_quantised(part)
    ]
    for path, part in model.named_modules():
        within = any(not f or path == f or path.startswith(f"{f}.") for f in fixed)
        if not within and getattr(part, "training", False):  # frozen TorchScript has no flag
            return str(path)
    return None
