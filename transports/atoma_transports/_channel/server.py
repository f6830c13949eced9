"""The answering end of a connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, AuthenticationError, ProtocolError
from atoma.ports import Peer, ServiceHost, SyncService
from atoma.ports.tasks import open_tasks
from atoma_transports._channel.codes import info_of, refusal
from atoma_transports._channel.explaining import explain
from atoma_transports._channel.frames import (
    CLIENT_KINDS,
    Auth,
    Frame,
    FrameKind,
    Welcome,
    deadline_of,
    decode_frame,
    encode_frame,
)
from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.outgoing import Outgoing, Ticket
from atoma_transports._channel.pipe import LOST, MessagePipe, close_pipe
from atoma_transports._channel.pulse import until_mute

logger = logging.getLogger("atoma.transports")

Answer: TypeAlias = Callable[[SyncService, msgspec.Struct], Awaitable[msgspec.Struct]]
Feed: TypeAlias = Callable[[SyncService, msgspec.Struct], AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]]


@dataclass(frozen=True, slots=True)
class Served:
    """How one method is answered: ``answer`` for a call, ``feed`` for a stream.

    Attributes:
        request: Type of the request.
        answer: Makes the reply.
        feed: Makes the items.
    """

    request: type[msgspec.Struct]
    answer: Answer | None = None
    feed: Feed | None = None


ServedTable: TypeAlias = Mapping[str, Served]


class _Credit:
    """How many items of a stream the client is ready to take."""

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, amount: int, most: int) -> None:
        self._amount = min(most, self._amount + amount)
        self._lot.unpark_all()

    async def take(self) -> None:
        while self._amount <= 0:
            await self._lot.park()
        self._amount -= 1


@dataclass(slots=True, eq=False)
class _Running:
    """One call being answered."""

    scope: trio.CancelScope
    credit: _Credit | None = None
    stop: ErrorInfo | None = None


class ServerConnection:
    """One authenticated connection. Made by :func:`serve_connection`."""

    def __init__(
        self, pipe: MessagePipe, served: ServedTable, service: SyncService, limits: ChannelLimits, drain: trio.Event
    ) -> None:
        self.pipe = pipe
        self.served = served
        self.service = service
        self.limits = limits
        self.drain = drain
        self.running: dict[int, _Running] = {}
        self.tasks = 0  # answers under way, those included that the caller has given up and that are winding down
        self.heard = trio.current_time()
        self.idle = trio.lowlevel.ParkingLot()
        self.out = Outgoing(limits.queue_bytes, limits.slow_s)

    async def run(self) -> None:
        """Answer until the connection ends or ``drain`` has been set and everything is answered."""
        async with open_tasks() as nursery:
            for part in (self._write, self._watch, self._wait_drained):
                nursery.start_soon(self._until_lost, part, nursery.cancel_scope)
            try:
                await self._read(nursery)
            except LOST:
                pass
            except ProtocolError as error:
                self._say("error", 0, encode(info_of(error)))
                await self._flush()
            nursery.cancel_scope.cancel()

    async def _until_lost(self, part: Callable[[], Awaitable[None]], connection: trio.CancelScope) -> None:
        try:
            await part()
        except (*LOST, trio.TooSlowError):
            pass
        self.out.close()
        connection.cancel()

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            frame = decode_frame(await self.pipe.receive(), self.limits.frame_bytes)
            self.heard = trio.current_time()
            self._take(frame, nursery)

    async def _write(self) -> None:
        await self.out.run(self.pipe)

    async def _watch(self) -> None:
        await until_mute(lambda: self.heard, lambda: self._say("ping"), self.limits)

    async def _wait_drained(self) -> None:
        await self.drain.wait()
        for call in self.running.values():
            if call.credit is not None:
                call.stop = refusal("UNAVAILABLE", "the server is shutting down")
                call.scope.cancel()
        while self.tasks:
            await self.idle.park()
        await self._flush()

    async def _flush(self) -> None:
        with trio.move_on_after(self.limits.close_s):
            await self.out.flushed()

    def _say(self, kind: FrameKind, id: int = 0, payload: bytes = b"") -> None:
        try:
            self.out.put_now(Ticket(encode_frame(kind, id, payload)))
        except trio.BrokenResourceError:
            pass  # the connection is ending

    def _take(self, frame: Frame, nursery: trio.Nursery) -> None:
        if frame.kind not in CLIENT_KINDS:
            raise ProtocolError(f"a client must not send {frame.kind!r} frames here")
        if frame.kind == "ping":
            self._say("pong")
        elif frame.kind in ("call", "stream"):
            self._start(frame, nursery)
        elif (call := self.running.get(frame.id)) is not None:
            if frame.kind == "cancel":
                call.scope.cancel()
                del self.running[frame.id]
            elif frame.kind == "credit" and call.credit is not None:
                call.credit.add(frame.credit, self.limits.window * 4)

    def _start(self, frame: Frame, nursery: trio.Nursery) -> None:
        """Begin to answer; a frame that came twice while its call is running is dropped."""
        if frame.id == 0:
            raise ProtocolError("a call needs an id")
        if frame.id in self.running:
            return
        refused = self._refusal(frame)
        if refused is not None:
            self._say("error", frame.id, encode(refused))
            return
        credit = _Credit(min(frame.credit, self.limits.window * 4)) if frame.kind == "stream" else None
        call = _Running(trio.CancelScope(deadline=deadline_of(frame.budget_ms)), credit)
        self.running[frame.id] = call
        self.tasks += 1
        nursery.start_soon(self._answer, frame, call)

    def _refusal(self, frame: Frame) -> ErrorInfo | None:
        served = self.served.get(frame.method)
        if served is None or (served.feed is not None) != (frame.kind == "stream"):
            return refusal("UNIMPLEMENTED", "no such method here")
        if self.drain.is_set():
            return refusal("UNAVAILABLE", "the server is shutting down")
        if len(self.running) >= self.limits.calls or self.tasks >= 2 * self.limits.calls:
            text = f"more than {self.limits.calls} calls in flight on one connection"
            return refusal("OVERLOADED", text, retry_after_ms=100)
        return None

    async def _answer(self, frame: Frame, call: _Running) -> None:
        """Answer one call; whatever it raises goes to its caller and harms nobody else."""
        refused: ErrorInfo | None = None
        payload = b""
        try:
            with call.scope:
                if call.credit is None:
                    payload = await self._reply(frame)
                else:
                    refused = await self._stream(frame, call.credit)
            if call.scope.cancelled_caught:
                refused = call.stop or refusal("TIMEOUT", "the caller's deadline has passed")
        except Exception as error:  # whatever a handler raises is answered, and logged when unexpected
            refused = explain(error, frame.method, frame.trace_id)
        finally:
            self.tasks -= 1
            if self.running.get(frame.id) is call:
                del self.running[frame.id]
                wanted = True
            else:
                wanted = False  # cancelled by the caller
            self.idle.unpark_all()
        if wanted:
            await self._send_answer(frame, payload, refused, streams=call.credit is not None)

    async def _send_answer(self, frame: Frame, payload: bytes, refused: ErrorInfo | None, *, streams: bool) -> None:
        if refused is not None:
            data = encode_frame("error", frame.id, encode(refused))
        else:
            data = encode_frame("end" if streams else "reply", frame.id, payload)
        if len(data) > self.limits.frame_bytes:
            text = f"the answer takes {len(data)} bytes; the limit is {self.limits.frame_bytes}: ask for less"
            data = encode_frame("error", frame.id, encode(refusal("TOO_LARGE", text)))
        try:
            await self.out.put(Ticket(data))
        except trio.BrokenResourceError:
            pass  # the connection is ending

    async def _reply(self, frame: Frame) -> bytes:
        served = self.served[frame.method]
        assert served.answer is not None
        return encode(await served.answer(self.service, decode(frame.payload, served.request)))

    async def _stream(self, frame: Frame, credit: _Credit) -> ErrorInfo | None:
        served = self.served[frame.method]
        assert served.feed is not None
        async with served.feed(self.service, decode(frame.payload, served.request)) as items:
            try:
                return await self._send_items(frame, credit, items)
            finally:
                if isinstance(items, AsyncGenerator):  # left half-way, it would wait for the garbage collector
                    await items.aclose()

    async def _send_items(
        self, frame: Frame, credit: _Credit, items: AsyncIterator[msgspec.Struct]
    ) -> ErrorInfo | None:
        async for item in items:
            data = encode_frame("item", frame.id, encode(item))
            if len(data) > self.limits.frame_bytes:
                return refusal("TOO_LARGE", f"an item takes {len(data)} bytes")
            with trio.move_on_after(self.limits.slow_s) as patience:
                await credit.take()
            if patience.cancelled_caught:
                return refusal("SLOW_CONSUMER", f"nothing was taken from the stream for {self.limits.slow_s:g} s")
            await self.out.put(Ticket(data))
        return None


async def serve_connection(
    pipe: MessagePipe,
    served: ServedTable,
    host: ServiceHost,
    peer: Peer,
    *,
    limits: ChannelLimits,
    drain: trio.Event,
) -> None:
    """Authenticate and answer one connection until it ends; the pipe is closed at the end.

    Raises nothing but cancellation: what goes wrong concerns this connection only.
    """
    try:
        service = await _welcome(pipe, host, peer, limits)
        if service is not None:
            await ServerConnection(pipe, served, service, limits, drain).run()
    except LOST:
        pass
    except Exception:
        logger.exception("a connection from %s ended by an error", peer.address)
    finally:
        await close_pipe(pipe, limits.close_s)


async def _welcome(pipe: MessagePipe, host: ServiceHost, peer: Peer, limits: ChannelLimits) -> SyncService | None:
    """The service for whoever is at the other end; None when they may not come in."""
    refused = refusal("UNAUTHENTICATED", f"no token came within {limits.handshake_s:g} s")
    with trio.move_on_after(limits.handshake_s):
        try:
            frame = decode_frame(await pipe.receive(), limits.first_frame_bytes)
            if frame.kind != "auth":
                raise AuthenticationError("the first frame has to be 'auth'")
            principal = await host.authenticate(decode(frame.payload, Auth).token, peer)
            service = host.service(principal)
            welcome = Welcome(principal.subject, limits.frame_bytes, limits.calls)
            await pipe.send(encode_frame("welcome", payload=encode(welcome)))
            return service
        except AtomaError as error:
            refused = info_of(error)
        except LOST:
            return None
        except Exception:
            logger.exception("authenticating a connection from %s failed", peer.address)
            refused = refusal("INTERNAL", "the server failed to authenticate; its log says why")
    with trio.move_on_after(limits.close_s):
        await pipe.send(encode_frame("error", payload=encode(refused)))
    return None
