"""Bodies of the protocol over HTTP: JSON, and JSON followed by the tensors' bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from torch import Tensor

from spacetime.server import tensors
from spacetime.server.model import VERSION, ServedModel, TensorSpec
from spacetime.server.parameters import (
    BINARY_SIZE,
    binary_size,
    check_parameters,
    flag,
    refuse_unserved,
    submission,
)
from spacetime.server.refusal import Refusal, RefusalKind, invalid

BINARY_LENGTH = b"inference-header-content-length"
_MOST_JOINED_BYTES = 1 << 16  # tensors up to this size are joined with the JSON to one piece
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Parameters = dict[str, Any]


class InputMessage(Struct):
    """A tensor of a request; its values follow the JSON where it has no `data`."""

    name: str
    shape: list[Size]
    datatype: str
    parameters: Parameters | None = None
    data: tensors.Data | None = None


class OutputMessage(Struct):
    """An output that the client asks for."""

    name: str
    parameters: Parameters | None = None


class InferMessage(Struct):
    """The body of an inference request; null is the same as absent in every message."""

    inputs: list[InputMessage]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[OutputMessage] | None = None


class IndexMessage(Struct):
    """The body of a request for the repository's index."""

    ready: bool | None = None


class LoadMessage(Struct):
    """The body of a request to load or unload."""

    parameters: Parameters | None = None


_infer = msgspec.json.Decoder(InferMessage)
_index = msgspec.json.Decoder(IndexMessage)
_load = msgspec.json.Decoder(LoadMessage)
encode = msgspec.json.Encoder().encode


# What JSON lacks and many write all the same: outside of a text, where a value of a list stands.
_BARE = re.compile(rb'("(?:[^"\\]|\\.)*")|([\[,]\s*)(NaN|-?Infinity)(?=\s*[,\]])', re.DOTALL)


def infer_message(data: Any) -> InferMessage:
    """Returns the JSON part of an inference request.

    A bare NaN or Infinity, which JSON lacks, is taken for the text of that name. Raises Refusal
    naming the field.
    """
    try:
        message: InferMessage = _decoded(_infer, data)
    except Refusal:
        # Only now, so that a body that is JSON is parsed once and never searched for bare names.
        text = bytes(data)
        if b"NaN" not in text and b"Infinity" not in text:
            raise
        message = _decoded(_infer, _BARE.sub(_quoted, text))
    return message


def _quoted(match: re.Match[bytes]) -> bytes:
    """Returns a text as it is, and a bare NaN or Infinity as a text."""
    text, before, number = match.groups()
    return text or b'%b"%b"' % (before, number)


def ready_only(data: Any) -> bool:
    """Whether an index request asks for ready models only; an empty body does not.

    Raises Refusal.
    """
    message: IndexMessage = _decoded(_index, data) if len(data) else IndexMessage()
    return bool(message.ready)


def load_parameters(data: Any) -> Parameters:
    """Returns the parameters of a load or unload request; an empty body has none.

    Raises Refusal.
    """
    message: LoadMessage = _decoded(_load, data) if len(data) else LoadMessage()
    return message.parameters or {}


def _decoded(decoder: msgspec.json.Decoder[Any], data: Any) -> Any:
    """Returns the message that `data` holds. Raises Refusal naming the field by its path."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        field = path.removesuffix("`")
        if ".data[" in field:
            problem = tensors.data_problem(problem)
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
    """Returns the request's tensors by name; those without `data` lie in `binary` in their order.

    most: how many inputs, and outputs, a request may have. Raises Refusal naming the field.
    """
    if len(message.inputs) > most or len(message.outputs or ()) > most:
        raise Refusal(RefusalKind.TOO_LARGE, f"inputs, outputs: at most {most} tensors a request")
    inputs: dict[str, Tensor] = {}
    offset = 0
    for place, given in enumerate(message.inputs):
        field = f"inputs[{place}]"
        spec = model.input(f"{field}.name", given.name)
        if given.name in inputs:
            raise invalid(f"{field}.name", f"{given.name} is given twice")
        spec.check(field, given.datatype, given.shape)
        parameters = _present(given.parameters)
        check_parameters(f"{field}.parameters", parameters)
        if given.data is not None:
            inputs[given.name] = tensors.from_numbers(
                f"{field}.data", given.datatype, given.shape, given.data
            )
            continue
        length = binary_size(f"{field}.parameters", parameters)
        part = binary[offset : offset + length]
        offset += length
        where = f"{field}.parameters.{BINARY_SIZE}"
        inputs[given.name] = tensors.from_bytes(where, given.datatype, given.shape, part)
    if offset != len(binary):
        raise invalid("body", f"{len(binary)} bytes follow the JSON, its inputs take {offset}")
    return inputs


def _present(parameters: Parameters | None) -> Parameters:
    """Returns the parameters that have a value; null is the same as absent."""
    if not parameters:
        return {}
    return {name: value for name, value in parameters.items() if value is not None}


def binary_outputs(model: ServedModel, message: InferMessage) -> tuple[list[str], list[bool]]:
    """Returns the names of the outputs asked for, and whether each goes out as bytes.

    No name at all asks for all outputs. Raises Refusal naming the field.
    """
    default = flag("parameters", _present(message.parameters), "binary_data_output")
    wanted, binary = [], []
    for place, output in enumerate(message.outputs or ()):
        model.check_output(f"outputs[{place}].name", output.name)
        field, parameters = f"outputs[{place}].parameters", _present(output.parameters)
        refuse_unserved(field, parameters)
        wanted.append(output.name)
        binary.append(flag(field, parameters, "binary_data", default))
    return wanted, binary or [default] * len(model.outputs)


Pieces = list[bytes | memoryview]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference request that was understood: what to submit, and how to answer it."""

    model: ServedModel
    id: str
    tensors: dict[str, Tensor]
    options: dict[str, int]  # of ServedModel.submit
    wanted: list[str]  # the names of outputs; all outputs where it is empty
    as_bytes: list[bool]  # whether each output goes out as bytes

    def answer(self, result: Any) -> tuple[Headers, Pieces]:
        """Returns headers and body of the answer for `result`, which the model returned."""
        outputs = self.model.select(result, self.wanted)
        return infer_answer(self.model.tenant.name, self.id, outputs, self.as_bytes)


def inference(model: ServedModel, message: InferMessage, binary: Any, *, most: int) -> Inference:
    """Understands a request for `model`, of at most `most` inputs and outputs.

    binary: the bytes behind the JSON. Raises Refusal naming the field.
    """
    given = input_tensors(model, message, binary, most=most)
    wanted, as_bytes = binary_outputs(model, message)
    options = submission(_present(message.parameters))
    return Inference(model, message.id or "", given, options, wanted, as_bytes)


def infer_answer(
    name: str,
    request: str,
    outputs: Sequence[tuple[TensorSpec, Tensor]],
    binary: Sequence[bool],
) -> tuple[Headers, Pieces]:
    """Returns headers and body of an answer: JSON, then the bytes of the outputs sent as bytes.

    name: the model's. request: the request's id, empty where it has none.
    """
    described, parts = [], []
    for (spec, tensor), as_bytes in zip(outputs, binary, strict=True):
        output: dict[str, Any] = {
            "name": spec.name, "datatype": spec.datatype, "shape": list(tensor.shape),
        }  # fmt: skip
        if as_bytes:
            data = tensors.to_bytes(tensor)
            output["parameters"] = {BINARY_SIZE: len(data)}
            parts.append(data)
        else:
            output["data"] = tensors.to_numbers(tensor)
        described.append(output)
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
    if sum(map(len, parts)) <= _MOST_JOINED_BYTES:
        return headers, [b"".join((head, *parts))]
    return headers, [head, *parts]
