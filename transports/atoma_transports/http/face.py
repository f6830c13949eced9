"""A small router: pages from a package, JSON in and out, event streams."""

from __future__ import annotations

import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable

from atoma_transports.http.messages import EventHandler, Handler, HttpError, HttpRequest, HttpResponse


class HttpFace:
    """What a server answers over HTTP besides WebSocket.

    >>> face = HttpFace()
    >>> face.folder("/", "atoma.demo", "static")        # GET / is static/index.html
    >>> face.get("/api/state", state)                   # async def state(request) -> HttpResponse
    >>> face.post("/api/act", act)                      # Content-Type has to be application/json
    >>> face.events("/api/events", feed)                # async def feed(request, send) -> None
    """

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._events: dict[str, EventHandler] = {}
        self._folders: list[tuple[str, Traversable]] = []

    def get(self, path: str, handler: Handler) -> None:
        """Answer ``GET path`` with what ``handler`` returns."""
        self._handlers["GET", path] = handler

    def post(self, path: str, handler: Handler) -> None:
        """Answer ``POST path`` with what ``handler`` returns; other content than JSON is refused with 415."""
        self._handlers["POST", path] = handler

    def events(self, path: str, handler: EventHandler) -> None:
        """Answer ``GET path`` with the server-sent events that ``handler`` sends."""
        self._events[path] = handler

    def folder(self, prefix: str, package: str, folder: str) -> None:
        """Answer ``GET`` below ``prefix`` with the files in ``folder`` of ``package``; a folder's page is index.html."""
        self._folders.append((prefix if prefix.endswith("/") else f"{prefix}/", resources.files(package) / folder))

    def find(self, method: str, path: str) -> Handler | None:
        """The handler for a request.

        Raises:
            HttpError: There is none: 404, or 405 when the path knows another method.
        """
        wanted = "GET" if method == "HEAD" else method
        handler = self._handlers.get((wanted, path))
        if handler is not None:
            return handler
        if any((other, path) in self._handlers for other in ("GET", "POST")) or path in self._events:
            raise HttpError(405, f"{path} does not take {method}")
        if wanted == "GET" and (page := self._file(path)) is not None:
            return _constant(page)
        raise HttpError(404, f"nothing here under {path}")

    def feed(self, method: str, path: str) -> EventHandler | None:
        """The event stream at ``path``, if there is one."""
        return self._events.get(path) if method == "GET" else None

    def _file(self, path: str) -> HttpResponse | None:
        for prefix, folder in self._folders:
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            if parts[-1] == "":
                parts[-1] = "index.html"
            if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
                continue
            found = folder.joinpath(*parts)
            if found.is_file():
                kind = mimetypes.guess_type(parts[-1])[0] or "application/octet-stream"
                text = kind.startswith("text/") or kind in ("application/json", "application/javascript")
                content_type = f"{kind}; charset=utf-8" if text else kind
                return HttpResponse(found.read_bytes(), 200, content_type)
        return None


def _constant(response: HttpResponse) -> Handler:
    async def answer(request: HttpRequest) -> HttpResponse:
        return response

    return answer
