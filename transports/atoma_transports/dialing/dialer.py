"""Connections to a hub over sockets: TCP, the tunnel of a proxy if one is named, TLS if the address asks for it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from atoma.errors import ConnectFailed
from atoma_transports.dialing.addresses import Address, Language, Proxy, check_address, check_proxy, why_unreachable


@dataclass(frozen=True, slots=True)
class Dialer:
    """A maker of connections to one hub. Made by :func:`find_way`.

    Attributes:
        address: Where the hub is.
        ssl_context: For TLS; None for plain text.
        alpn: The protocols offered to a hub over TLS.
        proxy: The proxy to use; None to connect directly.
    """

    address: Address
    ssl_context: ssl.SSLContext | None
    alpn: Sequence[str]
    proxy: Proxy | None

    async def dial(self) -> trio.abc.Stream:
        """Return a connected stream. The caller's deadline is the only one; if it is cancelled, nothing stays open.

        Raises:
            ConnectFailed: No connection could be made.
        """
        proxy = self.proxy
        reached = await (_reach(self.address, "") if proxy is None else _reach(proxy.address, "the proxy "))
        try:
            stream = reached if proxy is None else await self._tunnelled(reached, proxy)
            if self.ssl_context is not None:
                stream = await _secure(stream, self.address, self.ssl_context, self.alpn)
        except BaseException:
            await trio.aclose_forcefully(reached)  # whatever stood on it ends with it
            raise
        return stream

    async def _tunnelled(self, stream: trio.abc.Stream, proxy: Proxy) -> trio.abc.Stream:
        from atoma_transports.dialing.tunnel import open_tunnel

        if proxy.address.secure:
            stream = await _secure(stream, proxy.address, ssl.create_default_context(), ["http/1.1"])
        return await open_tunnel(stream, self.address.authority, proxy)


def find_way(
    url: str, language: Language, *, alpn: Sequence[str], ssl_context: ssl.SSLContext | None, insecure: bool, proxy: str
) -> Dialer:
    """Return the maker of connections to the hub at ``url``.

    Args:
        url: Its address.
        language: How addresses are written.
        alpn: The protocols offered to a hub over TLS.
        ssl_context: The CAs to trust; None for the system's.
        insecure: Whether plain text may go to another machine.
        proxy: ``http(s)://[user:password@]host:port`` of a proxy; empty for none.

    Raises:
        ConfigurationError: An address cannot be used, or would send plain text to another machine.
    """
    address = check_address(url, language, insecure=insecure, has_context=ssl_context is not None)
    context = (ssl_context or ssl.create_default_context()) if address.secure else None
    return Dialer(address, context, alpn, check_proxy(proxy))


async def _reach(address: Address, what: str) -> trio.abc.Stream:
    try:
        return await trio.open_tcp_stream(address.host, address.port)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
        raise ConnectFailed(f"cannot connect to {what}{address.authority}: {why_unreachable(error)}") from None


async def _secure(
    stream: trio.abc.Stream, address: Address, context: ssl.SSLContext, alpn: Sequence[str]
) -> trio.abc.Stream:
    """``stream`` with TLS over it."""
    context.set_alpn_protocols(list(alpn))  # here, as the application may share the context with another transport
    secure = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        await secure.do_handshake()
    except (trio.BrokenResourceError, OSError) as error:
        raise ConnectFailed(f"cannot connect to {address.authority}: {why_unreachable(error)}") from None
    return secure
