"""HTTP/1.1 as one of the languages on a port."""

from __future__ import annotations

import trio

from atoma_transports.http.batches import Batches
from atoma_transports.http.connection import serve_http
from atoma_transports.http.messages import EventHandler, Handler
from atoma_transports.http.routes import Routes
from atoma_transports.serving.face import Hosting
from atoma_transports.serving.head import HTTP2_START


class HttpFace:
    """What a port answers over HTTP: the protocol under ``/v1/``, and the pages that are added here.

    >>> face = HttpFace()
    >>> face.folder("/", "atoma.demo", "static")        # GET / is static/index.html
    >>> face.get("/api/state", state)                   # async def state(request) -> HttpResponse
    >>> face.post("/api/act", act)                      # Content-Type has to be application/json
    >>> face.events("/api/events", feed)                # async def feed(request, send) -> None
    """

    name = "http"

    def __init__(self) -> None:
        self._routes = Routes()
        self._batches = Batches()

    def get(self, path: str, handler: Handler) -> None:
        """Answer ``GET path`` with what ``handler`` returns."""
        self._routes.handlers["GET", path] = handler

    def post(self, path: str, handler: Handler) -> None:
        """Answer ``POST path`` with what ``handler`` returns; other content than JSON is refused with 415."""
        self._routes.handlers["POST", path] = handler

    def events(self, path: str, handler: EventHandler) -> None:
        """Answer ``GET path`` with the server-sent events that ``handler`` sends."""
        self._routes.streams[path] = handler

    def folder(self, prefix: str, package: str, folder: str) -> None:
        """Answer ``GET`` below ``prefix`` with the files in ``folder`` of ``package``; a folder's page is index.html."""
        self._routes.folder(prefix, package, folder)

    def speaks(self, head: bytes) -> bool:
        """See :class:`atoma_transports.serving.face.Face`; whatever is not HTTP/2 is told in HTTP what is wrong."""
        return not head.startswith(HTTP2_START)

    async def serve(self, stream: trio.abc.Stream, hosting: Hosting) -> None:
        """See :class:`atoma_transports.serving.face.Face`."""
        await serve_http(stream, self._routes, self._batches, hosting)
