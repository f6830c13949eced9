"""gRPC's standard services for health and reflection.

Their messages are described here and made in a pool of their own. Protobuf refuses to know two files with one message in a
process, and every other package that serves these services brings a file of its own into the pool that all share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeAlias

import trio
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from atoma_transports.grpc._driver.server import ServerCall
from atoma_transports.grpc.v1 import sync_pb2

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
for _known_file in FILES:
    _pool.AddSerializedFile(_known_file.SerializeToString())


def message_class(name: str) -> type[Message]:
    """The class of the message with the full name ``name``."""
    return GetMessageClass(_pool.FindMessageTypeByName(name))


REQUEST = message_class(f"{HEALTH}.HealthCheckRequest")
RESPONSE = message_class(f"{HEALTH}.HealthCheckResponse")
WATCHES_MAX = 4
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

AnyServerCall: TypeAlias = ServerCall[Any, Any]  # its messages have no types of their own


class HealthCalls:
    """``grpc.health.v1.Health`` of one connection: a server serves until it drains.

    Args:
        services: Names that may be asked for, besides the empty one for the server as a whole.
        drain: Set when the server shuts down.
        leave: Set when the connection ends.
    """

    def __init__(self, services: Collection[str], drain: trio.Event, leave: trio.Event) -> None:
        self._services = {"", f"{HEALTH}.Health", *services}
        self._drain = drain
        self._leave = leave
        self._watching = 0

    def handlers(self) -> Mapping[str, Handler]:
        """The handler of each path."""
        return {
            f"/{HEALTH}.Health/Check": Handler(self._check, Cardinality.UNARY_UNARY, REQUEST, RESPONSE),
            f"/{HEALTH}.Health/Watch": Handler(self._watch, Cardinality.UNARY_STREAM, REQUEST, RESPONSE),
        }

    async def _known(self, call: AnyServerCall) -> bool:
        call.take_at_most(REQUEST_BYTES_MAX)
        request = await call.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "a call without a message")
        return request.service in self._services

    async def _check(self, call: AnyServerCall) -> None:
        if not await self._known(call):
            raise GRPCError(Status.NOT_FOUND, "no such service here")
        await call.send_message(RESPONSE(status=NOT_SERVING if self._drain.is_set() else SERVING))

    async def _watch(self, call: AnyServerCall) -> None:
        if self._watching >= WATCHES_MAX:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{WATCHES_MAX} watches are enough for one connection")
        self._watching += 1
        try:
            await self._watch_on(call)
        finally:
            self._watching -= 1

    async def _watch_on(self, call: AnyServerCall) -> None:
        known = await self._known(call)
        await call.send_message(RESPONSE(status=SERVING if known else SERVICE_UNKNOWN))
        await self._leave.wait()
        if known and self._drain.is_set():
            await call.send_message(RESPONSE(status=NOT_SERVING))
        raise GRPCError(Status.UNAVAILABLE, "the server ends this connection")


REFLECTING = tuple(f"{package}.ServerReflection" for package in REFLECTIONS)


@cache
def reflection_handlers() -> Mapping[str, Handler]:
    """The handler of each path, in both versions of the service."""
    table: dict[str, Handler] = {}
    for package in REFLECTIONS:
        request = message_class(f"{package}.ServerReflectionRequest")
        response = message_class(f"{package}.ServerReflectionResponse")
        path = f"/{package}.ServerReflection/ServerReflectionInfo"
        table[path] = Handler(partial(_reflect, response), Cardinality.STREAM_STREAM, request, response)
    return table


async def _reflect(response: Any, call: AnyServerCall) -> None:
    call.take_at_most(REQUEST_BYTES_MAX)
    while (request := await call.recv_message()) is not None:
        await call.send_message(response(valid_host=request.host, original_request=request, **_answer(request)))


def _answer(request: Any) -> Mapping[str, object]:
    asked = request.WhichOneof("message_request")
    if asked == "list_services":
        return {"list_services_response": {"service": [{"name": name} for name in _index().services]}}
    if asked == "file_by_filename":
        return _file(_index().by_name.get(request.file_by_filename))
    if asked == "file_containing_symbol":
        return _file(_index().by_symbol.get(request.file_containing_symbol.removeprefix(".")))
    if asked == "all_extension_numbers_of_type":
        name = request.all_extension_numbers_of_type
        if name in _index().by_symbol:
            return {"all_extension_numbers_response": {"base_type_name": name}}
    if asked is None:
        return _error(Status.INVALID_ARGUMENT, "nothing is asked")
    return _error(Status.NOT_FOUND, "not found")


def _file(data: bytes | None) -> Mapping[str, object]:
    if data is None:
        return _error(Status.NOT_FOUND, "not found")
    return {"file_descriptor_response": {"file_descriptor_proto": [data]}}


def _error(status: Status, message: str) -> Mapping[str, object]:
    return {"error_response": {"error_code": status.value, "error_message": message}}


class _Index:
    """The files of the services that are answered here, which are all that is shown of the process."""

    def __init__(self) -> None:
        sync = FileDescriptorProto()
        sync_pb2.DESCRIPTOR.CopyToProto(sync)
        self.services: list[str] = []
        self.by_name: dict[str, bytes] = {}
        self.by_symbol: dict[str, bytes] = {}
        for file in (sync, *FILES):
            data = file.SerializeToString()
            self.by_name[file.name] = data
            self.services += [f"{file.package}.{service.name}" for service in file.service]
            self.by_symbol.update(dict.fromkeys(_symbols(file), data))


@cache
def _index() -> _Index:
    return _Index()


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """The full names in ``file``: its messages with their fields, its enums, its services with their methods."""
    for message in file.message_type:
        yield from _symbols_of(message, file.package)
    for service in file.service:
        name = f"{file.package}.{service.name}"
        yield name
        yield from (f"{name}.{method.name}" for method in service.method)


def _symbols_of(message: DescriptorProto, prefix: str) -> Iterator[str]:
    name = f"{prefix}.{message.name}"
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    yield from (f"{name}.{enum.name}" for enum in message.enum_type)
    for nested in message.nested_type:
        yield from _symbols_of(nested, name)
