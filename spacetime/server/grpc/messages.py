"""The protocol's gRPC messages and service, built when imported, in a pool of their own.

Numbers and types are those of the public protocol and of Triton's extensions to it: field numbers
are what compatibility on the wire means, and a test compares them with Triton's own client. No
generated code: it would be bound to one version of protobuf, and its pool is shared by everybody in
a process, where a client's own copy of these names would clash with ours.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from spacetime.server.refusal import invalid

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
HEALTH = "grpc.health.v1"  # the package of the health checks

# Message: its fields. `name=number type`; `*` repeated; `name?choice` one of several; map<value>.
_MESSAGES = """
ServerLiveRequest:
ServerLiveResponse: live=1 bool
ServerReadyRequest:
ServerReadyResponse: ready=1 bool
ModelReadyRequest: name=1 string, version=2 string
ModelReadyResponse: ready=1 bool
ServerMetadataRequest:
ServerMetadataResponse: name=1 string, version=2 string, extensions=3 *string
ModelMetadataRequest: name=1 string, version=2 string
ModelMetadataResponse.TensorMetadata: name=1 string, datatype=2 string, shape=3 *int64
ModelMetadataResponse: name=1 string, versions=2 *string, platform=3 string,
  inputs=4 *ModelMetadataResponse.TensorMetadata, outputs=5 *ModelMetadataResponse.TensorMetadata
InferParameter: bool_param?parameter_choice=1 bool, int64_param?parameter_choice=2 int64,
  string_param?parameter_choice=3 string, double_param?parameter_choice=4 double,
  uint64_param?parameter_choice=5 uint64
InferTensorContents: bool_contents=1 *bool, int_contents=2 *int32, int64_contents=3 *int64,
  uint_contents=4 *uint32, uint64_contents=5 *uint64, fp32_contents=6 *float,
  fp64_contents=7 *double, bytes_contents=8 *bytes
ModelInferRequest.InferInputTensor: name=1 string, datatype=2 string, shape=3 *int64,
  parameters=4 map<InferParameter>, contents=5 InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: name=1 string, parameters=2 map<InferParameter>
ModelInferRequest: model_name=1 string, model_version=2 string, id=3 string,
  parameters=4 map<InferParameter>, inputs=5 *ModelInferRequest.InferInputTensor,
  outputs=6 *ModelInferRequest.InferRequestedOutputTensor, raw_input_contents=7 *bytes
ModelInferResponse.InferOutputTensor: name=1 string, datatype=2 string, shape=3 *int64,
  parameters=4 map<InferParameter>, contents=5 InferTensorContents
ModelInferResponse: model_name=1 string, model_version=2 string, id=3 string,
  parameters=4 map<InferParameter>, outputs=5 *ModelInferResponse.InferOutputTensor,
  raw_output_contents=6 *bytes
ModelStreamInferResponse: error_message=1 string, infer_response=2 ModelInferResponse
ModelInput: name=1 string, data_type=2 int32, dims=4 *int64
ModelOutput: name=1 string, data_type=2 int32, dims=3 *int64
ModelDynamicBatching: default_priority_level=5 uint64
ModelConfig: name=1 string, platform=2 string, max_batch_size=4 int32, input=5 *ModelInput,
  output=6 *ModelOutput, dynamic_batching=11 ModelDynamicBatching, backend=17 string
ModelConfigRequest: name=1 string, version=2 string
ModelConfigResponse: config=1 ModelConfig
ModelStatisticsRequest: name=1 string, version=2 string
StatisticDuration: count=1 uint64, ns=2 uint64
InferStatistics: success=1 StatisticDuration, fail=2 StatisticDuration, queue=3 StatisticDuration,
  compute_input=4 StatisticDuration, compute_infer=5 StatisticDuration,
  compute_output=6 StatisticDuration, cache_hit=7 StatisticDuration, cache_miss=8 StatisticDuration
InferBatchStatistics: batch_size=1 uint64, compute_input=2 StatisticDuration,
  compute_infer=3 StatisticDuration, compute_output=4 StatisticDuration
ModelStatistics: name=1 string, version=2 string, last_inference=3 uint64,
  inference_count=4 uint64, execution_count=5 uint64, inference_stats=6 InferStatistics,
  batch_stats=7 *InferBatchStatistics
ModelStatisticsResponse: model_stats=1 *ModelStatistics
ModelRepositoryParameter: bool_param?parameter_choice=1 bool, int64_param?parameter_choice=2 int64,
  string_param?parameter_choice=3 string, bytes_param?parameter_choice=4 bytes
RepositoryIndexRequest: repository_name=1 string, ready=2 bool
RepositoryIndexResponse.ModelIndex: name=1 string, version=2 string, state=3 string, reason=4 string
RepositoryIndexResponse: models=1 *RepositoryIndexResponse.ModelIndex
RepositoryModelLoadRequest: repository_name=1 string, model_name=2 string,
  parameters=3 map<ModelRepositoryParameter>
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: repository_name=1 string, model_name=2 string,
  parameters=3 map<ModelRepositoryParameter>
RepositoryModelUnloadResponse:
"""
_HEALTH_MESSAGES = """
HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 int32
HealthListRequest:
HealthListResponse: statuses=1 map<HealthCheckResponse>
"""  # status is an enum, which travels as an int32
# Each method takes the message NameRequest and answers with NameResponse.
METHODS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    *("ModelConfig", "ModelStatistics", "RepositoryIndex"),
    *("RepositoryModelLoad", "RepositoryModelUnload"),
)
STREAM = "ModelStreamInfer"  # ModelInferRequest in, ModelStreamInferResponse out, both streams

Proto = descriptor_pb2.FieldDescriptorProto
_FIELD = re.compile(r"(\w+)(?:\?(\w+))?=(\d+) (\*?)(map<)?([\w.]+)>?")


def _file(package: str, messages: str) -> Any:
    """Returns the descriptor of a .proto file with these messages, written as in _MESSAGES."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"spacetime/{package}.proto", package=package, syntax="proto3"
    )
    described: dict[str, Any] = {}
    for line in re.split(r"\n(?! )", messages.strip()):
        name, _, fields = line.partition(":")
        outer, _, inner = name.rpartition(".")
        if outer and outer not in described:
            described[outer] = file.message_type.add(name=outer)
        if name not in described:
            owner = described[outer].nested_type if outer else file.message_type
            described[name] = owner.add(name=inner)
        for field in _FIELD.findall(fields):
            _add_field(name, described[name], field)
    return file


def _add_field(owner: str, message: Any, parts: tuple[str, ...]) -> None:
    name, choice, number, many, entry, kind = parts
    field = message.field.add(name=name, number=int(number))
    field.label = Proto.LABEL_REPEATED if many or entry else Proto.LABEL_OPTIONAL
    if choice:
        if not message.oneof_decl:
            message.oneof_decl.add(name=choice)
        field.oneof_index = 0
    if entry:
        kind = _map_entry(owner, message, name, kind)
    _set_type(field, kind)


def _map_entry(owner: str, message: Any, name: str, kind: str) -> str:
    entry = message.nested_type.add(name="".join(map(str.title, name.split("_"))) + "Entry")
    entry.options.map_entry = True
    for number, (field, of) in enumerate((("key", "string"), ("value", kind)), start=1):
        added = entry.field.add(name=field, number=number, label=Proto.LABEL_OPTIONAL)
        _set_type(added, of)
    return f"{owner}.{entry.name}"


def _set_type(field: Any, kind: str) -> None:
    plain = getattr(Proto, f"TYPE_{kind.upper()}", None)
    if plain is not None:
        field.type = plain
    else:
        field.type, field.type_name = Proto.TYPE_MESSAGE, kind  # of the file's own package


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file(PACKAGE, _MESSAGES))
_pool.Add(_file(HEALTH, _HEALTH_MESSAGES))


def message_class(name: str, package: str = PACKAGE) -> Any:
    """Returns the Python class of a message of the package."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{package}.{name}"))


def parsed(kind: Any, data: bytes) -> Any:
    """Returns the message of class `kind` that `data` holds. Raises Refusal where it holds none.

    Methods take bytes and parse them here, for gRPC's own parsing would tell the client of a fault
    of the server's.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise invalid("request", f"is no {kind.DESCRIPTOR.name}") from None


# The numbers of Triton's DataType, in their order from 1.
DATA_TYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)
