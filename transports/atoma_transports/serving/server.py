"""The server of a port: it hands each connection to the handler for the protocol that it begins with."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import trio

from atoma.errors import ConfigurationError, ProtocolError
from atoma.ports import AdmitsLoopback, ServiceHost
from atoma.ports.loops import lifetime
from atoma.ports.tasks import open_tasks
from atoma_transports.calls.fairness import Fairness
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.dialing.addresses import authority_of, is_loopback
from atoma_transports.serving.addresses import Origins, host_check, parse_address
from atoma_transports.serving.arrivals import Arrival, Arrivals
from atoma_transports.serving.handlers import Hosting, ProtocolHandler, alpn_of, installed_handlers
from atoma_transports.serving.head import (
    HeadTooLarge,
    asks_for_something,
    check_head,
    http1_refusal,
    overload_of,
    read_head,
    refusal_of,
    send_last,
)
from atoma_transports.serving.places import ConnectionSlot, ConnectionSlots
from atoma_transports.serving.sites import Sites
from atoma_transports.streams import PrefixedStream, keep_alive

logger = logging.getLogger("atoma.transports")

DRAIN_S = 1.0


@dataclass(slots=True, eq=False)
class _Port:
    """The answers of a port, and who is on it.

    Attributes:
        host: Authenticates, and hands out services.
        handlers: Asked in this order.
        known_host: Whether a host name in a request is one of this server's.
        limits: Limits of each connection.
        drain: Set when the server ends.
        ssl_context: Speak TLS.
        origins: Finds out who made a request.
        places: One for each connection.
        fairness: What every principal has once.
        sites: Whose pages may call.
    """

    host: ServiceHost
    handlers: tuple[ProtocolHandler, ...]
    known_host: Callable[[str], bool]
    limits: ChannelLimits
    drain: trio.Event
    ssl_context: ssl.SSLContext | None
    origins: Origins = field(default_factory=Origins)
    places: ConnectionSlots = field(init=False)
    fairness: Fairness = field(default_factory=Fairness)
    sites: Sites = field(default_factory=Sites)

    def __post_init__(self) -> None:
        self.places = ConnectionSlots(self.limits)

    def handler_for(self, head: bytes) -> ProtocolHandler | None:
        """Who speaks what begins with ``head``."""
        return next((handler for handler in self.handlers if handler.speaks(head)), None)


@lifetime
async def open_server(
    host: ServiceHost,
    address: str,
    *,
    pages: ProtocolHandler | None = None,
    ssl_context: ssl.SSLContext | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    trusted_proxies: Collection[str] = (),
    origins: Collection[str] = (),
    limits: ChannelLimits | None = None,
) -> AsyncGenerator[str]:
    """Serve ``host`` on ``address`` inside the block, which gets the bound address, such as ``"127.0.0.1:8765"``.

    Leaving the block drains: calls in flight get a second to finish, new ones are refused, then connections close.
    Cancellation closes at once.

    Args:
        host: The hub, or any other host of services.
        address: ``"host:port"``; port 0 takes a free one.
        pages: Pages to serve over HTTP on the same port, besides the protocol: an
            :class:`atoma_transports.http.HttpHandler` with pages added to it.
        ssl_context: Use TLS with this context; its ALPN protocols are set.
        insecure: Allow plain text on an address that other machines can reach.
        names: Host names under which browsers may reach this server, besides IP addresses and ``localhost``.
        trusted_proxies: Addresses and networks of proxies, ``"10.0.0.7"`` or ``"10.0.0.0/24"``, whose
            ``X-Forwarded-For`` is trusted: limits and the log use its addresses.
        origins: Other sites whose pages may call the protocol from a browser, with fetch, EventSource and WebSocket:
            ``"https://app.example.org"``. They need a token like every caller.
        limits: Limits of each connection.

    Raises:
        ConfigurationError: The address cannot be used, is taken, or would serve plain text to other machines; or the
            hub admits everybody on this machine, and names, proxies or origins would let others pass for this machine.
    """
    sites = Sites(origins)
    if (names or trusted_proxies or sites) and isinstance(host, AdmitsLoopback) and host.admits_loopback:
        raise ConfigurationError(
            "this hub admits everybody on its machine, and behind a proxy that is anybody, as is any page of another site: "
            "names=, trusted_proxies= and origins= need a verifier that checks tokens"
        )
    handlers = installed_handlers(pages)
    if ssl_context is not None:
        ssl_context.set_alpn_protocols(alpn_of(handlers))
    drain = trio.Event()
    port = _Port(
        host,
        handlers,
        host_check(names),
        limits or ChannelLimits(),
        drain,
        ssl_context,
        Origins(trusted_proxies),
        sites=sites,
    )
    listeners = await _listen(address, ssl_context, insecure=insecure)
    async with open_tasks() as nursery:
        accepting = trio.CancelScope()
        nursery.start_soon(_accept, listeners, port, accepting)
        try:
            yield _bound(listeners[0])
        finally:
            drain.set()
            accepting.cancel()
            port.places.dismiss_silent()
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S


async def serve(
    host: ServiceHost,
    address: str,
    *,
    pages: ProtocolHandler | None = None,
    ssl_context: ssl.SSLContext | None = None,
    insecure: bool = False,
    names: Collection[str] = (),
    trusted_proxies: Collection[str] = (),
    origins: Collection[str] = (),
    limits: ChannelLimits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``host`` on ``address`` until cancelled; see :func:`open_server`.

    ``await nursery.start(serve, hub, "127.0.0.1:0")`` returns the bound address.
    """
    async with open_server(
        host,
        address,
        pages=pages,
        ssl_context=ssl_context,
        insecure=insecure,
        names=names,
        trusted_proxies=trusted_proxies,
        origins=origins,
        limits=limits,
    ) as bound:
        task_status.started(bound)
        await trio.sleep_forever()


async def _listen(address: str, context: ssl.SSLContext | None, *, insecure: bool) -> list[socket.socket]:
    """Sockets that listen, without Trio's: of one connection for each pass of the loop a flood is faster.

    The system's line is as long as it may be: whoever finds no place in it tries again after a second, and after three.
    """
    name, port = parse_address(address)
    if context is None and not insecure and not is_loopback(name):
        raise ConfigurationError(
            f"serving {address} in plain text would let others on the network read tokens and data: give an "
            "ssl_context, listen on 127.0.0.1 behind a proxy, or say insecure=True on a network that you trust"
        )
    try:
        listeners = await trio.open_tcp_listeners(port, host=name, backlog=None)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {name} is taken by another program: stop it, or choose another port (0 takes a free one)"
            ) from None
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None
    return [_taken_over(listener.socket) for listener in listeners]


def _taken_over(above: trio.socket.SocketType) -> socket.socket:
    below = socket.socket(above.family, above.type, above.proto, fileno=above.detach())
    below.setblocking(False)
    return below


def _bound(listener: socket.socket) -> str:
    host, port, *_ = cast("tuple[str, int]", listener.getsockname())
    return authority_of(host, port)


async def _accept(listeners: list[socket.socket], port: _Port, accepting: trio.CancelScope) -> None:
    async with trio.open_nursery() as connections:
        serve = partial(_serve_arrival, connections, port)
        with accepting, ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    arrivals = Arrivals(
                        stack.enter_context(listener), port.places, serve, secure=port.ssl_context is not None
                    )
                    nursery.start_soon(arrivals.take_all)


def _serve_arrival(connections: trio.Nursery, port: _Port, arrival: Arrival) -> None:
    try:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(arrival.socket))
        keep_alive(stream, port.limits)  # an HTTP client cannot be asked while its request is being answered
    except OSError:  # it has hung up already
        arrival.socket.close()
    else:
        connections.start_soon(_serve_socket, stream, arrival.address, port)


async def _serve_socket(stream: trio.SocketStream, peer_host: str, port: _Port) -> None:
    with stream.socket:  # closed at once, and without a pass of the loop: many may end in the same one
        await _serve_stream(stream, peer_host, port)


async def _serve_stream(socket_stream: trio.SocketStream, peer_host: str, port: _Port) -> None:
    """Serve one connection, which the caller closes; whatever goes wrong concerns this connection only."""
    with port.places.enter(peer_host, proxy=port.origins.is_proxy(peer_host)) as place:
        await _serve_in(place, socket_stream, peer_host, port)


async def _serve_in(place: ConnectionSlot, socket_stream: trio.SocketStream, peer_host: str, port: _Port) -> None:
    stream: trio.abc.Stream = socket_stream
    plain: trio.abc.Stream | None = None if port.ssl_context is not None else socket_stream
    head = b""
    try:
        with place.scope:
            with trio.move_on_after(port.limits.handshake_s):
                if port.ssl_context is not None:
                    stream = secure = trio.SSLStream(
                        socket_stream, port.ssl_context, server_side=True, https_compatible=True
                    )
                    await secure.do_handshake()
                    plain = secure
                head = await read_head(stream)
            asks = asks_for_something(head)
            if asks:
                place.speak()
            await port.fairness.guest_turn(asks=asks)
            if head:
                await _serve_head(head, stream, peer_host, port, place)
        if place.has_words and not place.spoken and plain is not None:
            await send_last(plain, overload_of(head), port.limits.close_s)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
        pass
    except Exception:
        logger.exception("a connection ended by an error")


async def _serve_head(head: bytes, stream: trio.abc.Stream, peer_host: str, port: _Port, place: ConnectionSlot) -> None:
    """Hand the connection to whoever speaks what it begins with."""
    try:
        check_head(head)
    except HeadTooLarge as error:
        refused = http1_refusal(431, "Request Header Fields Too Large", str(error))
        await send_last(stream, refused, port.limits.close_s)
        return
    handler = port.handler_for(head)
    if handler is None:
        await send_last(stream, refusal_of(head), port.limits.close_s)
        return
    peer = port.origins.connected(peer_host, handler.name)
    hosting = Hosting(
        port.host,
        peer,
        port.known_host,
        port.limits,
        port.drain,
        port.origins,
        place,
        port.fairness,
        port.handler_for,
        port.sites,
    )
    await handler.serve(PrefixedStream(head, stream), hosting)
