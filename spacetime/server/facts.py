"""What the server says of itself, and what no client may bring, over either transport."""

from __future__ import annotations

from collections.abc import Iterable

from spacetime.server.refusal import Refusal, RefusalKind

EXTENSIONS = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
]


def refuse_code(parameters: Iterable[str]) -> None:
    """Raises Refusal where a load brings a configuration or files of its own."""
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise Refusal(
                RefusalKind.INVALID,
                f"parameters.{name:.40}: models come from the workload file only",
            )
