"""A live query for a page: as server-sent events to a GET, as text messages to a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, suppress
from typing import Generic, TypeVar

import msgspec

from atoma.bindings.aio import Client, Lifetime
from atoma.bindings.asgi.messages import GOING_AWAY, Message, Receive, Scope, Send, may_ask, refuse, until_gone
from atoma.errors import AtomaError, ClosedError
from atoma.ports.live import LiveBatch
from atoma.query import Query
from atoma_transports.serving.sites import Sites

T = TypeVar("T")

QUIET_S = 15.0
"""After so many seconds without a batch a comment is sent, so that nobody on the way takes the connection for dead."""
END_S = 1.0
"""How long a page that reads nothing may take to be told the end, in seconds."""
FOLLOWERS_MAX = 1000
"""Pages that one application serves at a time."""


class LiveApp(Generic[T]):
    """An ASGI application that serves one live query, which may depend on the request.

    The first batch is the whole result. A page that is slow gets what it missed as one ``reset``: nothing grows.

    Args:
        client: Gives the open client; it is called for each request.
        query: What to follow for a request; raise an :class:`AtomaError` to refuse it (403), with its words. Look at the
            request's user here: whoever reaches this application may read what the query gives.
        origins: Pages of other sites that may follow it over a WebSocket, ``"https://app.example.org"``.
    """

    def __init__(
        self, client: Callable[[], Client], query: Callable[[Scope], Query[T]], *, origins: Collection[str] = ()
    ) -> None:
        self._client = client
        self._query = query
        self._sites = Sites(origins)
        self._followers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request until the page or the client has gone."""
        if scope["type"] not in ("http", "websocket"):
            return
        if not may_ask(scope, self._sites):
            await refuse(scope, send, 403, "requests from other sites are refused")
            return
        if self._followers >= FOLLOWERS_MAX:
            await refuse(scope, send, 503, "too many pages follow this")
            return
        try:
            lifetime = self._client().live(self._query(scope))
        except AtomaError as error:
            await refuse(scope, send, 403, str(error))
            return
        self._followers += 1
        try:
            await self._serve(scope, receive, send, lifetime)
        finally:
            self._followers -= 1

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, lifetime: Lifetime[AsyncIterator[LiveBatch[T]]]
    ) -> None:
        """Send batches until the page has gone, which is looked for beside it."""
        tell = _tell_socket if scope["type"] == "websocket" else _tell_events
        if scope["type"] == "websocket":
            await receive()
        async with AsyncExitStack() as stack:
            try:
                batches = await stack.enter_async_context(lifetime)
            except AtomaError as error:
                await refuse(scope, send, 503, str(error))
                return
            tasks = [asyncio.create_task(tell(batches, send)), asyncio.create_task(until_gone(receive))]
            stopped = False
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                # a server that stops calls off what still answers: that is how an endless answer ends, and no failure
                stopped = True
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        if stopped:
            await _end(scope, send)
        for end in ended:
            if isinstance(end, Exception) and not isinstance(end, OSError):  # that a page has gone is not an error
                raise end


async def _end(scope: Scope, send: Send) -> None:
    """End an answer that was begun, where the server still takes it."""
    last: Message = {"type": "http.response.body", "body": b""}
    if scope["type"] == "websocket":
        last = {"type": "websocket.close", "code": GOING_AWAY}
    with suppress(Exception):  # whatever the server raises when there is nobody to send to
        async with asyncio.timeout(END_S):
            await send(last)


async def _tell_events(batches: AsyncIterator[LiveBatch[T]], send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        try:
            async with asyncio.timeout(QUIET_S):
                batch = await anext(batches)
        except TimeoutError:
            text = b": nothing new\n\n"
        except ClosedError:
            await send({"type": "http.response.body", "body": b""})
            return
        else:
            text = b"event: batch\nid: %d\ndata: %b\n\n" % (batch.commit, as_json(batch))
        await send({"type": "http.response.body", "body": text, "more_body": True})


async def _tell_socket(batches: AsyncIterator[LiveBatch[T]], send: Send) -> None:
    await send({"type": "websocket.accept"})
    try:
        async for batch in batches:
            await send({"type": "websocket.send", "text": as_json(batch).decode()})
    except ClosedError:
        await send({"type": "websocket.close", "code": GOING_AWAY})


def as_json(batch: LiveBatch[T]) -> bytes:
    """A batch as a page reads it: ``{"commit": 7, "changes": [{"type": "insert", "at": 0, "row": {…}}], "completeness": {…}}``."""
    changes = [
        {"type": type(change).__name__.lower(), **{name: getattr(change, name) for name in change.__struct_fields__}}
        for change in batch.changes
    ]
    return msgspec.json.encode({"commit": batch.commit, "changes": changes, "completeness": batch.completeness})
