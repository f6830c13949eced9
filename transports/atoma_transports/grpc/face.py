"""gRPC as one of the languages on a port."""

from __future__ import annotations

import trio

from atoma.ports.tasks import open_tasks
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.rate import Meter, MeteredStream
from atoma_transports.grpc._driver.server import serve_grpc
from atoma_transports.grpc.calls import SyncCalls
from atoma_transports.grpc.health import HealthCalls
from atoma_transports.grpc.packed import SERVICE, grpc_limits
from atoma_transports.grpc.reflection import REFLECTING, reflection_handlers
from atoma_transports.serving.face import Hosting

HTTP2_START = b"PRI * HTTP/2.0\r\n\r\n"


class GrpcFace:
    """The service ``atoma.sync.v1.Sync``, with the standard ones for health and reflection beside it.

    Every call of ``Sync`` brings its token. Health and reflection ask for none: whether a server is up is told to
    anybody who reaches it, and reflection tells what is published anyway.
    """

    name = "grpc"

    def speaks(self, head: bytes) -> bool:
        """See :class:`atoma_transports.serving.face.Face`."""
        return head.startswith(HTTP2_START)

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """See :class:`atoma_transports.serving.face.Face`."""
        limits, meter = hosting.limits, None
        if limits.bytes_per_s and not hosting.peer.loopback:
            meter = Meter(limits.bytes_per_s)
            stream = MeteredStream(stream, meter)
        sync = SyncCalls(hosting, meter)
        health = HealthCalls((SERVICE, *REFLECTING), hosting.drain, sync.begun)
        handlers = {**sync.handlers(), **health.handlers(), **reflection_handlers(sync.begun)}
        async with open_tasks() as nursery:
            nursery.start_soon(sync.end_streams)
            nursery.start_soon(_show_out, sync, limits, nursery.cancel_scope)
            await serve_grpc(stream, handlers, limits=grpc_limits(limits), drain=hosting.drain)
            nursery.cancel_scope.cancel()


async def _show_out(sync: SyncCalls, limits: ChannelLimits, connection: trio.CancelScope) -> None:
    """End a connection on which nobody calls anything, or somebody tries one token after the other."""
    with trio.move_on_after(limits.handshake_s):
        await sync.begun.wait()
    if sync.begun.is_set():
        await sync.enough.wait()
        await trio.sleep(limits.close_s)  # so that the last answer arrives
    connection.cancel()
