"""The standard service by which a balancer or a supervisor asks whether a server is up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from atoma_transports.grpc._driver.server import ServerCall
from atoma_transports.grpc.standard import HEALTH, REQUEST_BYTES_MAX, message_class

REQUEST = message_class(f"{HEALTH}.HealthCheckRequest")
RESPONSE = message_class(f"{HEALTH}.HealthCheckResponse")
WATCHES_MAX = 4
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

Call: TypeAlias = ServerCall[Any, Any]  # its messages have no types of their own


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

    async def _known(self, call: Call) -> bool:
        call.take_at_most(REQUEST_BYTES_MAX)
        request = await call.recv_message()
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "a call without a message")
        return request.service in self._services

    async def _check(self, call: Call) -> None:
        if not await self._known(call):
            raise GRPCError(Status.NOT_FOUND, "no such service here")
        await call.send_message(RESPONSE(status=NOT_SERVING if self._drain.is_set() else SERVING))

    async def _watch(self, call: Call) -> None:
        if self._watching >= WATCHES_MAX:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{WATCHES_MAX} watches are enough for one connection")
        self._watching += 1
        try:
            await self._watch_on(call)
        finally:
            self._watching -= 1

    async def _watch_on(self, call: Call) -> None:
        known = await self._known(call)
        await call.send_message(RESPONSE(status=SERVING if known else SERVICE_UNKNOWN))
        await self._leave.wait()
        if known and self._drain.is_set():
            await call.send_message(RESPONSE(status=NOT_SERVING))
        raise GRPCError(Status.UNAVAILABLE, "the server ends this connection")
