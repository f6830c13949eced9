"""The WebSocket transport, client side."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionRejected, HandshakeError
from wsproto.connection import ConnectionType

from atoma.errors import ConnectFailed, ProtocolError, TransportError
from atoma.ports import Channel
from atoma_transports.calls import ChannelLimits
from atoma_transports.dialing import Token
from atoma_transports.dialing.addresses import Language, why_unreachable
from atoma_transports.dialing.credentials import check_token
from atoma_transports.dialing.dialer import find_way
from atoma_transports.frames import open_channel
from atoma_transports.websocket.handshake import HUB_PATH, ask_for_upgrade
from atoma_transports.websocket.pipe import WebSocketPipe

LANGUAGE = Language("a WebSocket", {"ws": 80}, {"wss": 443}, "ws://host:port/path or wss://host/path")
ALPN = ["http/1.1"]


class WebSocketTransport:
    """A :class:`atoma.ports.Transport` over WebSocket.

    Args:
        url: ``wss://host/path``, or ``ws://`` to this machine.
        token: Bearer token, or an async function that returns one, called at every connection and before the token expires; sent in frames.
        ssl_context: For ``wss://`` with a CA of your own; the system's CAs otherwise.
        insecure: Allow ``ws://`` to another machine.
        name: The transport's name; its node is ``remote-<name>``.
        limits: Limits of each connection.
        proxy: ``http://[user:password@]host:port`` of an HTTP proxy that supports tunnels (CONNECT); empty for none.

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
        proxy: str = "",
    ) -> None:
        self._way = find_way(url, LANGUAGE, alpn=ALPN, ssl_context=ssl_context, insecure=insecure, proxy=proxy)
        self._authority = self._way.address.authority
        self._path = self._way.address.parts.path or "/"
        self._token = check_token(token)
        self._name = name
        self._limits = limits or ChannelLimits()

    def __repr__(self) -> str:
        scheme = "wss" if self._way.address.secure else "ws"
        return f"WebSocketTransport('{scheme}://{self._authority}{self._path}')"

    @property
    def name(self) -> str:
        """The transport's short name; the node is called ``remote-<name>``."""
        return self._name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """See :class:`atoma.ports.Transport`; takes at most ``limits.handshake_s`` even without a deadline."""
        pipe = await self._upgraded()
        async with open_channel(pipe, token=self._token, limits=self._limits) as channel:
            yield channel

    async def _upgraded(self) -> WebSocketPipe:
        where = self._authority
        try:
            with trio.fail_after(self._limits.handshake_s):
                stream = await self._way.dial()
                try:
                    rest = await ask_for_upgrade(stream, where, self._path)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except trio.TooSlowError:
            raise ConnectFailed(f"{where} did not answer within {self._limits.handshake_s:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            hint = "" if self._way.address.secure else "; if the hub speaks TLS, the address begins with wss://"
            raise ConnectFailed(f"cannot connect to {where}: {why_unreachable(error)}{hint}") from None
        except ConnectionRejected as error:
            raise self._refused(error.status_code) from None
        except HandshakeError:
            raise ConnectFailed(f"{where} does not speak WebSocket") from None
        return WebSocketPipe(stream, ConnectionType.CLIENT, rest, message_bytes=self._limits.first_frame_bytes)

    def _refused(self, status: int) -> TransportError:
        """What a refusal means: a server that is busy, or one that has no hub under this path."""
        if status >= 500 or status in (408, 425, 429):
            return ConnectFailed(f"{self} was refused with HTTP status {status}")
        return ProtocolError(f"{self}: there is no hub at this path (HTTP status {status}); a hub's path is {HUB_PATH}")
