"""Bodies of the protocol over HTTP: JSON, and JSON followed by the tensors' bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from torch import Tensor

from spacetime.server import tensors
from spacetime.server.model import VERSION, ServedModel, TensorSpec
from spacetime.server.parameters import (
    BINARY_SIZE,
    check_parameters,
    flag,
    size,
    submission,
    unserved,
)
from spacetime.server.refusal import Kind, Refusal, invalid

BINARY_LENGTH = b"inference-header-content-length"
_JOINED = 1 << 16  # smaller answers go out as one piece
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number = bool | int | float
if TYPE_CHECKING:
    Data = list[Any]
else:  # nested like tensors; no strings: numpy gives each the room of the longest
    Data = reduce(lambda inner, _: list[Number | inner], range(15), list[Number])


class InputMessage(Struct):
    """A tensor of a request; its values follow the JSON where it has no `data`."""

    name: str
    shape: list[Size]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Data | None = None


class OutputMessage(Struct):
    """An output that the client asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferMessage(Struct):
    """The body of an inference request."""

    inputs: list[InputMessage]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[OutputMessage] = []


class IndexMessage(Struct):
    """The body of a request for the repository's index."""

    ready: bool = False


class LoadMessage(Struct):
    """The body of a request to load or unload."""

    parameters: dict[str, Any] = {}


_infer = msgspec.json.Decoder(InferMessage)
_index = msgspec.json.Decoder(IndexMessage)
_load = msgspec.json.Decoder(LoadMessage)
encode = msgspec.json.Encoder().encode


def infer_message(data: Any) -> InferMessage:
    """The JSON part of an inference request. Raises Refusal naming the field."""
    message: InferMessage = _decoded(_infer, data)
    return message


def index_message(data: Any) -> IndexMessage:
    """The body of an index request; none at all is the default."""
    message: IndexMessage = _decoded(_index, data) if len(data) else IndexMessage()
    return message


def load_message(data: Any) -> LoadMessage:
    """The body of a load or unload request; none at all is the default."""
    message: LoadMessage = _decoded(_load, data) if len(data) else LoadMessage()
    return message


def _decoded(decoder: msgspec.json.Decoder[Any], data: Any) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        field = path.removesuffix("`")
        if ".data[" in field:
            problem = "must be a number, true or false, or rows of them; BYTES are not served"
        missing = re.fullmatch("Object missing required field `(.*)`", problem)
        if missing:
            raise invalid(f"{field}.{missing[1]}".lstrip("."), "is missing; add it") from None
        raise invalid(field or "body", problem) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid("body", f"is not JSON: {error}") from None
    except RecursionError:
        raise invalid("body", "is nested too deeply") from None


def input_tensors(
    model: ServedModel, message: InferMessage, binary: bytes | memoryview, *, most: int
) -> dict[str, Tensor]:
    """The request's tensors by name; those without `data` lie in `binary` in their order."""
    if len(message.inputs) > most or len(message.outputs) > most:
        raise Refusal(Kind.TOO_LARGE, f"inputs, outputs: at most {most} tensors a request")
    found: dict[str, Tensor] = {}
    offset = 0
    for place, given in enumerate(message.inputs):
        field = f"inputs[{place}]"
        spec = model.input(f"{field}.name", given.name)
        if given.name in found:
            raise invalid(f"{field}.name", f"{given.name} is given twice")
        spec.check(field, given.datatype, given.shape)
        check_parameters(f"{field}.parameters", given.parameters)
        if given.data is not None:
            found[given.name] = tensors.from_numbers(
                f"{field}.data", given.datatype, given.shape, given.data
            )
            continue
        length = size(f"{field}.parameters", given.parameters)
        part = binary[offset : offset + length]
        offset += length
        where = f"{field}.parameters.{BINARY_SIZE}"
        found[given.name] = tensors.from_bytes(where, given.datatype, given.shape, part)
    if offset != len(binary):
        raise invalid("body", f"{len(binary)} bytes follow the JSON, its inputs take {offset}")
    return found


def binary_outputs(model: ServedModel, message: InferMessage) -> tuple[list[str], list[bool]]:
    """The outputs asked for, all where none is named, and whether each goes out as bytes."""
    default = flag("parameters", message.parameters, "binary_data_output")
    for place, wanted in enumerate(message.outputs):
        model.check_output(f"outputs[{place}].name", wanted.name)
        unserved(f"outputs[{place}].parameters", wanted.parameters)
    if not message.outputs:
        return [], [default] * len(model.outputs)
    binary = [
        flag(f"outputs[{place}].parameters", wanted.parameters, "binary_data", default)
        for place, wanted in enumerate(message.outputs)
    ]
    return [wanted.name for wanted in message.outputs], binary


Pieces = list[bytes | memoryview]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference request that was understood: what to submit, and how to answer it."""

    model: ServedModel
    id: str
    tensors: dict[str, Tensor]
    options: dict[str, int]  # of ServedModel.submit
    wanted: list[str]  # outputs; all where none is named
    as_bytes: list[bool]  # whether each goes out so

    def answer(self, result: Any) -> tuple[Headers, Pieces]:
        """Headers and body for what the model returned."""
        outputs = self.model.select(result, self.wanted)
        return infer_answer(self.model.tenant.name, self.id, outputs, self.as_bytes)


def inference(model: ServedModel, message: InferMessage, binary: Any, *, most: int) -> Inference:
    """A request for `model`, of at most `most` tensors. Raises Refusal naming the field."""
    given = input_tensors(model, message, binary, most=most)
    wanted, as_bytes = binary_outputs(model, message)
    options = submission(message.parameters)
    return Inference(model, message.id, given, options, wanted, as_bytes)


def infer_answer(
    name: str,
    request: str,
    outputs: Sequence[tuple[TensorSpec, Tensor]],
    binary: Sequence[bool],
) -> tuple[Headers, Pieces]:
    """Headers and body of an answer: JSON, then the bytes of the outputs that go out so."""
    described, parts = [], []
    for (spec, tensor), as_bytes in zip(outputs, binary, strict=True):
        one: dict[str, Any] = {
            "name": spec.name, "datatype": spec.datatype, "shape": list(tensor.shape),
        }  # fmt: skip
        if as_bytes:
            data = tensors.to_bytes(tensor)
            one["parameters"] = {BINARY_SIZE: len(data)}
            parts.append(data)
        else:
            one["data"] = tensors.to_numbers(tensor)
        described.append(one)
    head: dict[str, Any] = {"model_name": name, "model_version": VERSION, "outputs": described}
    if request:
        head["id"] = request
    return _framed(encode(head), parts)


def _framed(head: bytes, parts: Sequence[memoryview]) -> tuple[Headers, Pieces]:
    if not parts:
        return [(b"content-type", b"application/json")], [head]
    headers = [
        (b"content-type", b"application/octet-stream"),
        (BINARY_LENGTH, str(len(head)).encode()),
    ]
    if sum(map(len, parts)) <= _JOINED:
        return headers, [b"".join((head, *parts))]
    return headers, [head, *parts]
