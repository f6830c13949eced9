"""The standard service by which tools such as grpcurl learn what can be called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from grpclib.const import Cardinality, Handler, Status

from atoma_transports.grpc._driver.server import ServerCall
from atoma_transports.grpc.standard import FILES, REFLECTIONS, REQUEST_BYTES_MAX, message_class
from atoma_transports.grpc.v1 import sync_pb2

REFLECTING = tuple(f"{package}.ServerReflection" for package in REFLECTIONS)

Call: TypeAlias = ServerCall[Any, Any]  # its messages have no types of their own


def reflection_handlers() -> Mapping[str, Handler]:
    """The handler of each path, in both versions of the service."""
    table: dict[str, Handler] = {}
    for package in REFLECTIONS:
        request = message_class(f"{package}.ServerReflectionRequest")
        response = message_class(f"{package}.ServerReflectionResponse")
        path = f"/{package}.ServerReflection/ServerReflectionInfo"
        table[path] = Handler(partial(_reflect, response), Cardinality.STREAM_STREAM, request, response)
    return table


async def _reflect(response: Any, call: Call) -> None:
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
    """What is told: the files of the services that are answered here, and nothing else of the process."""

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
