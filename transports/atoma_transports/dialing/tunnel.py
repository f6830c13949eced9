"""A tunnel through an HTTP proxy (RFC 9110, section 9.3.6), spoken by h11."""

from __future__ import annotations

import base64

import h11
import trio

from atoma.errors import ConnectFailed
from atoma_transports.dialing.addresses import Proxy
from atoma_transports.streams import PrefixedStream

HEAD_BYTES_MAX = 64 * 1024
RECEIVE_BYTES = 16 * 1024


async def open_tunnel(stream: trio.abc.Stream, authority: str, proxy: Proxy) -> trio.abc.Stream:
    """``stream``, from now on connected to ``authority``.

    Raises:
        ConnectFailed: The proxy refuses, hangs up, or is none.
    """
    where = f"the proxy {proxy.address.authority}"
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    ask = h11.Request(method="CONNECT", target=authority, headers=_headers(authority, proxy))
    try:
        await stream.send_all((connection.send(ask) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        reply = await _reply(stream, connection)
    except trio.BrokenResourceError:
        raise ConnectFailed(f"{where} hung up") from None
    except h11.RemoteProtocolError as error:
        raise ConnectFailed(f"{where} does not speak HTTP: {error}") from None
    if not 200 <= reply.status_code < 300:
        reason = reply.reason.decode("latin-1")
        raise ConnectFailed(f"{where} refused: {reply.status_code} {reason}".rstrip())
    rest, _ = connection.trailing_data  # a server that speaks first may have spoken already
    return PrefixedStream(bytes(rest), stream) if rest else stream


async def _reply(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Response:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))


def _headers(authority: str, proxy: Proxy) -> list[tuple[str, str]]:
    headers = [("host", authority)]
    if proxy.user is not None:
        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("proxy-authorization", f"Basic {secret}"))
    return headers
