"""gRPC as one of the languages on a port."""

from __future__ import annotations

from dataclasses import replace

import trio

from atoma.ports.tasks import open_tasks
from atoma_transports.grpc._driver.server import serve_grpc
from atoma_transports.grpc.calls import SyncCalls
from atoma_transports.grpc.health import HealthCalls
from atoma_transports.grpc.packed import SERVICE, grpc_limits
from atoma_transports.grpc.reflection import REFLECTING, reflection_handlers
from atoma_transports.serving.face import Hosting

HTTP2_START = b"PRI * HTTP/2.0\r\n\r\n"
METADATA_BYTES = 8 * 1024
"""What a caller may send of it, as with gRPC's own servers: unpacking takes a quarter of a millisecond for each KiB."""


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
        hosting.place.spoken = hosting.place.polite = True  # settings at once, and a goodbye at the end
        leave = trio.Event()
        limits = replace(grpc_limits(hosting.limits), metadata_bytes=METADATA_BYTES)
        health = HealthCalls((SERVICE, *REFLECTING), hosting.drain, leave)
        with hosting.share() as share:
            sync = SyncCalls(replace(hosting, drain=leave), share)
            handlers = {**sync.handlers(), **health.handlers(), **reflection_handlers()}
            try:
                async with open_tasks() as nursery:
                    nursery.start_soon(_show_out, hosting, leave)
                    nursery.start_soon(sync.end_streams)
                    await serve_grpc(stream, handlers, limits=limits, drain=leave, share=share)
                    nursery.cancel_scope.cancel()
            finally:
                sync.close()


async def _show_out(hosting: Hosting, leave: trio.Event) -> None:
    """Have the connection say goodbye when the server ends, or before its place is taken away."""
    with hosting.place.patience:
        await hosting.drain.wait()
    leave.set()
