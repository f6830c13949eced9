"""A server for the batch engine that exists in memory: it answers when and as the test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import ChannelBroken
from atoma_transports.http.client.messages import Reply, Request
from atoma_transports.http.envelope import ITEMS, MSGPACK, BatchRequest, Cancel, pack_record


def item(id: int, ok: object = None, error: ErrorInfo | None = None) -> bytes:
    """A record that answers one call of a batch."""
    body: dict[str, object] = {"id": id}
    body.update({"error": error} if error is not None else {"ok": ok})
    return pack_record("i", encode(body))


END = pack_record("z")


@dataclass(eq=False)
class Exchange:
    """One request as the server sees it, and the reply that the test gives it piece by piece."""

    request: Request
    calls: dict[int, object]
    batch: str
    cancelled: bool = False
    finished: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    begun: trio.Event = field(default_factory=trio.Event)
    parts: list[bytes | Exception] = field(default_factory=list)
    more: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    lost_before: bool = False

    @property
    def path(self) -> str:
        return self.request.path

    def begin(self, status: int = 200, content: str = "", **headers: str) -> None:
        """Send the head of the reply."""
        self.status = status
        kind = content or (ITEMS if self.batch else MSGPACK)
        self.headers = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.begun.set()

    def send(self, *parts: bytes | Exception) -> None:
        """Send parts of the body, or break it; ``b""`` is its end."""
        if not self.begun.is_set():
            self.begin()
        self.parts.extend(parts)
        self.more.unpark_all()

    def answer(self, *ids: int) -> None:
        """Answer some calls of a batch with what they brought, or the one that is alone."""
        for id in ids:
            self.send(item(id, self.calls[id]))

    def finish(self) -> None:
        """Answer what is left of nothing: the end of the body."""
        self.send(*([END] if self.batch else []), b"")

    def lose(self, *, sent: bool) -> None:
        """Break the connection before the head of the reply."""
        self.lost_before = not sent
        self.begun.set()

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    async def receive(self) -> bytes:
        while not self.parts:
            await self.more.park()
        await trio.lowlevel.checkpoint()
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part


async def nothing(exchange: Exchange) -> None:
    """Leaves every request to the test."""


class Script:
    """:class:`atoma_transports.http.client.messages.Requests` that a test answers.

    ``on_request`` is run for each exchange when it has arrived; ``exchanges`` has them all in order.
    """

    def __init__(self, on_request: Callable[[Exchange], Awaitable[None]] = nothing, delay_s: float = 0) -> None:
        self.exchanges: list[Exchange] = []
        self.on_request = on_request
        self.delay_s = delay_s
        self.open = 0
        self.peak = 0

    @asynccontextmanager
    async def post(self, request: Request) -> AsyncGenerator[Reply]:
        self.open += 1
        self.peak = max(self.peak, self.open)
        exchange: Exchange | None = None
        try:
            await trio.sleep(self.delay_s)  # connecting
            request.sent.set()
            exchange = arrived(request)
            self.exchanges.append(exchange)
            await self.on_request(exchange)
            await exchange.begun.wait()
            if not exchange.status:
                if exchange.lost_before:
                    request.sent = trio.Event()
                raise ChannelBroken("the wire broke", maybe_sent=not exchange.lost_before)
            yield exchange
            exchange.finished = True
        except trio.Cancelled:
            if exchange is not None:
                exchange.cancelled = True
            raise
        finally:
            self.open -= 1

    def paths(self) -> list[str]:
        return [exchange.path for exchange in self.exchanges]


def arrived(request: Request) -> Exchange:
    """What a server makes of ``request``."""
    if request.path == "/v1/batch":
        batch = decode(request.body, BatchRequest)
        calls: dict[int, object] = {call.id: msgspec.msgpack.decode(call.message) for call in batch.calls}
        return Exchange(request, calls, batch.id)
    if request.path == "/v1/cancel":
        cancel = decode(request.body, Cancel)
        return Exchange(request, {id: None for id in cancel.calls}, "")  # noqa: C420 - of objects, not of None
    return Exchange(request, {0: msgspec.msgpack.decode(request.body)}, "")


async def echo(exchange: Exchange) -> None:
    """Answers everything at once with what it brought."""
    if exchange.batch:
        exchange.answer(*exchange.calls)
        exchange.finish()
    elif exchange.path == "/v1/cancel":
        exchange.send(encode({}), b"")
    else:
        exchange.send(encode(exchange.calls[0]), b"")
