"""What HTTP and gRPC share: the protocol's extensions that are served, and the refusal of code."""

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
    """Raises Refusal where the parameters of a load request hold a configuration or files.

    A client chooses among the workload's tenants; code and weights never come from a client.
    """
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise Refusal(
                RefusalKind.INVALID,
                f"parameters.{name:.40}: models come from the workload file only",
            )
