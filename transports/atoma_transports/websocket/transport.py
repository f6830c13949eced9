"""The WebSocket transport, client side."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

import trio
from trio_websocket import ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream

from atoma.errors import ConfigurationError, ConnectFailed
from atoma.ports import Channel
from atoma.ports.tasks import leaves, open_tasks
from atoma_transports._channel.streams import PrefixedStream
from atoma_transports.adapters import ChannelLimits, Token, open_channel
from atoma_transports.websocket.pipe import QUEUED_MESSAGES, RECEIVE_BYTES, WebSocketPipe

DEFAULT_PORTS = {"ws": 80, "wss": 443}


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: BaseException) -> str:
    """What is behind ``error``: the attempts at several addresses come as a group, TLS failures as a cause."""
    causes = sorted({str(leaf.__cause__ or leaf) for leaf in leaves(error.__cause__ or error)})
    return "; ".join(causes)


def _checked(url: str, *, insecure: bool, has_context: bool) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ConfigurationError(f"{url!r} is no WebSocket address; write ws://host:port/path or wss://host/path")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("a WebSocket address holds no user and no query: give the token as token=…")
    if parts.scheme == "ws" and has_context:
        raise ConfigurationError("ssl_context goes with wss:// addresses only")
    if parts.scheme == "ws" and not insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{url!r} would send the token and the data in plain text to another machine: "
            "use wss://, or insecure=True on a network that you trust"
        )
    return parts


class WebSocketTransport:
    """A :class:`atoma.ports.Transport` over WebSocket.

    Args:
        url: ``wss://host/path``, or ``ws://`` to this machine.
        token: Bearer token, or an async function asked at every connection; sent in the first frame.
        ssl_context: For ``wss://`` with a CA of your own; the system's CAs otherwise.
        insecure: Allow ``ws://`` to another machine.
        name: The transport's name; its node is ``remote-<name>``.
        limits: Bounds of each connection.

    Raises:
        ConfigurationError: The address cannot be used, or would send plain text to another machine.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = "",
        ssl_context: ssl.SSLContext | None = None,
        insecure: bool = False,
        name: str = "websocket",
        limits: ChannelLimits | None = None,
    ) -> None:
        parts = _checked(url, insecure=insecure, has_context=ssl_context is not None)
        self._host = parts.hostname or ""
        self._port = parts.port or DEFAULT_PORTS[parts.scheme]
        self._path = parts.path or "/"
        self._ssl_context = (ssl_context or ssl.create_default_context()) if parts.scheme == "wss" else None
        self._token = token
        self._name = name
        self._limits = limits or ChannelLimits()

    def __repr__(self) -> str:
        scheme = "ws" if self._ssl_context is None else "wss"
        return f"WebSocketTransport('{scheme}://{self._host}:{self._port}{self._path}')"

    @property
    def name(self) -> str:
        """Short name; the node is called ``remote-<name>``."""
        return self._name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """See :class:`atoma.ports.Transport`; takes at most ``limits.handshake_s`` even without a deadline."""
        try:
            async with open_tasks() as nursery:
                connection, stream = await self._upgraded(nursery)
                try:
                    pipe = WebSocketPipe(connection)
                    async with open_channel(pipe, token=self._token, limits=self._limits) as channel:
                        yield channel
                finally:  # the library leaves the socket open when the peer closed first
                    await trio.aclose_forcefully(stream)
                nursery.cancel_scope.cancel()
        except ConnectionRejected as error:  # raised by the library's reader, which lives in this nursery
            raise ConnectFailed(f"{self} was refused with HTTP status {error.status_code}") from None

    async def _upgraded(self, nursery: trio.Nursery) -> tuple[WebSocketConnection, PrefixedStream]:
        where = f"{self._host}:{self._port}"
        try:
            with trio.fail_after(self._limits.handshake_s):
                stream = PrefixedStream(b"", await self._reached())
                try:
                    return await self._shake_hands(nursery, stream), stream
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except trio.TooSlowError:
            raise ConnectFailed(f"{where} did not answer within {self._limits.handshake_s:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectFailed(f"cannot connect to {where}: {_reason(error)}") from None
        except HandshakeError:
            raise ConnectFailed(f"{where} does not speak WebSocket") from None

    async def _reached(self) -> trio.abc.Stream:
        if self._ssl_context is None:
            return await trio.open_tcp_stream(self._host, self._port)
        stream = await trio.open_ssl_over_tcp_stream(
            self._host, self._port, https_compatible=True, ssl_context=self._ssl_context
        )
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _shake_hands(self, nursery: trio.Nursery, stream: PrefixedStream) -> WebSocketConnection:
        """Upgrade ``stream``; the library itself does not notice when the peer hangs up instead."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        found: list[WebSocketConnection] = []
        async with open_tasks() as waiting:

            async def hung_up() -> None:
                await stream.ended.wait()
                waiting.cancel_scope.cancel()

            waiting.start_soon(hung_up)
            connection = await wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do
                f"{host}:{self._port}",
                self._path,
                message_queue_size=QUEUED_MESSAGES,
                max_message_size=self._limits.frame_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
            found.append(connection)
            waiting.cancel_scope.cancel()
        if not found:
            raise trio.BrokenResourceError("it hung up")
        return found[0]
