"""A small router: pages from a package, JSON in and out, event streams."""

from __future__ import annotations

import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable

from atoma_transports.http.messages import EventHandler, Handler, HttpError, HttpRequest, HttpResponse

PATH_SHOWN = 200


class Routes:
    """What is answered under which path."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.streams: dict[str, EventHandler] = {}
        self.folders: list[tuple[str, Traversable]] = []

    def folder(self, prefix: str, package: str, folder: str) -> None:
        """Answer ``GET`` below ``prefix`` with the files in ``folder`` of ``package``."""
        self.folders.append((prefix if prefix.endswith("/") else f"{prefix}/", resources.files(package) / folder))

    def find(self, method: str, path: str) -> Handler:
        """The handler for a request.

        Raises:
            HttpError: There is none: 404, or 405 when the path knows another method.
        """
        wanted = "GET" if method == "HEAD" else method
        handler = self.handlers.get((wanted, path))
        if handler is not None:
            return handler
        if any((other, path) in self.handlers for other in ("GET", "POST")) or path in self.streams:
            raise HttpError(405, f"{path} does not take {method}")
        if wanted == "GET" and (page := self._file(path)) is not None:
            return _constant(page)
        raise HttpError(404, f"nothing here under {path[:PATH_SHOWN]}")

    def feed(self, method: str, path: str) -> EventHandler | None:
        """The event stream at ``path``, if there is one."""
        return self.streams.get(path) if method == "GET" else None

    def _file(self, path: str) -> HttpResponse | None:
        for prefix, folder in self.folders:
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            if parts[-1] == "":
                parts[-1] = "index.html"
            if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
                continue
            found = folder.joinpath(*parts)
            if _is_file(found):
                kind = mimetypes.guess_type(parts[-1])[0] or "application/octet-stream"
                text = kind.startswith("text/") or kind in ("application/json", "application/javascript")
                content_type = f"{kind}; charset=utf-8" if text else kind
                return HttpResponse(found.read_bytes(), 200, content_type)
        return None


def _is_file(found: Traversable) -> bool:
    try:
        return found.is_file()
    except OSError:  # no file has a name that is this long
        return False


def _constant(response: HttpResponse) -> Handler:
    async def answer(request: HttpRequest) -> HttpResponse:
        return response

    return answer
