"""The inspector over HTTP: its page, a stream of states and a look at rows, for any number of clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import resources

import msgspec
import trio

from atoma.errors import ClosedError, UnknownStore
from atoma.inspector.snapshot import Inspected, look_at_rows, take_snapshot
from atoma.inspector.views import ClientView
from atoma_transports.http import EventSender, HttpError, HttpFace, HttpRequest, HttpResponse, json_response

STATIC_PREFIX = "/static/inspector/"
LOOK_EVERY_S = 1.0
COALESCE_S = 0.12

Clients = Callable[[], Awaitable[Sequence[Inspected]]]


def add_inspector(face: HttpFace, clients: Sequence[Inspected] | Clients, keys: Sequence[str] = ()) -> None:
    """Put the inspector on ``face``: the page at ``/inspector``, its files below ``/static/inspector/``.

    Args:
        face: Where to put it. The inspector shows values and is meant for loopback; it can change nothing.
        clients: The clients, or a function that waits until there are some.
        keys: Their keys, when ``clients`` is a function.
    """
    find: Clients = clients if callable(clients) else partial(_given, tuple(clients))
    known = keys if callable(clients) else [client.key for client in clients]
    page = resources.files("atoma.inspector").joinpath("static", "inspector.html").read_bytes()
    face.folder(STATIC_PREFIX, "atoma.inspector", "static")
    face.get("/inspector", partial(_page, page))
    face.get("/api/inspector", partial(_list, find))
    face.get("/api/inspector/rows", partial(_rows, find))
    for key in known:
        face.events(f"/api/inspector/{key}/events", partial(_feed, find, key))


async def _given(clients: Sequence[Inspected]) -> Sequence[Inspected]:
    return clients


async def _page(page: bytes, request: HttpRequest) -> HttpResponse:
    return HttpResponse(page, 200, "text/html; charset=utf-8")


async def _list(find: Clients, request: HttpRequest) -> HttpResponse:
    return json_response([ClientView(client.key, client.name) for client in await find()])


async def _rows(find: Clients, request: HttpRequest) -> HttpResponse:
    target = _pick(await find(), request.query.get("client", ""))
    try:
        return json_response(await look_at_rows(target, request.query.get("store", "")))
    except UnknownStore as error:
        raise HttpError(404, str(error)) from None


def _pick(clients: Sequence[Inspected], key: str) -> Inspected:
    found = next((client for client in clients if client.key == key), None)
    if found is None:
        raise HttpError(404, f"no client {key!r}; there are: {', '.join(client.key for client in clients)}")
    return found


async def _feed(find: Clients, key: str, request: HttpRequest, send: EventSender) -> None:
    """Send the state whenever it is another one, until the browser leaves."""
    clients = await find()
    target = _pick(clients, key)
    sent = ""
    while True:
        try:
            text = msgspec.json.encode(await take_snapshot(target, clients)).decode()
        except ClosedError:
            return
        if text != sent:
            await send(text, event="state")
            sent = text
        with trio.move_on_after(LOOK_EVERY_S):
            await target.eye.wait_event()
        await trio.sleep(COALESCE_S)
