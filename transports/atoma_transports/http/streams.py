"""Streams of the protocol over HTTP: server-sent events for browsers and curl, records for our own client."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from atoma.contracts.codec import encode
from atoma.contracts.values import ErrorInfo
from atoma.ports.sessions import Session
from atoma.ports.tasks import open_tasks
from atoma_transports.calls.errors import LATE, STOPPING, explain, large_item, slow_reader
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.http.answers import COMMON, RefusedRequest
from atoma_transports.http.envelope import EVENTS, ITEMS, pack_record
from atoma_transports.http.messages import event_text
from atoma_transports.http.wire import Gone, ServerWire
from atoma_transports.protocol.json_mapping import encode_json
from atoma_transports.serving.handlers import Hosting


class StreamForm(Protocol):
    """The look of items in a body."""

    content_type: str
    begin: bytes
    alive: bytes

    def item(self, item: msgspec.Struct) -> bytes:
        """One item."""
        ...

    def end(self) -> bytes:
        """The regular end."""
        ...

    def error(self, info: ErrorInfo) -> bytes:
        """The end, and why."""
        ...


class Events:
    """Server-sent events: ``hint``, ``end``, ``error``; the data is JSON."""

    content_type = EVENTS
    begin = b": hello\n\n"
    alive = b": still here\n\n"

    def item(self, item: msgspec.Struct) -> bytes:
        """See :class:`StreamForm`."""
        return event_text(encode_json(item).decode(), type(item).__name__.lower()).encode()

    def end(self) -> bytes:
        """See :class:`StreamForm`."""
        return event_text("{}", "end").encode()

    def error(self, info: ErrorInfo) -> bytes:
        """See :class:`StreamForm`."""
        return event_text(encode_json(info).decode(), "error").encode()


class Records:
    """Records of msgpack; see :func:`atoma_transports.http.envelope.pack_record`."""

    content_type = ITEMS
    begin = b""
    alive = pack_record("p")

    def item(self, item: msgspec.Struct) -> bytes:
        """See :class:`StreamForm`."""
        return pack_record("i", encode(item))

    def end(self) -> bytes:
        """See :class:`StreamForm`."""
        return pack_record("z")

    def error(self, info: ErrorInfo) -> bytes:
        """See :class:`StreamForm`."""
        return pack_record("e", encode(info))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream that was asked for.

    Attributes:
        method: What was called.
        feed: Makes the items, for whoever asks.
        message: The request.
        form: What the items are to look like.
        deadline: The caller's.
        trace_id: The caller's.
    """

    method: str
    feed: Callable[[msgspec.Struct], AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]]
    message: msgspec.Struct
    form: StreamForm
    deadline: float
    trace_id: str


async def answer_stream(wire: ServerWire, hosting: Hosting, admitted: Session, wanted: Wanted) -> None:
    """Send items until the feed ends, the deadline or the token passes, the server ends, or the client leaves.

    Raises:
        Gone: The client has left.
        Refused: The feed did not open before the deadline or the end of the token.
        AtomaError: The feed refuses to open: nothing has been sent yet, so that a status says why.
    """

    async def whole() -> None:
        async with open_tasks() as nursery:
            writer = BodyWriter(wire, hosting.limits)
            writer.put_now(wanted.form.begin)
            ended = trio.Event()
            with admitted.stream(), trio.CancelScope(deadline=wanted.deadline) as opening:
                await nursery.start(_feed, writer, hosting, admitted, wanted, ended)
            if opening.cancelled_caught:
                raise RefusedRequest(LATE)
            await _begin(wire, hosting, wanted.form, writer, nursery)
            await ended.wait()
            await writer.flushed()
            nursery.cancel_scope.cancel()

    await wire.attended(whole)
    await wire.write(wire.end())


async def answer_in_parts(
    wire: ServerWire, hosting: Hosting, form: StreamForm, work: Callable[[BodyWriter], Awaitable[None]]
) -> None:
    """An answer whose parts ``work`` puts into the writer; all are sent when this returns.

    Raises:
        Gone: The client has left, and ``work`` was cancelled.
    """

    async def whole() -> None:
        async with open_tasks() as nursery:
            writer = BodyWriter(wire, hosting.limits)
            writer.put_now(form.begin)
            await _begin(wire, hosting, form, writer, nursery)
            await work(writer)
            await writer.flushed()
            nursery.cancel_scope.cancel()

    await wire.attended(whole)
    await wire.write(wire.end())


async def _begin(
    wire: ServerWire, hosting: Hosting, form: StreamForm, writer: BodyWriter, nursery: trio.Nursery
) -> None:
    own = [(b"content-type", form.content_type.encode()), (b"x-accel-buffering", b"no"), *COMMON]
    if form.content_type == EVENTS:
        own.append((b"connection", b"close"))
    await wire.write(wire.begin(200, own))
    nursery.start_soon(writer.run)
    nursery.start_soon(_stay_alive, writer, form, hosting.limits.ping_s)


async def _stay_alive(writer: BodyWriter, form: StreamForm, every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        if not writer.busy:
            writer.put_now(form.alive)


async def _feed(
    writer: BodyWriter,
    hosting: Hosting,
    admitted: Session,
    wanted: Wanted,
    ended: trio.Event,
    task_status: trio.TaskStatus[None],
) -> None:
    """Put every item and the end, and set ``ended``; the feed is closed before a slow reader has taken them."""
    refused: ErrorInfo | None = None
    begun = False
    try:
        async with wanted.feed(wanted.message) as items:
            begun = True
            task_status.started()
            refused = await _fed(writer, hosting, admitted, wanted, items)
    except Exception as error:
        if not begun:
            raise
        refused = refused or explain(error, wanted.method, wanted.trace_id)
    writer.put_now(wanted.form.end() if refused is None else wanted.form.error(refused))
    ended.set()


async def _fed(
    writer: BodyWriter, hosting: Hosting, admitted: Session, wanted: Wanted, items: AsyncIterator[msgspec.Struct]
) -> ErrorInfo | None:
    """Put every item; why it ended before the end, if it did."""
    refused: list[ErrorInfo] = []
    async with open_tasks() as nursery:

        async def drained() -> None:
            await hosting.drain.wait()
            refused.append(STOPPING)
            nursery.cancel_scope.cancel()

        nursery.start_soon(drained)
        try:
            with admitted.stream(), trio.CancelScope(deadline=wanted.deadline) as scope:
                refused.extend(await _put_items(writer, hosting, wanted, items))
            if scope.cancelled_caught:
                refused.append(LATE)
        except Exception as error:  # whatever a feed raises, or the end of the session, is sent to the reader
            refused.append(explain(error, wanted.method, wanted.trace_id))
        nursery.cancel_scope.cancel()
    return refused[0] if refused else None


async def _put_items(
    writer: BodyWriter, hosting: Hosting, wanted: Wanted, items: AsyncIterator[msgspec.Struct]
) -> tuple[ErrorInfo, ...]:
    try:
        async for item in items:
            data = wanted.form.item(item)
            if len(data) > hosting.limits.frame_bytes:
                return (large_item(len(data)),)
            if not await writer.put(data):
                return (slow_reader(hosting.limits.slow_s),)
    finally:
        if isinstance(items, AsyncGenerator):  # left half-way, it would wait for the garbage collector
            await items.aclose()
    return ()


class BodyWriter:
    """A sender of parts in order, in a task of its own, so that their maker is never cancelled in the middle of one.

    Bounded in parts and bytes; what has gathered while the client was taking the last goes out together.
    """

    def __init__(self, wire: ServerWire, limits: ChannelLimits) -> None:
        self._wire = wire
        self._limits = limits
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._sending = False
        self._work = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()

    async def put(self, part: bytes) -> bool:
        """Queue ``part``; false when there was no room for ``limits.slow_s``, since the client takes nothing."""
        if self._full(len(part)):
            with trio.move_on_after(self._limits.slow_s) as patience:
                while self._full(len(part)):
                    await self._space.park()
            if patience.cancelled_caught:
                return False
        self.put_now(part)
        return True

    def put_now(self, part: bytes) -> None:
        """Queue ``part`` without waiting: for the first and the last one, and signs of life."""
        if not part:
            return
        self._parts.append(part)
        self._bytes += len(part)
        self._wire.share.hold(answers=len(part))
        self._work.unpark()

    @property
    def busy(self) -> bool:
        """Whether something waits to be sent."""
        return self._sending or bool(self._parts)

    async def flushed(self) -> None:
        """Wait until everything is sent."""
        while self.busy:
            await self._space.park()

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            Gone: The client has left, or takes nothing for twice as long as it may.
        """
        while True:
            while not self._parts:
                await self._work.park()
            data = b"".join(self._parts)
            self._parts.clear()
            self._wire.share.hold(answers=-self._bytes)  # from here on the wire counts them
            self._bytes = 0
            self._sending = True
            self._space.unpark_all()
            with trio.move_on_after(2 * self._limits.slow_s) as patience:
                await self._wire.write(self._wire.part(data))
            if patience.cancelled_caught:
                raise Gone
            self._sending = False
            self._space.unpark_all()

    def _full(self, size: int) -> bool:
        return bool(self._parts) and (
            len(self._parts) >= self._limits.window
            or self._bytes + size > self._limits.queue_bytes
            or not self._wire.share.fits(size)
        )
