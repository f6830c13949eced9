"""Connections for the HTTP library: they know what of a request has left, and close without waiting."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

import httpcore2
import trio

from atoma.ports.tasks import leaves
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.dialing.addresses import why_unreachable
from atoma_transports.frames.outgoing import SLOW_BYTES_S
from atoma_transports.http.client.messages import Request
from atoma_transports.streams import keep_alive


class Unreachable(Exception):
    """No connection could be made.

    Attributes:
        refused: Whether somebody was there to refuse it.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Lost(Exception):
    """The connection was lost."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One try to send a request over one connection.

    Attributes:
        request: The request.
        ended: Whether the other side has hung up.
    """

    request: Request
    ended: bool = False


ATTEMPT: ContextVar[Attempt | None] = ContextVar("atoma_http_attempt", default=None)
"""What the running task is sending or receiving; the library has no way to hand it down."""


class CountingStream(trio.abc.Stream):
    """A socket that reports when the first byte has left: below TLS, so that nothing is claimed that was not sent."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.on_sent: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``."""
        rest = memoryview(data)
        try:
            while rest:
                sent = await self.stream.socket.send(rest)
                rest = rest[sent:]
                if self.on_sent is not None:
                    self.on_sent()
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the send buffer."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes; ``b""`` at the end."""
        return bytes(await self.stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        """Close the socket."""
        await self.stream.aclose()


class HttpStream(httpcore2.AsyncNetworkStream):
    """A connection as the library wants it. A request is gathered until its reply is read, then sent in one piece."""

    def __init__(self, stream: trio.abc.Stream, counting: CountingStream, network: Network) -> None:
        self._stream = stream
        self._counting = counting
        self._network = network
        self._limits = network.limits
        self._gathered = bytearray()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """See the library's class; raises :class:`Lost`."""
        if self._gathered:
            await self._flush()
        attempt = ATTEMPT.get()
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Lost("the connection was lost") from None
        if not data and attempt is not None:
            attempt.ended = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """See the library's class."""
        self._gathered += buffer

    async def aclose(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> HttpStream:
        """See the library's class; raises :class:`Unreachable`."""
        context = self._network.context_for(ssl_context)
        context.set_alpn_protocols(["http/1.1"])  # here, as the application may share it with another transport
        secure = trio.SSLStream(
            self._stream, ssl_context=context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with trio.fail_after(self._limits.handshake_s):
                await secure.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(self._stream)
            if isinstance(error, trio.TooSlowError):
                raise Unreachable(f"no TLS handshake within {self._limits.handshake_s:g} s") from None
            if isinstance(error, trio.BrokenResourceError | ssl.SSLError | OSError):
                raise Unreachable(why_unreachable(error)) from None
            raise
        return HttpStream(secure, self._counting, self._network)

    def get_extra_info(self, info: str) -> object:
        """See the library's class."""
        return self._counting.stream.socket.is_readable() if info == "is_readable" else None

    async def _flush(self) -> None:
        data, self._gathered = self._gathered, bytearray()
        attempt = ATTEMPT.get()
        if attempt is not None and not data.startswith(b"CONNECT "):  # which is for a proxy, and none of ours
            self._counting.on_sent = attempt.request.sent.set
        try:
            with trio.fail_after(self._limits.slow_s + len(data) / SLOW_BYTES_S):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            raise Lost("the other side no longer reads") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if attempt is None or not attempt.request.sent.is_set():
                raise Lost("the connection was lost") from None
            # A server may answer, and close, before it has taken everything: what it said is read next.
        finally:
            self._counting.on_sent = None


class Network(httpcore2.AsyncNetworkBackend):
    """A maker of connections.

    Args:
        limits: Bounds of each.
        ssl_context: For connections to the hub; None without TLS.

    Attributes:
        stand_in: What the library is given in place of ``ssl_context``, which it would change as it connects.
    """

    def __init__(self, limits: ChannelLimits, ssl_context: ssl.SSLContext | None) -> None:
        self.limits = limits
        self.stand_in = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ssl_context = ssl_context

    def context_for(self, given: ssl.SSLContext) -> ssl.SSLContext:
        """The context that is meant: the hub's, or one for a proxy."""
        return self._ssl_context if given is self.stand_in and self._ssl_context is not None else given

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> HttpStream:
        """See the library's class; raises :class:`Unreachable`."""
        try:
            with trio.fail_after(self.limits.handshake_s):
                stream = await trio.open_tcp_stream(host, port)
        except trio.TooSlowError:
            raise Unreachable(f"no connection within {self.limits.handshake_s:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            found = leaves(error.__cause__ or error)
            refused = any(isinstance(leaf, ConnectionRefusedError) for leaf in found)
            raise Unreachable(why_unreachable(error), refused=refused) from None
        keep_alive(stream, self.limits)
        counting = CountingStream(stream)
        return HttpStream(counting, counting, self)

    async def sleep(self, seconds: float) -> None:
        """See the library's class."""
        await trio.sleep(seconds)
