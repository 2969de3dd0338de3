"""Parameters of requests and tensors: those that mean something here, and those we lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacetime.server.model import MAX_LEVEL, MAX_TIMEOUT_US
from spacetime.server.refusal import invalid

BINARY_SIZE = "binary_data_size"
# What Triton's clients may ask for and would miss without being told.
_UNSERVED = {
    "shared_memory_region": "shared memory is not served; send the tensor",
    "sequence_id": "sequences are not served; send each request whole",
    "classification": "classification is not served; ask for the output itself",
}


def unserved(field: str, parameters: Mapping[str, Any]) -> None:
    """Raises Refusal for a parameter that asks for what there is not."""
    for name, problem in _UNSERVED.items():
        if parameters.get(name):
            raise invalid(f"{field}.{name}", problem)


def check_parameters(field: str, parameters: Mapping[str, Any]) -> None:
    """`unserved`, at the price of one look where there is nothing."""
    if parameters:
        unserved(field, parameters)


def flag(field: str, parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A parameter that is true or false."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{field}.{name}", f"must be true or false, got {value!r:.40}")
    return value


def size(field: str, parameters: Mapping[str, Any]) -> int:
    """How many bytes a tensor has behind the JSON."""
    if BINARY_SIZE not in parameters:
        raise invalid(f"{field}.{BINARY_SIZE}", "is missing, and so is data; give one of them")
    return whole(field, parameters, BINARY_SIZE, 2**62)


def whole(field: str, parameters: Mapping[str, Any], name: str, most: int) -> int:
    """A parameter that counts; 0 where it is not given."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise invalid(
            f"{field}.{name}", f"must be a whole number from 0 to {most}, got {value!r:.40}"
        )
    return value


def submission(parameters: Mapping[str, Any]) -> dict[str, int]:
    """A request's `timeout` in microseconds and `priority`, as ServedModel.submit takes them."""
    check_parameters("parameters", parameters)
    found = {}
    if "timeout" in parameters:
        found["timeout_us"] = whole("parameters", parameters, "timeout", MAX_TIMEOUT_US)
    if "priority" in parameters:
        found["priority"] = whole("parameters", parameters, "priority", MAX_LEVEL)
    return found
