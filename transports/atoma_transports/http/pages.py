"""Pages, JSON handlers and event streams that an application adds to the port."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import parse_qsl

import trio

from atoma.ports.tasks import open_tasks
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.http.asked import Asked
from atoma_transports.http.bodies import whole_body
from atoma_transports.http.messages import (
    EventHandler,
    Handler,
    HttpError,
    HttpRequest,
    HttpResponse,
    Routes,
    event_text,
)
from atoma_transports.http.streams import BodyWriter
from atoma_transports.http.wire import Fields, Gone, ServerWire
from atoma_transports.serving.handlers import Hosting
from atoma_transports.serving.sites import Sites

logger = logging.getLogger("atoma.transports")

BODY_BYTES_MAX = 1024 * 1024
COMMENT_EVERY_S = 15.0
BEGIN_S = 0.1
OWN = Sites()
"""Pages may be posted to by pages beside them, whoever may call the protocol."""
FAILED = "the server failed to answer; its log says why"

SECURITY_FIELDS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SECURITY = tuple((name.encode(), value.encode()) for name, value in SECURITY_FIELDS.items())


def fields_of(own: Mapping[str, str]) -> Fields:
    """``own`` header fields, and those that keep pages from harm unless they say otherwise themselves."""
    if SECURITY_FIELDS.keys().isdisjoint(own):
        return [*_SECURITY, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items())]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in {**SECURITY_FIELDS, **own}.items()]


def answer_of(response: HttpResponse) -> tuple[int, Fields, bytes]:
    """``response`` as it is sent."""
    own = {"content-type": response.content_type, "content-length": str(len(response.body)), **response.headers}
    return response.status, fields_of(own), response.body


def text_of(status: int, message: str) -> tuple[int, Fields, bytes]:
    """A line of text as it is sent."""
    return answer_of(HttpResponse(f"{message}\n".encode(), status))


class Pages:
    """The answers to requests for pages on one connection."""

    def __init__(self, wire: ServerWire, hosting: Hosting, routes: Routes) -> None:
        self._wire = wire
        self._hosting = hosting
        self._routes = routes

    async def answer(self, asked: Asked) -> None:
        """Answer one request.

        Raises:
            HttpError: There is nothing under that path, or it may not be asked for like this.
            Gone: The client has left; the handler was cancelled.
        """
        if asked.method == "POST":
            _check_post(asked)
        feed = self._routes.feed(asked.method, asked.path)
        handler = None if feed is not None else self._routes.find(asked.method, asked.path)  # before a body is read
        body = await whole_body(self._wire, asked, BODY_BYTES_MAX)
        query = dict(parse_qsl(asked.query)) if asked.query else {}
        request = HttpRequest(asked.method, asked.path, query, asked.fields, body, asked.peer)
        if feed is not None:
            with self._hosting.place.visited():
                await self._stream_events(request, feed)
            return
        assert handler is not None
        with self._hosting.place.visited():
            await self._wire.send(*answer_of(await self._handled(handler, request)))

    async def _handled(self, handler: Handler, request: HttpRequest) -> HttpResponse:
        try:
            return await self._wire.attended(lambda: handler(request))
        except (HttpError, Gone):
            raise
        except Exception:
            logger.exception("a page handler failed")
            raise HttpError(500, FAILED) from None

    async def _stream_events(self, request: HttpRequest, feed: EventHandler) -> None:
        """Send events until ``feed`` returns, the client leaves, or the server drains.

        Raises:
            HttpError: The feed refuses the request before its first event: nothing has been sent yet.
        """

        async def work() -> None:
            async with open_tasks() as nursery:
                events = _Events(self._wire, self._hosting.limits, nursery)

                async def until_drained() -> None:
                    await self._hosting.drain.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_drained)
                nursery.start_soon(events.begin_soon)
                try:
                    await feed(request, events.send)
                    await events.begin()
                    await events.writer.flushed()
                except Gone:
                    raise
                except Exception as error:
                    if isinstance(error, HttpError) and not events.begun:
                        raise
                    logger.exception("an event stream failed")
                    if not events.begun:
                        raise HttpError(500, FAILED) from None
                nursery.cancel_scope.cancel()

        await self._wire.attended(work)


class _Events:
    """The answer to somebody who reads events; it begins with the first of them, or when none has come for a moment."""

    def __init__(self, wire: ServerWire, limits: ChannelLimits, nursery: trio.Nursery) -> None:
        self.writer = BodyWriter(wire, limits)
        self.begun = False
        self._wire = wire
        self._nursery = nursery

    async def send(self, data: str, *, event: str = "", id: str = "") -> None:
        """See :class:`atoma_transports.http.messages.EventSender`."""
        await self.begin()
        if not await self.writer.put(event_text(data, event, id).encode()):
            raise Gone

    async def begin(self) -> None:
        """Send the head, once."""
        if not self.begun:
            self.begun = True
            own = {"content-type": "text/event-stream", "connection": "close", "x-accel-buffering": "no"}
            await self._wire.write(self._wire.begin(200, fields_of(own)))
            self._nursery.start_soon(self.writer.run)
            self._nursery.start_soon(stay_warm, self.writer)

    async def begin_soon(self) -> None:
        """Send the head to a client that would otherwise not know that its request has arrived."""
        await trio.sleep(BEGIN_S)
        await self.begin()


async def stay_warm(writer: BodyWriter) -> None:
    """Send a comment from time to time, so that nobody on the way takes the stream for dead."""
    while True:
        await trio.sleep(COMMENT_EVERY_S)
        if not writer.busy:
            writer.put_now(b": still here\n\n")


def _check_post(asked: Asked) -> None:
    """JSON only, and not from a page of another site: forms and foreign scripts cannot act for the user."""
    if asked.content_type != "application/json":
        raise HttpError(415, "send JSON with Content-Type: application/json")
    if not OWN.admits(asked.fields):
        raise HttpError(403, "requests from other sites are refused")
