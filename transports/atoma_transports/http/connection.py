"""One HTTP/1.1 connection, on h11."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

from atoma.ports import Peer
from atoma.ports.tasks import open_tasks
from atoma_transports.http.face import HttpFace
from atoma_transports.http.messages import EventHandler, HttpError, HttpRequest, HttpResponse

logger = logging.getLogger("atoma.transports")

HEADER_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 1024 * 1024
RECEIVE_BYTES = 64 * 1024
HEADER_S = 10.0
BODY_S = 30.0
KEEP_ALIVE_S = 75.0
SEND_S = 30.0
COMMENT_EVERY_S = 15.0

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
Headers: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class HttpRules:
    """What a connection holds its client to.

    Attributes:
        known_host: Whether a host name in a request is one of this server's.
        peer: Where the connection comes from.
        drain: Once set, the connection is closed after the request in hand.
    """

    known_host: Callable[[str], bool]
    peer: Peer
    drain: trio.Event


class _Gone(Exception):
    """The client has left, or what it sends cannot be continued with."""


class HttpConnection:
    """Answers the requests of one client, one after the other."""

    def __init__(self, stream: trio.abc.Stream, face: HttpFace, rules: HttpRules) -> None:
        self._stream = stream
        self._face = face
        self._rules = rules
        self._head_only = False
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)

    async def run(self) -> None:
        """Answer until either side is done. Raises nothing but cancellation."""
        try:
            wait_s = HEADER_S
            while await self._answer_one(wait_s):
                wait_s = KEEP_ALIVE_S
        except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.LocalProtocolError):
            pass

    async def _answer_one(self, wait_s: float) -> bool:
        """Answer one request; whether another may follow."""
        try:
            head = await self._head(wait_s)
            if head is None:
                return False
            request = await self._request(head)
            feed = self._face.feed(request.method, request.path)
            if feed is not None:
                await self._stream_events(request, feed)
                return False
            handler = self._face.find(request.method, request.path)
            response = await self._watched(lambda: handler(request)) if handler else HttpResponse(status=404)
        except HttpError as error:
            response = HttpResponse(f"{error.message}\n".encode(), error.status)
        except trio.TooSlowError:
            response = HttpResponse(b"the request took too long to arrive\n", 408)
        except h11.RemoteProtocolError as error:
            response = HttpResponse(b"not a proper HTTP/1.1 request\n", error.error_status_hint)
        await self._send(response)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE or self._rules.drain.is_set():
            return False
        self._http.start_next_cycle()
        return True

    async def _head(self, wait_s: float) -> h11.Request | None:
        """The next request line and headers; None when the client is done, or is silent for too long."""
        event: object = None
        with trio.move_on_after(wait_s):
            async with open_tasks() as waiting:

                async def drained() -> None:
                    await self._rules.drain.wait()
                    waiting.cancel_scope.cancel()

                waiting.start_soon(drained)
                event = await self._next_event()
                waiting.cancel_scope.cancel()
        if not isinstance(event, h11.Request):
            return None
        self._head_only = event.method == b"HEAD"
        return event

    async def _next_event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._stream.send_all(self._http.send(go_on) or b"")
                self._http.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
                continue
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return None
            return event

    async def _request(self, head: h11.Request) -> HttpRequest:
        if head.http_version not in (b"1.0", b"1.1"):
            raise HttpError(505, "HTTP/1.1 is spoken here")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        host = headers.get("host", "")
        if not self._rules.known_host(host):
            raise HttpError(421, "this server is not known under that name")
        method = head.method.decode("latin-1")
        if method not in ("GET", "HEAD", "POST"):
            raise HttpError(405, f"{method} is not answered here")
        if method == "POST":
            self._check_post(headers, host)
        if headers.get("upgrade", "").lower() == "websocket":
            raise HttpError(403, "a WebSocket is not taken under this path, or from another site")
        target = urlsplit(head.target.decode("latin-1"))
        with trio.fail_after(BODY_S):
            body = await self._body()
        path = unquote(target.path)
        return HttpRequest(method, path, dict(parse_qsl(target.query)), headers, body, self._rules.peer)

    def _check_post(self, headers: dict[str, str], host: str) -> None:
        """JSON only, and not from a page of another site: forms and foreign scripts cannot act for the user."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HttpError(415, "send JSON with Content-Type: application/json")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise HttpError(403, "requests from other sites are refused")

    async def _body(self) -> bytes:
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_BYTES_MAX:
                    raise HttpError(413, f"a body may have {BODY_BYTES_MAX} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise _Gone

    async def _watched(self, work: Callable[[], Awaitable[HttpResponse]]) -> HttpResponse:
        """What ``work`` returns; it is cancelled when the client goes away meanwhile."""
        answers: list[HttpResponse] = []
        async with open_tasks() as nursery:
            nursery.start_soon(self._until_gone, nursery.cancel_scope)
            try:
                answers.append(await work())
            except HttpError as error:
                answers.append(HttpResponse(f"{error.message}\n".encode(), error.status))
            except Exception:
                logger.exception("a page handler failed")
                answers.append(HttpResponse(b"the server failed to answer; its log says why\n", 500))
            nursery.cancel_scope.cancel()
        if not answers:
            raise _Gone
        return answers[0]

    async def _until_gone(self, work: trio.CancelScope) -> None:
        """Cancel ``work`` once the client hangs up; what it sends ahead is kept, up to a bound."""
        ahead = 0
        try:
            while ahead < HEADER_BYTES_MAX:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    break
                ahead += len(data)
                self._http.receive_data(bytes(data))
            else:
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        work.cancel()

    def _head_fields(self, response_headers: dict[str, str]) -> Headers:
        fields = {**SECURITY_HEADERS, **response_headers}
        if self._rules.drain.is_set():
            fields["connection"] = "close"
        return list(fields.items())

    async def _send(self, response: HttpResponse) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        own = {"content-type": response.content_type, "content-length": str(len(response.body)), **response.headers}
        head = h11.Response(status_code=response.status, headers=self._head_fields(own))
        parts = [self._http.send(head)]
        if not self._head_only:
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        with trio.fail_after(SEND_S):
            await self._stream.send_all(b"".join(part or b"" for part in parts))

    async def _stream_events(self, request: HttpRequest, feed: EventHandler) -> None:
        """Send events until ``feed`` returns, the client leaves, or the server drains."""
        own = {"content-type": "text/event-stream", "connection": "close", "x-accel-buffering": "no"}
        head = self._http.send(h11.Response(status_code=200, headers=self._head_fields(own)))
        await self._stream.send_all(head or b"")
        lock = trio.Lock()

        async def send_text(text: str) -> None:
            data = self._http.send(h11.Data(data=text.encode()))
            async with lock:
                with trio.fail_after(SEND_S):
                    await self._stream.send_all(data or b"")

        async def send(data: str, *, event: str = "", id: str = "") -> None:
            await send_text(_event_text(data, event, id))

        async with open_tasks() as nursery:

            async def until_drained() -> None:
                await self._rules.drain.wait()
                nursery.cancel_scope.cancel()

            async def stay_warm() -> None:
                while True:
                    await trio.sleep(COMMENT_EVERY_S)
                    await send_text(": still here\n\n")

            nursery.start_soon(self._until_gone, nursery.cancel_scope)
            nursery.start_soon(until_drained)
            nursery.start_soon(stay_warm)
            try:
                await feed(request, send)
            except (trio.BrokenResourceError, trio.TooSlowError):
                pass
            except Exception:
                logger.exception("an event stream failed")
            nursery.cancel_scope.cancel()


def _event_text(data: str, event: str, id: str) -> str:
    lines = [f"data: {line}" for line in data.splitlines() or [""]]
    if event:
        lines.insert(0, f"event: {event.splitlines()[0]}")
    if id:
        lines.insert(0, f"id: {id.splitlines()[0]}")
    return "\n".join(lines) + "\n\n"
