"""WebSocket as one of the languages on a port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import trio
from trio_websocket import HandshakeError
from wsproto.connection import ConnectionType

from atoma.errors import ProtocolError
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.fairness import Share
from atoma_transports.frames import MessagePipe
from atoma_transports.frames.server import serve_pipe
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.head import (
    fields_by_name,
    head_fields,
    head_target,
    http1_refusal,
    read_head,
    send_last,
)
from atoma_transports.streams import PrefixedStream
from atoma_transports.websocket.handshake import HUB_PATH, answer_upgrade
from atoma_transports.websocket.pipe import WebSocketPipe


@asynccontextmanager
async def accept_pipe(
    stream: PrefixedStream, limits: ChannelLimits, share: Share | None = None
) -> AsyncGenerator[MessagePipe]:
    """Answer the upgrade request that ``stream`` begins with; frames go over the pipe inside the block.

    Raises:
        ProtocolError: The request is not a proper WebSocket upgrade.
    """
    try:
        with trio.fail_after(limits.handshake_s):
            rest = await answer_upgrade(stream)
    except (trio.TooSlowError, HandshakeError):
        raise ProtocolError("not a WebSocket upgrade") from None
    after, below = stream.take_apart()
    first = rest + after
    yield WebSocketPipe(below, ConnectionType.SERVER, first, message_bytes=limits.first_frame_bytes, share=share)


PATHS = ("/", HUB_PATH)


class WebSocketHandler:
    """Frames over WebSocket, under ``/`` and ``/sync``."""

    name = "websocket"

    def speaks(self, head: bytes) -> bool:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`."""
        method, path = head_target(head)
        upgrade = ("upgrade", "websocket")
        return (
            method == "GET"
            and path in PATHS
            and any((name.lower(), value.lower()) == upgrade for name, value in head_fields(head))
        )

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`."""
        head = b""
        with trio.move_on_after(hosting.limits.handshake_s):
            head = await read_head(stream)
        try:
            fields = fields_by_name(head_fields(head))
            refused = _refusal(fields, hosting)
            if refused:
                await send_last(stream, refused, hosting.limits.close_s)
                return
            peer = hosting.origins.of(hosting.peer, fields)
            place = hosting.place
            place.turn_to(peer.address)
            if not place.has_room:
                full = http1_refusal(503, "Service Unavailable", "this server has no room for another connection")
                await send_last(stream, full, hosting.limits.close_s)
                return
            place.spoken = True
            with hosting.share() as share:
                share.comes_from(peer)
                async with accept_pipe(PrefixedStream(head, stream), hosting.limits, share) as pipe:
                    await serve_pipe(
                        pipe,
                        hosting.host,
                        peer,
                        limits=hosting.limits,
                        drain=hosting.drain,
                        accept=place.accept,
                        share=share,
                    )
        except ProtocolError as error:
            await send_last(stream, http1_refusal(400, "Bad Request", str(error)), hosting.limits.close_s)


def _refusal(fields: Mapping[str, str], hosting: Hosting) -> bytes:
    """Why this upgrade is not taken: a strange name, or a page of another site behind the user's back."""
    if not hosting.known_host(fields.get("host", "")):
        return http1_refusal(
            421, "Misdirected Request", "this server is not known by that host name; open_server(names=[…]) adds it"
        )
    if not hosting.sites.takes(fields):
        return http1_refusal(403, "Forbidden", "requests from other sites are refused")
    return b""
