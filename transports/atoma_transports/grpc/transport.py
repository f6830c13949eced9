"""The gRPC transport, client side."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from atoma.contracts.checks import is_a
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConnectFailed,
    ProtocolError,
)
from atoma.ports import Channel
from atoma_transports.calls import ChannelLimits
from atoma_transports.dialing import Token
from atoma_transports.dialing.addresses import Language
from atoma_transports.dialing.credentials import Credentials, check_token
from atoma_transports.dialing.dialer import find_way
from atoma_transports.grpc._driver.client import open_grpc_channel
from atoma_transports.grpc.channel import GrpcChannel
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.messages import HelloReply, HelloRequest, grpc_limits

LANGUAGE = Language(
    "a gRPC",
    {"grpc": 80, "http": 80},
    {"grpcs": 443, "https": 443},
    "grpc://host:port, or grpcs://host:port for TLS",
    paths=False,
)
ALPN = ["h2"]


class GrpcTransport:
    """A :class:`atoma.ports.Transport` over gRPC.

    Args:
        address: ``grpcs://host:port`` (or ``https://``), or ``grpc://host:port`` (``http://``, or only ``host:port``)
            to this machine.
        token: Bearer token, or an async function that returns one, called at every connection and again whenever the hub refuses the
            token; sent with each call as ``authorization``.
        ssl_context: For ``grpcs://`` with a CA of your own; the system's CAs otherwise. It is set to offer HTTP/2.
        insecure: Allow plain text to another machine.
        name: The transport's name; its node is ``remote-<name>``.
        limits: Limits of each connection.
        proxy: ``http://[user:password@]host:port`` of an HTTP proxy that supports tunnels (CONNECT); empty for none.

    Raises:
        ConfigurationError: The address cannot be used, or would send plain text to another machine.
    """

    def __init__(
        self,
        address: str,
        *,
        token: Token = "",
        ssl_context: ssl.SSLContext | None = None,
        insecure: bool = False,
        name: str = "grpc",
        limits: ChannelLimits | None = None,
        proxy: str = "",
    ) -> None:
        url = address if not is_a(address, str) or "://" in address else f"grpc://{address}"
        self._way = find_way(url, LANGUAGE, alpn=ALPN, ssl_context=ssl_context, insecure=insecure, proxy=proxy)
        self._authority = self._way.address.authority
        self._token = check_token(token)
        self._name = name
        self._limits = limits or ChannelLimits()

    def __repr__(self) -> str:
        return f"GrpcTransport('{'grpcs' if self._way.address.secure else 'grpc'}://{self._authority}')"

    @property
    def name(self) -> str:
        """The transport's short name; the node is called ``remote-<name>``."""
        return self._name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """See :class:`atoma.ports.Transport`; takes at most ``limits.handshake_s`` even without a deadline.

        One call makes sure that the hub is there and accepts the token.
        """
        until = trio.current_time() + self._limits.handshake_s
        credentials = Credentials(self._token)
        await credentials.ask()
        stream = await self._reached(until)
        async with open_grpc_channel(
            stream,
            authority=self._authority,
            scheme="https" if self._way.address.secure else "http",
            limits=grpc_limits(self._limits),
        ) as client:
            channel = GrpcChannel(client, credentials, self._limits)
            await self._greet(channel, until)
            yield channel

    async def _reached(self, until: float) -> trio.abc.Stream:
        """A connected stream, over TLS if that is wanted.

        Raises:
            ConnectFailed: There is none to be had, or not by ``until``.
        """
        with trio.CancelScope(deadline=until):
            return await self._way.dial()
        raise ConnectFailed(f"{self._authority} did not answer within {self._limits.handshake_s:g} s")

    async def _greet(self, channel: GrpcChannel, until: float) -> None:
        """Learn the server's bounds; one that does not greet is taken as it is.

        Raises:
            AuthenticationError: It refuses the token.
            ConnectFailed: It does not answer, or takes no calls now.
        """
        try:
            with trio.CancelScope(deadline=until) as patience:
                reply = unpack(await channel.ask("hello", pack(HelloRequest())), HelloReply)
                if reply.message_bytes < 1 or reply.calls < 1:
                    raise ProtocolError("its limits leave no room for any call")
                channel.agree(reply)
            if patience.cancelled_caught:
                raise ConnectFailed(f"{self._authority} sent no greeting within {self._limits.handshake_s:g} s")
        except AuthenticationError:
            raise
        except ChannelBroken as error:
            raise ConnectFailed(
                f"{self._authority} closed the connection before its greeting ({error}); is it a gRPC server?"
            ) from None
        except ProtocolError as error:
            if "UNIMPLEMENTED" not in str(error):
                raise ConnectFailed(f"{self._authority} does not speak the protocol ({error})") from None
        except ConnectFailed:
            raise
        except AtomaError as error:
            raise ConnectFailed(f"{self._authority} accepts no connections at the moment ({error})") from None
