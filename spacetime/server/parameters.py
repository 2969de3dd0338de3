"""Parameters of requests and tensors: those that are served, and those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacetime.server.model import MAX_LEVEL, MAX_TIMEOUT_US
from spacetime.server.refusal import invalid

BINARY_SIZE = "binary_data_size"
# Triton's clients may ask for these, and would miss them without a word if they were ignored.
_UNSERVED = {
    "shared_memory_region": "shared memory is not served; send the tensor",
    "sequence_id": "sequences are not served; send each request whole",
    "classification": "classification is not served; ask for the output itself",
}


def refuse_unserved(field: str, parameters: Mapping[str, Any]) -> None:
    """Raises Refusal naming `field` for a parameter that asks for something this server lacks."""
    for name, problem in _UNSERVED.items():
        if parameters.get(name):
            raise invalid(f"{field}.{name}", problem)


def check_parameters(field: str, parameters: Mapping[str, Any]) -> None:
    """Does `refuse_unserved`; where there are no parameters it costs next to nothing."""
    if parameters:
        refuse_unserved(field, parameters)


def flag(field: str, parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """Returns a parameter that is true or false. Raises Refusal naming it for anything else."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{field}.{name}", f"must be true or false, got {value!r:.40}")
    return value


def binary_size(field: str, parameters: Mapping[str, Any]) -> int:
    """Returns how many bytes of a tensor follow the JSON. Raises Refusal where it is not said."""
    if BINARY_SIZE not in parameters:
        raise invalid(f"{field}.{BINARY_SIZE}", "is missing, and so is data; give one of them")
    return whole_number(field, parameters, BINARY_SIZE, 2**62)


def whole_number(field: str, parameters: Mapping[str, Any], name: str, most: int) -> int:
    """Returns a parameter that is a whole number from 0 to `most`; 0 where it is not given.

    Raises Refusal naming the parameter for anything else.
    """
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise invalid(
            f"{field}.{name}", f"must be a whole number from 0 to {most}, got {value!r:.40}"
        )
    return value


def submission(parameters: Mapping[str, Any]) -> dict[str, int]:
    """Returns a request's `timeout`, in microseconds, and `priority` as options of
    `ServedModel.submit`. Raises Refusal naming the parameter that is wrong."""
    check_parameters("parameters", parameters)
    options = {}
    if "timeout" in parameters:
        options["timeout_us"] = whole_number("parameters", parameters, "timeout", MAX_TIMEOUT_US)
    if "priority" in parameters:
        options["priority"] = whole_number("parameters", parameters, "priority", MAX_LEVEL)
    return options
