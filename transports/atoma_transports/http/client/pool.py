"""Requests over a bounded pool of kept connections."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import httpcore2
import trio

from atoma.errors import AtomaError, ChannelBroken, ProtocolError
from atoma_transports.calls.call import TRACE_LENGTH_MAX
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.dialing.addresses import Proxy
from atoma_transports.dialing.credentials import Credentials
from atoma_transports.http.client.messages import PROBE_BYTES_MAX, Reply, Request, new_probe, read_body
from atoma_transports.http.client.network import ATTEMPT, Attempt, Lost, Network, Unreachable
from atoma_transports.http.client.watch import Mute, Watch
from atoma_transports.http.envelope import BUDGET, MSGPACK, TRACE

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]

IDLE_S = 30.0
"""Seconds that an idle connection is kept: less than servers keep theirs, so that both seldom meet in closing."""
IDLE_MAX = 16
USER_AGENT = b"atoma"
CLOSE_S = 1.0
NO_SERVICE = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The place where requests go, and the way there.

    Attributes:
        address: ``http(s)://host[:port][/prefix]``.
        ssl_context: Whom to trust.
        proxy: Who passes them on; None to go directly.
        connections: Connections at a time.
    """

    address: str
    ssl_context: ssl.SSLContext | None
    proxy: Proxy | None
    connections: int


class HttpPool:
    """:class:`.requests.Requests` over HTTP/1.1.

    A request of which certainly nothing was sent because its kept connection had died is sent once more over a new
    one.

    Args:
        site: Where requests go.
        credentials: The token of every request.
        limits: Limits of each connection.

    Attributes:
        reachable: Whether the server answered when it was last asked.
        watch: Notices when it does not answer any more.
    """

    def __init__(self, site: Site, credentials: Credentials, limits: ChannelLimits) -> None:
        parts = urlsplit(site.address)
        self.reachable = True
        self.watch = Watch(limits, self._ask)
        self._url = parts._replace(path=parts.path.rstrip("/")).geturl()
        self._host = parts.netloc.encode()
        self._credentials = credentials
        self._closed = False
        self._doubted = False
        self._assuring = trio.Lock()
        network = Network(limits, site.ssl_context)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=network.stand_in,
            proxy=None if site.proxy is None else _asked(site.proxy),
            max_connections=site.connections,
            max_keepalive_connections=IDLE_MAX,
            keepalive_expiry=IDLE_S,
            network_backend=network,
        )

    @asynccontextmanager
    async def post(self, request: Request) -> AsyncGenerator[Reply]:
        """See :class:`.requests.Requests`."""
        reply = await self._begin(request)
        try:
            yield reply
        finally:
            await reply.aclose()

    def doubt(self) -> None:
        """Ask whether the server is there before the next request is sent: what finds it gone was not sent then."""
        self._doubted = True

    async def aclose(self) -> None:
        """Close every connection; requests in flight fail, further ones are refused."""
        self._closed = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            await self._pool.aclose()

    async def _begin(self, request: Request) -> HttpReply:
        headers = self._headers(request)
        if self._doubted and not self._closed:
            await self._assure(Attempt(request))
        failure = await self._try(request, headers)
        if isinstance(failure, ChannelBroken) and not request.sent.is_set() and self.reachable and not self._closed:
            await self._assure(Attempt(request))
            failure = await self._try(request, headers)
        if isinstance(failure, AtomaError):
            raise failure
        return failure

    async def _try(self, request: Request, headers: Headers) -> HttpReply | AtomaError:
        if self._closed:
            return ChannelBroken("the connection is closed; the call was not sent", maybe_sent=False)
        attempt = Attempt(request)
        ask = httpcore2.Request("POST", self._url + request.path, headers=headers, content=request.body)
        try:
            response = await self.guarded(attempt, lambda: self._pool.handle_async_request(ask))
        except AtomaError as error:
            return error
        self.reachable = True
        if response.status == NO_SERVICE:
            self.doubt()
        return HttpReply(self, attempt, response)

    async def _assure(self, attempt: Attempt) -> None:
        """See that the server answers again.

        Raises:
            ChannelBroken: It does not; nothing was sent.
            ProtocolError: Something else does; nothing was sent.
        """
        await self.guarded(attempt, self._assuring.acquire)
        try:
            if not self._doubted:
                return
            probe = new_probe()
            found = await self._try(probe, self._headers(probe))
            if isinstance(found, HttpReply):
                self._doubted = False
                try:
                    await read_body(found, PROBE_BYTES_MAX)
                finally:
                    await found.aclose()
        except AtomaError as error:
            found = error
        finally:
            self._assuring.release()
        if isinstance(found, AtomaError):
            self.reachable, self._doubted = False, True
            kind = ProtocolError if isinstance(found, ProtocolError) else ChannelBroken
            raise kind(f"{_first(found)}; the call was not sent", maybe_sent=False)

    async def guarded(self, attempt: Attempt, something: Callable[[], Awaitable[T]]) -> T:
        """Wait for ``something`` that the library does for ``attempt``; its errors are ours."""
        before = ATTEMPT.set(attempt)
        try:
            return await self.watch.wait(something)
        except Unreachable as error:
            self.reachable = False
            raise ChannelBroken(f"cannot connect: {error}; the call was not sent", maybe_sent=False) from None
        except httpcore2.ProxyError as error:
            self.reachable = False
            raise ChannelBroken(f"the proxy refused: {error}; the call was not sent", maybe_sent=False) from None
        except Mute:
            self.reachable = False
            self.doubt()
            raise _broken("the other side no longer answers", attempt) from None
        except Lost as error:
            self.doubt()
            raise _broken(str(error), attempt) from None
        except (httpcore2.RemoteProtocolError, httpcore2.NetworkError) as error:
            self.doubt()
            if attempt.ended or isinstance(error, httpcore2.NetworkError):
                raise _broken("the connection was lost", attempt) from None
            sent = attempt.request.sent.is_set()
            raise ProtocolError(f"the other side does not speak HTTP: {error}", maybe_sent=sent) from None
        finally:
            ATTEMPT.reset(before)

    async def _ask(self) -> None:
        """See :class:`.watch.Watch`; one that is there to refuse counts as well."""
        probe = new_probe()
        ask = httpcore2.Request("POST", self._url + probe.path, headers=self._headers(probe), content=probe.body)
        try:
            response = await self._pool.handle_async_request(ask)
            try:
                async with aclosing(response.aiter_stream()) as parts:
                    async for _ in parts:  # to its end, so that the connection can be kept; ``pong_s`` bounds it
                        pass
            finally:
                await response.aclose()
        except Unreachable as error:
            if not error.refused:
                await trio.sleep_forever()
        except (Lost, httpcore2.ProtocolError, httpcore2.NetworkError, httpcore2.ProxyError):
            pass

    def _headers(self, request: Request) -> Headers:
        headers = [
            (b"host", self._host),
            (b"user-agent", USER_AGENT),
            (b"content-type", MSGPACK.encode()),
            (b"content-length", b"%d" % len(request.body)),
        ]
        token = self._credentials.current if request.token is None else request.token
        if token:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        if request.budget_ms >= 0:
            headers.append((BUDGET.encode(), b"%d" % request.budget_ms))
        trace = request.trace_id
        if trace and len(trace) <= TRACE_LENGTH_MAX and trace.isascii() and trace.isprintable() and " " not in trace:
            headers.append((TRACE.encode(), trace.encode()))
        return headers


class HttpReply:
    """:class:`.requests.Reply` of a pool."""

    def __init__(self, pool: HttpPool, attempt: Attempt, response: httpcore2.Response) -> None:
        self.status = response.status
        self._pool = pool
        self._attempt = attempt
        self._response = response
        self._headers = {name.lower(): value for name, value in response.headers}
        self._parts: AsyncGenerator[bytes] | None = None

    def header(self, name: str) -> str:
        """See :class:`.requests.Reply`."""
        return self._headers.get(name.encode(), b"").decode("latin-1")

    async def receive(self) -> bytes:
        """See :class:`.requests.Reply`."""
        if self._parts is None:
            self._parts = self._response.aiter_stream()
        return await self._pool.guarded(self._attempt, self._next)

    async def _next(self) -> bytes:
        assert self._parts is not None
        async for data in self._parts:
            if data:
                return data
        return b""

    async def aclose(self) -> None:
        """Give the connection back when the body was read to its end, else close it."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            if self._parts is not None:
                await self._parts.aclose()
            await self._response.aclose()


def _first(error: AtomaError) -> str:
    """What happened, without what that meant for another request."""
    return str(error).partition(";")[0]


def _broken(text: str, attempt: Attempt) -> ChannelBroken:
    sent = attempt.request.sent.is_set()
    outcome = "the outcome of the call is unknown" if sent else "the call was not sent"
    return ChannelBroken(f"{text}; {outcome}", maybe_sent=sent)


def _asked(proxy: Proxy) -> httpcore2.Proxy:
    """``proxy`` as the library wants it."""
    return httpcore2.Proxy(proxy.url, auth=None if proxy.user is None else (proxy.user, proxy.password))
