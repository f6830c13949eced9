"""The answering end of a connection."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from atoma.contracts.codec import encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ProtocolError, RemoteError
from atoma.ports import Peer, ServiceHost
from atoma.ports.sessions import Session, session_ended
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import check_subject, deadline_of
from atoma_transports.calls.errors import (
    CUT_OFF,
    LATE,
    STOPPING,
    UNVERIFIED,
    explain,
    info_of,
    large_answer,
    large_item,
    memory_taken,
    slow_reader,
)
from atoma_transports.calls.fairness import Fairness, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import AnswerCall, Method
from atoma_transports.calls.requests import MESSAGEPACK, HeldAnswers, check_size, read_request, size_max
from atoma_transports.frames.envelope import CLIENT_KINDS, Frame, FrameKind, decode_frame, encode_frame
from atoma_transports.frames.handshake import first_session, session_for, welcome
from atoma_transports.frames.outgoing import Outgoing, Ticket
from atoma_transports.frames.pipe import LOST, MessagePipe, Pulse, close_pipe, explain_close, until_mute

logger = logging.getLogger("atoma.transports")

RENEWALS_REFUSED_MAX = 3  # a client that sends this many bad tokens in a row has to connect again
EXPIRED = refusal("AUTH_EXPIRED", "the token of this connection has expired: send a new one, or connect again")
CHANGED = refusal("UNAVAILABLE", "the rights of this connection have changed: ask again")


class _Credit:
    """The number of items of a stream that the client is ready to take."""

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, amount: int, most: int) -> None:
        self._amount = min(most, self._amount + amount)
        self._lot.unpark_all()

    async def take(self, patience_s: float) -> bool:
        """Use up one item; False if none was granted within ``patience_s`` seconds."""
        if self._amount <= 0:
            with trio.move_on_after(patience_s):
                while self._amount <= 0:
                    await self._lot.park()
        if self._amount <= 0:
            return False
        self._amount -= 1
        return True


@dataclass(slots=True, eq=False)
class _Running:
    """One call that is being answered."""

    scope: trio.CancelScope
    credit: _Credit | None = None
    stop: ErrorInfo | None = None


class ServerConnection:
    """One authenticated connection; made by :func:`serve_pipe`."""

    def __init__(
        self,
        pipe: MessagePipe,
        host: ServiceHost,
        peer: Peer,
        session: Session,
        limits: ChannelLimits,
        drain: trio.Event,
        share: Share,
        *,
        counted: bool,
    ) -> None:
        self._pipe = pipe
        self._host = host
        self._peer = peer
        self._session = session
        self._limits = limits
        self._drain = drain
        self._share = share
        self._counted = counted
        self._running: dict[int, _Running] = {}
        self._tasks = 0  # answers in progress, given up but winding down, or waiting to be sent
        self._idle = trio.lowlevel.ParkingLot()
        self._out = Outgoing(pipe, limits.queue_bytes, limits.slow_s, share)
        self._held = HeldAnswers(limits.queue_bytes, share)
        self._pulse = Pulse(pipe, lambda: self._say("pong"), limits)
        self._renewing = False
        self._renewals_refused = 0
        self._renewed = trio.lowlevel.ParkingLot()
        self._watches_token = False

    @property
    def session(self) -> Session:
        """The session of the client."""
        return self._session

    async def run(self) -> None:
        """Answer until the connection ends, or until ``drain`` is set and everything has been answered."""
        async with open_tasks() as nursery:
            for part in (self._write, self._watch, self._wait_drained):
                nursery.start_soon(self._until_lost, part, nursery.cancel_scope)
            self._share.ends_by(partial(self._give_way, nursery.cancel_scope))
            self._use(self._session, nursery)
            try:
                await self._read(nursery)
            except LOST:
                pass
            except AtomaError as error:  # the peer violates the protocol, or says why it disconnects
                await self._dismiss(info_of(error))
            nursery.cancel_scope.cancel()

    def _use(self, session: Session, nursery: trio.Nursery) -> None:
        """Continue with ``session``; the previous one has ended."""
        before, self._session = self._session, session
        if before is not session:
            session.since_ms = before.since_ms
            before.close()

        def changed() -> None:
            self._renewed.unpark_all()
            if not self._watches_token and not math.isinf(session.expires_at):  # one that never expires costs no task
                self._watches_token = True
                nursery.start_soon(self._until_lost, self._until_expired, nursery.cancel_scope)

        def end(reason: RemoteError) -> None:
            """End everything that is in progress now, and the connection once the client has been sent the reason."""
            info = info_of(reason)
            self._stop(info, streams_only=False)
            nursery.start_soon(self._until_lost, partial(self._leave, info), nursery.cancel_scope)

        session.on_change, session.on_end = changed, end
        changed()
        if session.ended:
            end(session_ended(session.ended))

    def _give_way(self, connection: trio.CancelScope) -> None:
        """End the connection, on which nothing moves, as others of the same principal need its memory."""
        explain_close(self._pipe, memory_taken(self._limits.memory_bytes))
        self._out.close()
        connection.cancel()

    async def _until_lost(self, part: Callable[[], Awaitable[None]], connection: trio.CancelScope) -> None:
        try:
            await part()
        except LOST:
            pass
        except trio.TooSlowError:
            explain_close(self._pipe, refusal("SLOW_CONSUMER", "nothing was taken for too long"))
        self._out.close()
        connection.cancel()

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            data = await self._pipe.receive()
            frame = decode_frame(data, self._limits.frame_bytes)
            self._pulse.frame_at = trio.current_time()
            self._take(frame, nursery)
            await self._out.room()  # otherwise the answers for a client that reads nothing would pile up here
            if await self._share.read_on():
                self._pulse.frame_at = trio.current_time()
            if not self._counted:
                self._share.came(len(data))
                self._share.unit(len(data))
                if self._share.is_over():
                    await self._share.turn()
                    self._pulse.frame_at = trio.current_time()

    async def _write(self) -> None:
        await self._out.run()

    async def _watch(self) -> None:
        await until_mute(self._pulse, lambda: self._say("ping"), self._limits)

    async def _wait_drained(self) -> None:
        await self._drain.wait()
        self._stop(STOPPING)
        while self._tasks:
            await self._idle.park()
        explain_close(self._pipe, STOPPING)
        await self._flush()

    async def _until_expired(self) -> None:
        """Return once a token has expired and no new one has arrived in time to save the connection."""
        while True:
            with trio.CancelScope(deadline=self._session.expires_at):
                await self._renewed.park()
            if not self._session.expired:
                continue
            self._stop(EXPIRED)
            with trio.move_on_after(self._limits.expired_s):
                await self._renewed.park()
            if self._session.expired:
                return await self._dismiss(EXPIRED)

    def _stop(self, reason: ErrorInfo, *, streams_only: bool = True) -> None:
        """End everything that is in progress, or only the streams."""
        for call in self._running.values():
            if call.credit is not None or not streams_only:
                call.stop = reason
                call.scope.cancel()

    async def _leave(self, reason: ErrorInfo) -> None:
        """Let the stopped calls report why to their callers, then send the client the reason; the caller ends the connection."""
        with trio.move_on_after(self._limits.close_s):
            while self._tasks:
                await self._idle.park()
        await self._dismiss(reason)

    async def _dismiss(self, reason: ErrorInfo) -> None:
        """Send the client the reason why the connection ends; the caller ends it."""
        explain_close(self._pipe, reason)
        self._say("error", 0, encode(reason))
        await self._flush()

    async def _flush(self) -> None:
        with trio.move_on_after(self._limits.close_s):
            await self._out.flushed()

    def _say(self, kind: FrameKind, id: int = 0, payload: bytes = b"") -> None:
        try:
            self._out.put_now(Ticket(encode_frame(kind, id, payload)))
        except trio.BrokenResourceError:
            pass  # the connection is ending

    def _take(self, frame: Frame, nursery: trio.Nursery) -> None:
        kind = frame.kind
        if kind == "call" or kind == "stream":
            self._start(frame, nursery)
        elif kind == "ping":
            self._say("pong")
        elif kind == "auth":
            self._start_renewal(frame, nursery)
        elif kind not in CLIENT_KINDS:
            raise _unexpected(kind)
        elif (call := self._running.get(frame.id)) is not None:
            if kind == "cancel":
                call.scope.cancel()
                del self._running[frame.id]
            elif kind == "credit" and call.credit is not None:
                call.credit.add(frame.credit, self._limits.window * 4)

    def _start_renewal(self, frame: Frame, nursery: trio.Nursery) -> None:
        if self._renewing:
            busy = refusal("RATE_LIMITED", "a new token is being looked at already", retry_after_ms=1000)
            self._say("error", frame.id, encode(busy))
            return
        self._renewing = True
        nursery.start_soon(self._renew, frame, nursery)

    async def _renew(self, frame: Frame, nursery: trio.Nursery) -> None:
        """Continue with the token in ``frame``: a bad one changes nothing, one of another subject ends the connection."""
        found: Session | ErrorInfo = UNVERIFIED
        with trio.move_on_after(self._limits.handshake_s):
            found = await session_for(frame, self._host, self._peer)
        self._renewing = False
        ends = False
        if isinstance(found, Session):
            try:
                check_subject(self._session.principal.subject, found.principal.subject)
            except RemoteError as error:
                found.close()
                found, ends = info_of(error), True
        if isinstance(found, Session):
            self._renewals_refused = 0
            if found.principal.claims != self._session.principal.claims:
                self._stop(CHANGED)
            self._use(found, nursery)
            self._say("welcome", frame.id, welcome(found, self._limits, self._host))
            return
        if not ends:
            self._renewals_refused += 1
            ends = self._renewals_refused >= RENEWALS_REFUSED_MAX
        self._say("error", frame.id, encode(found))
        if ends:
            await self._dismiss(found)
            self._out.close()
            nursery.cancel_scope.cancel()

    def _start(self, frame: Frame, nursery: trio.Nursery) -> None:
        """Begin to answer; a frame that is repeated while its call is running is dropped."""
        if frame.id == 0:
            raise _unexpected("a call without an id")
        if frame.id in self._running:
            return
        served = METHODS.get(frame.method)
        refused = self._refusal(frame, served)
        if served is None or refused is not None:
            assert refused is not None
            self._say("error", frame.id, encode(refused))
            return
        credit = _Credit(min(frame.credit, self._limits.window * 4)) if served.feed is not None else None
        call = _Running(trio.CancelScope(deadline=deadline_of(frame.budget_ms)), credit)
        self._running[frame.id] = call
        self._tasks += 1
        self._share.hold(requests=len(frame.payload))
        nursery.start_soon(self._answer, frame, call, served)

    def _refusal(self, frame: Frame, served: Method | None) -> ErrorInfo | None:
        if served is None or (served.feed is not None) != (frame.kind == "stream"):
            return refusal("UNIMPLEMENTED", "no such method here")
        if self._drain.is_set():
            return STOPPING
        if self._session.ended:
            return info_of(session_ended(self._session.ended))
        if self._session.expired:
            return EXPIRED
        if len(self._running) >= self._limits.calls or self._tasks >= 2 * self._limits.calls:
            text = f"more than {self._limits.calls} calls in flight on one connection"
            return refusal("OVERLOADED", text, retry_after_ms=100)
        try:
            self._share.check_rate()
        except RemoteError as error:
            return info_of(error)
        return None

    async def _answer(self, frame: Frame, call: _Running, served: Method) -> None:
        """Answer one call; whatever the handler raises goes to the caller and affects nobody else."""
        refused: ErrorInfo | None = None
        payload = b""
        try:
            with call.scope:
                check_size(len(frame.payload), size_max(served, self._limits, MESSAGEPACK))
                request = await read_request(frame.payload, served.request, MESSAGEPACK, self._share)
                self._share.earned(len(frame.payload))
                if served.answer is not None:
                    make = partial(self._made, served.answer, request)
                    payload = await self._held.take(make, reads=served.reads)
                else:
                    refused = await self._stream(frame.id, call, served, request)
            if call.scope.cancelled_caught:
                refused = call.stop or LATE
        except Exception as error:  # whatever a handler raises is sent to the caller, and logged if it was unexpected
            refused = explain(error, frame.method, frame.trace_id)
        finally:
            if self._running.get(frame.id) is call:
                del self._running[frame.id]
                wanted = True
            else:
                wanted = False  # cancelled by the caller
        if wanted:
            await self._send_answer(frame.id, payload, refused, streams=call.credit is not None)
        if payload:
            self._held.give(len(payload))
        self._share.hold(requests=-len(frame.payload))
        self._tasks -= 1
        if not self._tasks:
            self._idle.unpark_all()

    async def _made(self, answer: AnswerCall, request: msgspec.Struct) -> bytes:
        return encode(await answer(self._session.service, request))

    async def _send_answer(self, id: int, payload: bytes, refused: ErrorInfo | None, *, streams: bool) -> None:
        await self._out.space(len(payload))  # what waits is there once, and not as a frame besides
        if refused is not None:
            data = encode_frame("error", id, encode(refused))
        else:
            data = encode_frame("end" if streams else "reply", id, payload)
        if len(data) > self._limits.frame_bytes:
            data = encode_frame("error", id, encode(large_answer(len(data), self._limits.frame_bytes)))
        try:
            self._out.put_now(Ticket(data))
        except trio.BrokenResourceError:
            pass  # the connection is ending

    async def _stream(self, id: int, call: _Running, served: Method, request: msgspec.Struct) -> ErrorInfo | None:
        assert served.feed is not None
        assert call.credit is not None
        async with served.feed(self._session.service, request) as items:
            try:
                return await self._send_items(id, call.credit, items)
            finally:
                if isinstance(items, AsyncGenerator):  # one that is left half-way would wait for the garbage collector
                    await items.aclose()

    async def _send_items(self, id: int, credit: _Credit, items: AsyncIterator[msgspec.Struct]) -> ErrorInfo | None:
        async for item in items:
            data = encode_frame("item", id, encode(item))
            if len(data) > self._limits.frame_bytes:
                return large_item(len(data))
            if not await credit.take(self._limits.slow_s):
                return slow_reader(self._limits.slow_s)
            await self._out.put(Ticket(data))
        return None


def _unexpected(what: str) -> AtomaError:
    return ProtocolError(f"a client must not send {what!r} frames here")


async def serve_pipe(
    pipe: MessagePipe,
    host: ServiceHost,
    peer: Peer,
    *,
    limits: ChannelLimits | None = None,
    drain: trio.Event | None = None,
    accept: Callable[[], None] = lambda: None,
    fairness: Fairness | None = None,
    share: Share | None = None,
) -> None:
    """Authenticate and answer one connection until it ends; takes the pipe over and closes it.

    Args:
        pipe: The pipe to the client.
        host: Authenticates clients and provides the service.
        peer: The address that the connection comes from.
        limits: Limits of the connection.
        drain: Once it is set, calls in flight are finished and new ones refused with ``UNAVAILABLE``; then this returns.
        accept: Called when the token is valid, before the client is welcomed; a ``RemoteError`` that it raises is sent
            to the client instead.
        fairness: The shares of the principals, over all their connections.
        share: The share of this connection, if the pipe counts what arrives.

    It raises nothing but cancellation: a failure concerns this connection only. Cancelling stops every handler of
    the connection and closes it.
    """
    limits = limits or ChannelLimits()
    drain = trio.Event() if drain is None else drain
    fairness = fairness or Fairness()
    with fairness.connection(limits, peer) if share is None else nullcontext(share) as taken:

        def enter(subject: str) -> None:
            taken.admit(subject)
            accept()

        try:
            session = await first_session(pipe, host, peer, limits, enter)
            if session is not None:
                connection = ServerConnection(
                    pipe, host, peer, session, limits, drain, taken, counted=share is not None
                )
                try:
                    await connection.run()
                finally:
                    connection.session.close()
        except LOST:
            pass
        except trio.Cancelled:
            explain_close(pipe, CUT_OFF)
            raise
        except Exception:
            logger.exception("a connection from %s ended by an error", peer.address)
            explain_close(pipe, refusal("INTERNAL", "the server failed; its log says why"))
        finally:
            await close_pipe(pipe, limits.close_s)
