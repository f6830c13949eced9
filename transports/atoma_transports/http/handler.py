"""HTTP/1.1 as one of the protocols on a port."""

from __future__ import annotations

from dataclasses import replace

import h11
import trio

from atoma.ports.tasks import open_tasks
from atoma_transports.http.asked import Asked, asks_for_websocket, head_bytes, read_head
from atoma_transports.http.batches import RunningBatches
from atoma_transports.http.calls import Calls
from atoma_transports.http.envelope import BUDGET, PREFIX, TRACE
from atoma_transports.http.messages import EventHandler, Handler, HttpError, Routes
from atoma_transports.http.pages import Pages, text_of
from atoma_transports.http.wire import Gone, ServerWire
from atoma_transports.serving.handlers import Hosting, ProtocolHandler
from atoma_transports.serving.head import HTTP2_START
from atoma_transports.streams import PrefixedStream

FIELDS = ("authorization", "content-encoding", "content-type", BUDGET, TRACE)
"""Header fields of requests that pages of other sites may set."""


class HttpHandler:
    """The protocol handler for HTTP: it answers the protocol under ``/v1/``, and the pages that are added here.

    >>> handler = HttpHandler()
    >>> handler.folder("/", "atoma.demo", "static")        # GET / is static/index.html
    >>> handler.get("/api/state", state)                   # async def state(request) -> HttpResponse
    >>> handler.post("/api/act", act)                      # Content-Type must be application/json
    >>> handler.events("/api/events", feed)                # async def feed(request, send) -> None
    """

    name = "http"

    def __init__(self) -> None:
        self._routes = Routes()
        self._batches = RunningBatches()

    def get(self, path: str, handler: Handler) -> None:
        """Answer ``GET path`` with what ``handler`` returns."""
        self._routes.handlers["GET", path] = handler

    def post(self, path: str, handler: Handler) -> None:
        """Answer ``POST path`` with what ``handler`` returns; content other than JSON is refused with 415."""
        self._routes.handlers["POST", path] = handler

    def events(self, path: str, handler: EventHandler) -> None:
        """Answer ``GET path`` with the server-sent events that ``handler`` sends."""
        self._routes.streams[path] = handler

    def folder(self, prefix: str, package: str, folder: str) -> None:
        """Answer ``GET`` below ``prefix`` with the files in ``folder`` of ``package``; a folder is answered with its index.html."""
        self._routes.folder(prefix, package, folder)

    def speaks(self, head: bytes) -> bool:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`; whatever is not HTTP/2 gets an answer in HTTP."""
        return not head.startswith(HTTP2_START)

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """See :class:`atoma_transports.serving.handlers.ProtocolHandler`."""
        await serve_http(stream, self._routes, self._batches, hosting)


async def serve_http(stream: trio.abc.Stream, routes: Routes, batches: RunningBatches, hosting: Hosting) -> None:
    """Answer the requests of one client, one after the other, until either side is done or goes on in frames.

    Raises nothing but cancellation and what a lost stream raises.
    """
    upgrade: _Upgrade | None = None
    with hosting.share() as share:
        async with open_tasks() as nursery:
            wire = ServerWire(stream, nursery, hosting.drain, hosting.place, share)
            nursery.start_soon(wire.guard)
            calls = Calls(wire, hosting, batches)
            pages = Pages(wire, hosting, routes)
            try:
                while await _answer_one(wire, hosting, calls, pages):
                    pass
                await wire.leave()
            except _Upgrade as wanted:
                upgrade = wanted
            except (Gone, OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
                pass
            finally:
                calls.close()
            nursery.cancel_scope.cancel()
    if upgrade is not None:
        ahead, below = wire.take_apart()
        peer = replace(hosting.peer, transport=upgrade.handler.name)
        await upgrade.handler.serve(PrefixedStream(upgrade.head + ahead, below), replace(hosting, peer=peer))


class _Upgrade(Exception):
    """The client asks to go on in another language, which is spoken here."""

    def __init__(self, head: bytes, handler: ProtocolHandler) -> None:
        super().__init__(handler.name)
        self.head = head
        self.handler = handler


def _check_upgrade(head: h11.Request, hosting: Hosting) -> None:
    if asks_for_websocket(head):
        data = head_bytes(head)
        handler = hosting.handler_for(data)
        if handler is not None and handler.name != hosting.peer.transport:
            raise _Upgrade(data, handler)


async def _answer_preflight(wire: ServerWire, asked: Asked, hosting: Hosting) -> None:
    """Tell a browser what a page of another site may send.

    Raises:
        HttpError: It is a page of no site that is named, or no browser asks.
    """
    told = hosting.sites.preflight(asked.fields, FIELDS)
    if told is None:
        raise HttpError(405, "the method OPTIONS is not supported here")
    await wire.body(0)
    await wire.send(204, told, b"")


async def _answer_one(wire: ServerWire, hosting: Hosting, calls: Calls, pages: Pages) -> bool:
    """Answer one request; whether another may follow.

    Raises:
        _Upgrade: The request is for another handler, and so is all that follows it.
    """
    try:
        head = await wire.head()
        if head is None:
            return False
        _check_upgrade(head, hosting)
        try:
            asked = read_head(head, hosting)
        except HttpError as error:
            await wire.send(*text_of(error.status, error.message), last=True)
            return False
        hosting.place.turn_to(asked.peer.address, patient=True)
        wire.share.comes_from(asked.peer)
        if asked.path.startswith(PREFIX):
            wire.also = hosting.sites.answered(asked.fields)
            if asked.method == "OPTIONS":
                await _answer_preflight(wire, asked, hosting)
            else:
                await calls.answer(asked)
        elif asked.method == "OPTIONS":
            raise HttpError(405, "the method OPTIONS is not supported here")
        else:
            await pages.answer(asked)
    except HttpError as error:
        await wire.skip_body(hosting.limits.first_frame_bytes)
        await wire.send(*text_of(error.status, error.message))
    except h11.RemoteProtocolError as error:
        await wire.send(*text_of(error.error_status_hint, "the request is not valid HTTP/1.1"), last=True)
    if hosting.place.shared:
        wire.share.leave()  # the connection is the proxy's, which may use it for anybody
    return wire.next_cycle()
