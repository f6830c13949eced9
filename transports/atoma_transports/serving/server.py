"""Everything on one port: frames over WebSocket, pages over HTTP."""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import trio

from atoma.errors import ConfigurationError, ProtocolError
from atoma.ports import Peer, ServiceHost
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.streams import PrefixedStream
from atoma_transports.http import HttpConnection, HttpFace, HttpRules
from atoma_transports.serving.address import format_address, host_check, parse_address
from atoma_transports.serving.pipes import serve_pipe
from atoma_transports.websocket import accept_pipe, is_loopback

logger = logging.getLogger("atoma.transports")

HEAD_BYTES_MAX = 64 * 1024
RECEIVE_BYTES = 64 * 1024
DRAIN_S = 1.0
BACKLOG = 256
CONNECTIONS_MAX = 5000
WEBSOCKET_PATHS = ("/", "/sync")
HTTP2_PREFACE = b"PRI * HTTP/2.0"


@dataclass(frozen=True, slots=True)
class _Faces:
    """What a port answers with."""

    host: ServiceHost
    pages: HttpFace
    known_host: Callable[[str], bool]
    limits: ChannelLimits
    drain: trio.Event


@asynccontextmanager
async def open_server(
    host: ServiceHost,
    address: str,
    *,
    pages: HttpFace | None = None,
    ssl_context: ssl.SSLContext | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    limits: ChannelLimits | None = None,
) -> AsyncGenerator[str]:
    """Serve ``host`` on ``address`` inside the block, which gets the bound address, ``"127.0.0.1:8765"``.

    Leaving the block drains: calls in flight are finished within a second, new ones refused, then connections close.
    Cancelling closes at once.

    Args:
        host: The hub, or anything that hands out services.
        address: ``"host:port"``; port 0 takes a free one.
        pages: What to answer over HTTP on the same port.
        ssl_context: Speak TLS.
        insecure: Listen in plain text on an address that other machines can reach.
        names: Names under which browsers may ask for this server, besides IP addresses and ``localhost``.
        limits: Bounds of each connection.

    Raises:
        ConfigurationError: The address cannot be used, is taken, or would serve plain text to other machines.
    """
    drain = trio.Event()
    listeners = await _listen(address, ssl_context, insecure=insecure)
    faces = _Faces(host, pages or HttpFace(), host_check(names), limits or ChannelLimits(), drain)
    async with open_tasks() as nursery:
        accepting = trio.CancelScope()
        nursery.start_soon(_accept, listeners, faces, accepting, ssl_context)
        try:
            yield _bound(listeners[0])
        finally:
            drain.set()
            accepting.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S


async def serve(
    host: ServiceHost,
    address: str,
    *,
    pages: HttpFace | None = None,
    ssl_context: ssl.SSLContext | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    limits: ChannelLimits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``host`` on ``address`` until cancelled; see :func:`open_server`.

    ``await nursery.start(serve, hub, "127.0.0.1:0")`` gives the bound address.
    """
    async with open_server(
        host, address, pages=pages, ssl_context=ssl_context, insecure=insecure, names=names, limits=limits
    ) as bound:
        task_status.started(bound)
        await trio.sleep_forever()


async def _listen(address: str, context: ssl.SSLContext | None, *, insecure: bool) -> list[trio.SocketListener]:
    name, port = parse_address(address)
    if context is None and not insecure and not is_loopback(name):
        raise ConfigurationError(
            f"serving {address} in plain text would let others on the network read tokens and data: give an "
            "ssl_context, listen on 127.0.0.1 behind a proxy, or say insecure=True on a network that you trust"
        )
    try:
        return list(await trio.open_tcp_listeners(port, host=name, backlog=BACKLOG))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {name} is taken by another program: stop it, or choose another port (0 takes a free one)"
            ) from None
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None


def _bound(listener: trio.SocketListener) -> str:
    host, port, *_ = cast("tuple[str, int]", listener.socket.getsockname())
    return format_address(host, port)


async def _accept(
    listeners: list[trio.SocketListener], faces: _Faces, accepting: trio.CancelScope, context: ssl.SSLContext | None
) -> None:
    places = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def connected(stream: trio.SocketStream) -> None:
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            return await trio.aclose_forcefully(stream)
        try:
            await _serve_stream(stream, faces, context)
        finally:
            places.release()

    async with trio.open_nursery() as connections:
        with accepting:
            await trio.serve_listeners(connected, listeners, handler_nursery=connections)


async def _serve_stream(socket_stream: trio.SocketStream, faces: _Faces, context: ssl.SSLContext | None) -> None:
    """Serve one connection; whatever goes wrong concerns this connection only."""
    stream: trio.abc.Stream = socket_stream
    try:
        peer_host = cast("tuple[str, int]", socket_stream.socket.getpeername())[0]
        head = b""
        with trio.move_on_after(faces.limits.handshake_s):
            if context is not None:
                stream = secure = trio.SSLStream(socket_stream, context, server_side=True, https_compatible=True)
                await secure.do_handshake()
            head = await _read_head(stream)
        if head:
            await _serve_head(head, stream, peer_host, faces)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
        pass
    except Exception:
        logger.exception("a connection ended by an error")
    finally:
        await trio.aclose_forcefully(stream)


async def _read_head(stream: trio.abc.Stream) -> bytes:
    """The first bytes, up to the end of the request's header fields."""
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES_MAX and not head.startswith(HTTP2_PREFACE):
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            break
        head += data
    return bytes(head)


async def _serve_head(head: bytes, stream: trio.abc.Stream, peer_host: str, faces: _Faces) -> None:
    """Hand the connection to whoever speaks what it begins with."""
    fields = _fields(head)
    replay = PrefixedStream(head, stream)
    if fields.get("upgrade", "").lower() == "websocket" and _may_upgrade(head, fields, faces):
        peer = Peer(peer_host, is_loopback(peer_host), "websocket")
        async with accept_pipe(replay, faces.limits) as pipe:
            await serve_pipe(pipe, faces.host, peer, limits=faces.limits, drain=faces.drain)
    else:
        rules = HttpRules(faces.known_host, Peer(peer_host, is_loopback(peer_host), "http"), faces.drain)
        await HttpConnection(replay, faces.pages, rules).run()


def _may_upgrade(head: bytes, fields: dict[str, str], faces: _Faces) -> bool:
    """Whether this upgrade is for the hub, and not made by a page of another site behind the user's back."""
    target = head.split(b" ", 2)[1:2]
    path = target[0].decode("latin-1") if target else ""
    return path in WEBSOCKET_PATHS and faces.known_host(fields.get("host", "")) and _same_site(fields)


def _fields(head: bytes) -> dict[str, str]:
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _same_site(fields: dict[str, str]) -> bool:
    origin = fields.get("origin")
    return origin is None or urlsplit(origin).netloc == fields.get("host", "")
