"""The messages of gRPC's standard services for health and reflection.

They are described here and made in a pool of their own. Protobuf refuses to know two files with one message in a
process, and every other package that serves these services brings a file of its own into the pool that all share.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

HEALTH = "grpc.health.v1"
REFLECTIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
REQUEST_BYTES_MAX = 64 * 1024
"""Largest request of these services: nobody has said who they are."""

_KINDS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
}


def _add_message(file: FileDescriptorProto, name: str, *fields: str, choice: str = "", first_choice: int = 1) -> None:
    """Add a message whose fields, ``"[repeated] type name [number]"``, are numbered from 1 unless they say otherwise.

    Those from number ``first_choice`` on belong to the ``oneof`` called ``choice``.
    """
    message: DescriptorProto = file.message_type.add(name=name)
    if choice:
        message.oneof_decl.add(name=choice)
    for place, text in enumerate(fields, 1):
        repeated = text.startswith("repeated ")
        kind, field_name, *number = text.removeprefix("repeated ").split()
        field = message.field.add(name=field_name, number=int(number[0]) if number else place)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if kind in _KINDS:
            field.type = _KINDS[kind]
        else:
            # Protobuf would find out which of the two it is; readers in other languages do not.
            field.type = FieldDescriptorProto.TYPE_ENUM if "." in kind else FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = f".{file.package}.{kind}"
        if choice and field.number >= first_choice:
            field.oneof_index = 0


def _health_file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="grpc/health/v1/health.proto", package=HEALTH, syntax="proto3")
    _add_message(file, "HealthCheckRequest", "string service")
    _add_message(file, "HealthCheckResponse", "HealthCheckResponse.ServingStatus status")
    status = file.message_type[1].enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    service = file.service.add(name="Health")
    types = {"input_type": f".{HEALTH}.HealthCheckRequest", "output_type": f".{HEALTH}.HealthCheckResponse"}
    service.method.add(name="Check", **types)
    service.method.add(name="Watch", server_streaming=True, **types)
    return file


def _reflection_file(package: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"{package.replace('.', '/')}/reflection.proto", package=package, syntax="proto3")
    _add_message(
        file, "ServerReflectionRequest", "string host", "string file_by_filename 3", "string file_containing_symbol 4",
        "ExtensionRequest file_containing_extension 5", "string all_extension_numbers_of_type 6",
        "string list_services 7", choice="message_request", first_choice=3,
    )  # fmt: skip
    _add_message(file, "ExtensionRequest", "string containing_type", "int32 extension_number")
    _add_message(
        file, "ServerReflectionResponse", "string valid_host", "ServerReflectionRequest original_request 2",
        "FileDescriptorResponse file_descriptor_response 4",
        "ExtensionNumberResponse all_extension_numbers_response 5", "ListServiceResponse list_services_response 6",
        "ErrorResponse error_response 7", choice="message_response", first_choice=4,
    )  # fmt: skip
    _add_message(file, "FileDescriptorResponse", "repeated bytes file_descriptor_proto")
    _add_message(file, "ExtensionNumberResponse", "string base_type_name", "repeated int32 extension_number")
    _add_message(file, "ListServiceResponse", "repeated ServiceResponse service")
    _add_message(file, "ServiceResponse", "string name")
    _add_message(file, "ErrorResponse", "int32 error_code", "string error_message")
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return file


FILES = (_health_file(), *map(_reflection_file, REFLECTIONS))
_pool = DescriptorPool()
for _file in FILES:
    _pool.AddSerializedFile(_file.SerializeToString())


def message_class(name: str) -> type[Message]:
    """The class of the message with the full name ``name``."""
    return GetMessageClass(_pool.FindMessageTypeByName(name))
