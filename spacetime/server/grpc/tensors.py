"""Tensors and parameters between gRPC messages and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spacetime.models.example_rows import DTYPES
from spacetime.server import tensors
from spacetime.server.grpc.messages import message_class
from spacetime.server.model import ServedModel, TensorSpec
from spacetime.server.parameters import check_parameters
from spacetime.server.refusal import Refusal, RefusalKind, invalid

# Where the typed form of a message has its values, as the protocol says.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
_response = message_class("ModelInferResponse")


def parameters(given: Any) -> dict[str, Any]:
    """Returns a message's parameters as plain values by name, without those that have none."""
    return {
        name: getattr(value, choice)
        for name, value in given.items()
        if (choice := value.WhichOneof("parameter_choice"))
    }


def input_tensors(model: ServedModel, request: Any, *, most: int) -> dict[str, Tensor]:
    """Returns the request's tensors by name, of a request with at most `most` inputs and outputs.

    Raises Refusal naming the field that is wrong.
    """
    if len(request.inputs) > most or len(request.outputs) > most:
        raise Refusal(RefusalKind.TOO_LARGE, f"inputs, outputs: at most {most} tensors a request")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(
            "raw_input_contents", f"must be one for each of {len(request.inputs)}, got {len(raw)}"
        )
    inputs: dict[str, Tensor] = {}
    for place, given in enumerate(request.inputs):
        field = f"inputs[{place}]"
        spec = model.input(f"{field}.name", given.name)
        if given.name in inputs:
            raise invalid(f"{field}.name", f"{given.name} is given twice")
        shape = list(given.shape)
        spec.check(field, given.datatype, shape)
        check_parameters(f"{field}.parameters", parameters(given.parameters))
        if raw:
            if given.HasField("contents"):
                raise invalid(f"{field}.contents", "is there, and so are raw_input_contents")
            where = f"raw_input_contents[{place}]"
            inputs[given.name] = tensors.from_bytes(where, given.datatype, shape, raw[place])
        else:
            inputs[given.name] = _typed(f"{field}.contents", spec, shape, given.contents)
    return inputs


def wanted_outputs(model: ServedModel, request: Any) -> list[str]:
    """Returns the names of the outputs the request asks for. Raises Refusal naming the field."""
    for place, output in enumerate(request.outputs):
        model.check_output(f"outputs[{place}].name", output.name)
        check_parameters(f"outputs[{place}].parameters", parameters(output.parameters))
    return [output.name for output in request.outputs]


def _typed(field: str, spec: TensorSpec, shape: Sequence[int], contents: Any) -> Tensor:
    """Returns the tensor whose values a message has in its typed form. Raises Refusal."""
    kind = _CONTENTS.get(spec.datatype)
    if kind is None:
        raise invalid(field, f"{spec.datatype} travels in raw_input_contents only")
    values: np.ndarray[Any, Any] = np.array(getattr(contents, kind), DTYPES_OF[kind])
    if values.size != int(np.prod(shape, dtype=object)):
        raise invalid(f"{field}.{kind}", f"must hold the {list(shape)} tensor, got {values.size}")
    wanted = DTYPES[spec.datatype]
    tensor = torch.from_numpy(values)
    if not tensor.equal(tensor.to(wanted).to(tensor.dtype)) and spec.datatype[:2] != "FP":
        raise invalid(f"{field}.{kind}", f"must be numbers of {spec.datatype}")
    return tensor.to(wanted).reshape(tuple(shape))


DTYPES_OF = {
    "bool_contents": np.bool_, "int_contents": np.int32, "int64_contents": np.int64,
    "uint_contents": np.uint32, "uint64_contents": np.uint64,
    "fp32_contents": np.float32, "fp64_contents": np.float64,
}  # fmt: skip


def infer_response(
    name: str, version: str, request: str, outputs: Sequence[tuple[TensorSpec, Tensor]]
) -> Any:
    """Returns the message that answers a request with id `request`, its tensors as bytes."""
    response = _response(model_name=name, model_version=version, id=request)
    for spec, tensor in outputs:
        response.outputs.add(name=spec.name, datatype=spec.datatype, shape=tensor.shape)
        response.raw_output_contents.append(bytes(tensors.to_bytes(tensor)))
    return response


def submission(given: Mapping[str, Any], remaining_s: float | None) -> dict[str, Any]:
    """Returns the parameters of a request with the call's own deadline in them.

    remaining_s: seconds until the deadline that the client set for the gRPC call, None where it set
    none. It becomes the parameter `timeout`, in microseconds, where it is sooner than that.
    """
    if remaining_s is None:
        return dict(given)
    own = given.get("timeout", 0)
    left = max(1, int(remaining_s * 1e6))
    sooner = left if not own or not isinstance(own, int) else min(own, left)
    return dict(given) | ({"timeout": sooner} if isinstance(own, int) else {})
