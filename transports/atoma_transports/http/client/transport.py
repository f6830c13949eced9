"""The HTTP transport, client side."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from atoma.contracts.extras import install_line
from atoma.errors import AuthenticationError, ChannelBroken, ConfigurationError, ConnectFailed
from atoma.ports import Channel, Environment
from atoma.ports.tasks import open_tasks
from atoma_transports.calls import ChannelLimits
from atoma_transports.calls.errors import error_of
from atoma_transports.dialing import Token
from atoma_transports.dialing.addresses import Address, Language, check_address, check_proxy
from atoma_transports.dialing.credentials import Credentials, check_token
from atoma_transports.http.client.channel import STREAMS_MAX, HttpChannel
from atoma_transports.http.client.engine import open_engine
from atoma_transports.http.client.lanes import BatchRules
from atoma_transports.http.client.messages import new_probe, read_probe
from atoma_transports.http.envelope import Done

if TYPE_CHECKING:
    from atoma_transports.http.client.pool import HttpPool

LIBRARY = "httpcore2"
LANGUAGE = Language("an HTTP", {"http": 80}, {"https": 443}, "https://host/path or http://host:port/path")
CONTROL = 2  # connections for questions and cancellations, beside those for calls and streams


class HttpTransport:
    """A :class:`atoma.ports.Transport` over HTTP/1.1. Each call is a request; calls made at the same moment share one.

    It needs no permanent connection: between requests it keeps a small pool of connections.

    Args:
        url: ``https://host/path``, or ``http://`` to this machine; the hub answers below it at ``/v1/…``.
        token: Bearer token, or an async function that returns one, called when connecting and again whenever the hub refuses the token.
        ssl_context: For ``https://`` with a CA of your own; the system's CAs otherwise.
        insecure: Allow ``http://`` to another machine.
        name: The transport's name; its node is ``remote-<name>``.
        limits: Limits of each connection.
        batching: The number of concurrent requests, and of calls in one request.
        proxy: ``http://[user:password@]host:port`` of an HTTP proxy; empty for none.

    Raises:
        ConfigurationError: The address cannot be used, would send plain text to another machine, or the library
            that speaks HTTP is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = "",
        ssl_context: ssl.SSLContext | None = None,
        insecure: bool = False,
        name: str = "http",
        limits: ChannelLimits | None = None,
        batching: BatchRules | None = None,
        proxy: str = "",
    ) -> None:
        address = check_address(url, LANGUAGE, insecure=insecure, has_context=ssl_context is not None)
        self._proxy = check_proxy(proxy)
        if find_spec(LIBRARY) is None:
            raise ConfigurationError(f"HttpTransport needs {LIBRARY}: {install_line('http')}")
        self._address = _plain(address)
        self._ssl_context = (ssl_context or ssl.create_default_context()) if address.secure else None
        self._token = check_token(token)
        self._name = name
        self._limits = limits or ChannelLimits()
        self._rules = batching or BatchRules()
        self._random = Environment().random

    def __repr__(self) -> str:
        return f"HttpTransport({self._address!r})"

    @property
    def name(self) -> str:
        """The transport's short name; the node is called ``remote-<name>``."""
        return self._name

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Channel]:
        """See :class:`atoma.ports.Transport`; takes at most ``limits.handshake_s`` even without a deadline.

        One request makes sure that the hub is there and accepts the token.
        """
        credentials = Credentials(self._token)
        await credentials.ask()
        pool = self._open_pool(credentials)
        try:
            hello = await self._greet(pool)
            credentials.subject = hello.principal
            async with open_tasks() as nursery:
                nursery.start_soon(pool.watch.run)
                async with open_engine(
                    pool, rules=self._rules, size_max=self._limits.frame_bytes, random=self._random
                ) as engine:
                    channel = HttpChannel(pool, engine, credentials, self._limits, hello.queries)
                    try:
                        yield channel
                    finally:
                        channel.close()
                nursery.cancel_scope.cancel()
        finally:
            await pool.aclose()

    def _open_pool(self, credentials: Credentials) -> HttpPool:
        from atoma_transports.http.client.pool import HttpPool, Site

        site = Site(
            address=self._address,
            ssl_context=self._ssl_context,
            proxy=self._proxy,
            connections=2 * self._rules.requests + STREAMS_MAX + CONTROL,
        )
        return HttpPool(site, credentials, self._limits)

    async def _greet(self, pool: HttpPool) -> Done:
        """Return the subject of the token, empty if the server does not say, and what the server understands of queries."""
        where = urlsplit(self._address).netloc
        try:
            with trio.fail_after(self._limits.handshake_s):
                async with pool.post(new_probe()) as reply:
                    found = await read_probe(reply)
        except trio.TooSlowError:
            raise ConnectFailed(f"{where} did not answer within {self._limits.handshake_s:g} s") from None
        except ChannelBroken as broken:
            raise ConnectFailed(f"{where}: {str(broken).partition(';')[0]}") from None
        if isinstance(found, Done):
            return found
        error = error_of(found)
        if isinstance(error, AuthenticationError):
            raise error
        raise ConnectFailed(f"{where} accepts no connections at the moment ({error})")


def _plain(address: Address) -> str:
    """The address as it goes over the wire."""
    parts = address.parts
    host = address.authority if parts.port is not None else address.authority.rpartition(":")[0]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
