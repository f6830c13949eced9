"""A program that knows nothing of Atoma: asks a gRPC server for its health and for what can be called, as grpcurl does.

It is run in a process of its own: the packages that it uses bring protobuf files of which a process can hold only one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def health(channel: grpc.Channel, services: list[str]) -> dict[str, str]:
    """What the server says of each service."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    found: dict[str, str] = {}
    for service in services:
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            found[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
        except grpc.RpcError as error:
            found[service] = error.code().name
    watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    found["watched"] = health_pb2.HealthCheckResponse.ServingStatus.Name(next(watching).status)
    watching.cancel()
    return found


def explore(channel: grpc.Channel) -> dict[str, object]:
    """Every service with its methods, and whether messages are found, through reflection alone."""
    database: Any = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = {
        name: [method.name for method in pool.FindServiceByName(name).methods] for name in database.get_services()
    }
    messages: dict[str, list[str] | None] = {}
    for name in ("atoma.sync.v1.PullRequest", "atoma.sync.v1.RemoteOp", "google.protobuf.FileDescriptorProto"):
        try:
            messages[name] = [field.name for field in pool.FindMessageTypeByName(name).fields]
        except KeyError:
            messages[name] = None
    return {"services": services, "messages": messages}


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as to_server:
        told = {"health": health(to_server, sys.argv[2:]), **explore(to_server)}
    json.dump(told, sys.stdout)
