"""The inspector over HTTP: its page, a stream of states and a look at rows, for any number of clients."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import resources
from typing import TypeAlias, TypeVar

import msgspec

from atoma.errors import AtomaError, ClosedError, QueryError, UnknownStore
from atoma.hub import Hub
from atoma.inspector.asking import answer_sql, look_at_rows, plan_of
from atoma.inspector.deciding import ConflictDecision, LostDecision, OutboxDecision, PageDecision
from atoma.inspector.snapshot import Inspected, take_snapshot
from atoma.inspector.views import ClientView
from atoma.inspector.watch import SharedLook
from atoma_transports.http import EventSender, Handler, HttpError, HttpHandler, HttpRequest, HttpResponse, json_response

STATIC_PREFIX = "/static/inspector/"

T = TypeVar("T")
_DECISIONS: dict[str, type[PageDecision]] = {
    "lost": LostDecision,
    "outbox": OutboxDecision,
    "conflicts": ConflictDecision,
}
_WORD = re.compile(r"[^A-Za-z0-9._-]+")

Clients = Callable[[], Awaitable[Sequence[Inspected]]]
Guard: TypeAlias = Callable[[HttpRequest], Awaitable[bool]]
"""Whether a request may see what the inspector shows; it may raise :class:`atoma_transports.http.HttpError` itself."""


def add_inspector(
    handler: HttpHandler,
    clients: Sequence[Inspected] | Clients,
    keys: Sequence[str] = (),
    *,
    guard: Guard | None = None,
    hub: Callable[[], Awaitable[Hub]] | None = None,
) -> None:
    """Put the inspector on ``handler``: the page at ``/inspector``, its files below ``/static/inspector/``.

    It shows the rows of the clients. All that it changes is what somebody decides: about writes that wait, conflicts, and rows
    that a hub has lost. A page of another site cannot do that.

    Args:
        handler: Where to put it.
        clients: The clients, or a function that waits until there are some.
        keys: Their keys, when ``clients`` is a function.
        guard: Decides for each request who may look, for example by a cookie of the application's; without one, only
            who is on this machine and did not come through a proxy. Others get 403.
        hub: Waits until there is the hub, where it runs in this program: then its restores are shown as well.
    """
    find: Clients = clients if callable(clients) else partial(_given, tuple(clients))
    known = keys if callable(clients) else [client.key for client in clients]
    page = resources.files("atoma.inspector").joinpath("static", "inspector.html").read_bytes()
    guarded = partial(_guarded, guard or _on_this_machine)
    handler.folder(STATIC_PREFIX, "atoma.inspector", "static")
    handler.get("/inspector", guarded(partial(_page, page)))
    handler.get("/api/inspector", guarded(partial(_list, find)))
    handler.get("/api/inspector/rows", guarded(partial(_rows, find)))
    handler.post("/api/inspector/plan", guarded(partial(_plan, find)))
    handler.post("/api/inspector/sql", guarded(partial(_sql, find)))
    handler.get("/api/inspector/log", guarded(partial(_log, find)))
    for name, kind in _DECISIONS.items():
        handler.post(f"/api/inspector/{name}", guarded(partial(_decide, find, kind)))
    for key in known:
        feed = _Feed(find, key, guard or _on_this_machine, hub)
        handler.events(f"/api/inspector/{key}/events", feed.send)


async def _on_this_machine(request: HttpRequest) -> bool:
    return request.peer.loopback


async def _check(guard: Guard, request: HttpRequest) -> None:
    if not await guard(request):
        raise HttpError(403, "the inspector shows rows to this machine only, unless it is given a guard")


def _guarded(guard: Guard, handler: Handler) -> Handler:
    async def answer(request: HttpRequest) -> HttpResponse:
        await _check(guard, request)
        return await handler(request)

    return answer


async def _given(clients: Sequence[Inspected]) -> Sequence[Inspected]:
    return clients


async def _page(page: bytes, request: HttpRequest) -> HttpResponse:
    return HttpResponse(page, 200, "text/html; charset=utf-8")


async def _list(find: Clients, request: HttpRequest) -> HttpResponse:
    return json_response([ClientView(client.key, client.name) for client in await find()])


async def _rows(find: Clients, request: HttpRequest) -> HttpResponse:
    asked = request.query
    target = _pick(await find(), asked.get("client", ""))
    looking = look_at_rows(
        target, asked.get("store", ""), after=asked.get("after", ""), containing=asked.get("containing", "")
    )
    return await _answered(looking)


async def _plan(find: Clients, request: HttpRequest) -> HttpResponse:
    asked = _read(request, _Listed)  # its text may be longer than an address
    return await _answered(plan_of(_pick(await find(), asked.client), asked.store, asked.query))


async def _sql(find: Clients, request: HttpRequest) -> HttpResponse:
    asked = _read(request, _Asked)
    return await _answered(answer_sql(_pick(await find(), asked.client), asked.text))


class _Asked(msgspec.Struct, frozen=True):
    """A statement that somebody has written."""

    client: str
    text: str


class _Listed(msgspec.Struct, frozen=True):
    """A live query, as it is listed."""

    client: str
    store: str
    query: str


async def _log(find: Clients, request: HttpRequest) -> HttpResponse:
    """What has happened, the oldest first, as a file with one JSON object on each line."""
    target = _pick(await find(), request.query.get("client", ""))
    name = _WORD.sub("-", target.name)
    return HttpResponse(
        msgspec.json.Encoder().encode_lines(target.eye.log[::-1]),
        content_type="application/x-ndjson",
        headers={"content-disposition": f'attachment; filename="{name}-log.ndjson"'},
    )


async def _decide(find: Clients, kind: type[PageDecision], request: HttpRequest) -> HttpResponse:
    decision = _read(request, kind)
    client = _pick(await find(), decision.client).client

    async def decided() -> dict[str, int]:
        return {"decided": await decision.carry_out(client)}

    return await _answered(decided())


def _read(request: HttpRequest, kind: type[T]) -> T:
    try:
        return msgspec.convert(request.json(), kind)
    except msgspec.ValidationError as error:
        raise HttpError(400, f"that is not what is asked for here: {error}") from None


async def _answered(work: Awaitable[object]) -> HttpResponse:
    """What ``work`` gives as JSON, or why it cannot be done."""
    try:
        return json_response(await work)
    except AtomaError as error:
        status = 404 if isinstance(error, UnknownStore) else 400 if isinstance(error, QueryError) else 409
        return json_response({"error": {"code": error.code, "message": str(error)}}, status=status)


def _pick(clients: Sequence[Inspected], key: str) -> Inspected:
    found = next((client for client in clients if client.key == key), None)
    if found is None:
        raise HttpError(404, f"no client {key!r}; there are: {', '.join(client.key for client in clients)}")
    return found


class _Feed:
    """The states of one client, for any number of browsers."""

    def __init__(self, find: Clients, key: str, guard: Guard, hub: Callable[[], Awaitable[Hub]] | None) -> None:
        self._find = find
        self._hub = hub
        self._key = key
        self._guard = guard
        self._shared: tuple[Inspected, SharedLook] | None = None

    async def send(self, request: HttpRequest, send: EventSender) -> None:
        """Send the state whenever it is another one, until the browser leaves or the client is closed."""
        await _check(self._guard, request)
        clients = await self._find()
        target = _pick(clients, self._key)

        async def take(text: str) -> None:
            await send(text, event="state")

        try:
            await self._look_at(target, clients).read(take)
        except ClosedError:
            return

    def _look_at(self, target: Inspected, clients: Sequence[Inspected]) -> SharedLook:
        if self._shared is None or self._shared[0] != target:

            async def look() -> str:
                hub = None if self._hub is None else await self._hub()
                return msgspec.json.encode(await take_snapshot(target, clients, hub)).decode()

            self._shared = (target, SharedLook(look, target.eye.wait_event))
        return self._shared[1]
