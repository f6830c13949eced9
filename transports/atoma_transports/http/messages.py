"""Requests and responses of pages, and the router that finds who answers them."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Protocol, TypeAlias

import msgspec

from atoma.errors import RemoteError
from atoma.ports import Peer
from atoma_transports.http.envelope import check_separators


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        path: Decoded path, beginning with ``/``.
        query: Decoded query parameters; of repeated ones the last.
        headers: Header fields by lower-case name; the values of repeated ones with commas between them.
        body: The body; JSON when there is one.
        peer: Who made it, as far as proxies on the way can be believed.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: Peer

    def json(self) -> object:
        """The body as plain values.

        Raises:
            HttpError: It is not JSON (answered with 400), or there is too much in it (413).
        """
        try:
            check_separators(self.body)
        except RemoteError as error:
            raise HttpError(413, str(error)) from None
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise HttpError(400, "the body is not JSON") from None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer.

    Attributes:
        body: Sent as it is.
        status: HTTP status.
        content_type: Of the body.
        headers: Further header fields.
    """

    body: bytes = b""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class HttpError(Exception):
    """Answered with ``status`` and a line of text; raise it from a handler."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def json_response(value: object, *, status: int = 200) -> HttpResponse:
    """``value`` (plain values or msgspec structs) as JSON."""
    return HttpResponse(msgspec.json.encode(value), status, "application/json")


_LINE_END = re.compile(r"\r\n|\r|\n")


class EventSender(Protocol):
    """A sender of server-sent events to one client."""

    async def __call__(self, data: str, *, event: str = "", id: str = "") -> None:
        """Send one event, waiting while the client is behind."""
        ...


Handler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers a request; cancelled when the client goes away."""
EventHandler: TypeAlias = Callable[[HttpRequest, EventSender], Awaitable[None]]
"""Feeds an event stream until it returns; cancelled when the client goes away. An :class:`HttpError` that it raises before its
first event is the answer."""


def event_text(data: str, event: str = "", id: str = "") -> str:
    """One server-sent event as it goes over the wire."""
    lines = [f"data: {line}" for line in _LINE_END.split(data)]
    if event:
        lines.insert(0, f"event: {event.splitlines()[0]}")
    if id:
        lines.insert(0, f"id: {id.splitlines()[0]}")
    return "\n".join(lines) + "\n\n"


PATH_SHOWN = 200


class Routes:
    """The paths that are answered, each with its handler."""

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
