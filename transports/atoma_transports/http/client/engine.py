"""The batch engine: calls made at the same moment travel in one request."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, ChannelBroken, ProtocolError
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import budget_until
from atoma_transports.http.client.lanes import BatchRules, CallBatch, CallLane, QueuedCall
from atoma_transports.http.client.messages import (
    RecordReader,
    RecordsEnded,
    Reply,
    Request,
    Requests,
    check_type,
    read_body,
    refused,
)
from atoma_transports.http.envelope import (
    BATCH,
    BATCH_VERSION,
    CANCEL,
    ITEMS,
    MSGPACK,
    PREFIX,
    BatchCall,
    BatchRequest,
    CallReply,
    Cancel,
)

logger = logging.getLogger("atoma.transports")

LINGER_S = 1.0
"""Seconds that a reply may go on after everything in it was answered, before its connection is given up."""
CANCEL_S = 5.0
"""Seconds for telling the other side that a call was cancelled."""
CLOSED = "the connection is closed"


class BatchEngine:
    """A carrier of calls in requests; made by :func:`open_engine`.

    Calls of one lane that are made in one turn of the event loop, or while all requests of the lane are in flight,
    are joined into one request; a call that is alone goes as it is. Every call gets its own reply as soon as that
    is there.
    """

    def __init__(
        self, requests: Requests, rules: BatchRules, size_max: int, random: Random, nursery: trio.Nursery
    ) -> None:
        self._requests = requests
        self._size_max = size_max
        self._random = random
        self._nursery = nursery
        self._lanes = {name: CallLane(name, lane_rules) for name, lane_rules in rules.lanes()}
        self._batches: set[CallBatch] = set()
        self._last_id = 0
        self._closed = False

    async def call(self, method: str, body: bytes, trace_id: str = "") -> bytes | ErrorInfo:
        """The encoded reply to ``body``, or the error that the other side answers with.

        Cancelling withdraws a call that was not sent, and stops the handler of one that was.

        Raises:
            ChannelBroken: The connection was lost, or is closed; ``maybe_sent`` says whether the call may be seen.
            ProtocolError: The other side does not keep to the protocol.
            Overloaded: Too many calls wait; nothing was sent.
        """
        if self._closed:
            raise ChannelBroken(f"{CLOSED}; the call was not sent", maybe_sent=False)
        self._last_id += 1
        call = QueuedCall(self._last_id, method, body, trace_id, trio.current_effective_deadline())
        lane = self._lanes[METHODS[method].lane]
        lane.put(call)
        try:
            await call.done.wait()
        finally:
            if not call.done.is_set():
                self._forget(lane, call)
        if call.failure is not None:
            raise call.failure
        if call.refused is not None:
            return call.refused
        assert call.payload is not None
        return call.payload

    def start(self) -> None:
        """Begin to send."""
        for lane in self._lanes.values():
            self._nursery.start_soon(self._dispatch, lane)

    def close(self) -> None:
        """End every call and refuse further ones; the tasks end with the nursery."""
        self._closed = True
        failure = ChannelBroken(CLOSED)
        for lane in self._lanes.values():
            lane.fail(failure)
        for batch in self._batches:
            batch.fail(failure)

    def _forget(self, lane: CallLane, call: QueuedCall) -> None:
        """Take back a call whose caller is being cancelled."""
        batch = call.batch
        if batch is None:
            lane.withdraw(call)
            return
        del batch.open[call.id]
        if not batch.open:
            batch.scope.cancel()
            return
        batch.dropped.append(call.id)
        if batch.request is not None and not batch.telling:
            batch.telling = True
            self._nursery.start_soon(self._tell_cancelled, batch)

    async def _dispatch(self, lane: CallLane) -> None:
        """Send what waits, each time one turn of the event loop later, when all calls of a turn have been made."""
        while True:
            while not lane.ready:
                await lane.work.park()
            await trio.lowlevel.checkpoint()
            if not lane.ready:  # what waited was cancelled meanwhile
                continue
            batch = lane.take()
            lane.active += 1
            self._batches.add(batch)
            self._nursery.start_soon(self._carry, lane, batch)

    async def _carry(self, lane: CallLane, batch: CallBatch) -> None:
        try:
            with batch.scope:
                if len(batch.open) == 1:
                    await self._ask_one(batch)
                elif batch.open:  # else all were cancelled before anything was sent
                    await self._ask_many(batch)
            batch.fail(ProtocolError("the reply leaves the call unanswered"))
        except AtomaError as error:
            batch.fail(error)
        except Exception:
            logger.exception("a request failed")
            batch.fail(ChannelBroken("the transport failed; the log says how"))
        finally:
            batch.fail(ChannelBroken(CLOSED))
            batch.over.set()
            self._batches.discard(batch)
            lane.active -= 1
            lane.work.unpark()

    async def _ask_one(self, batch: CallBatch) -> None:
        (call,) = batch.open.values()
        batch.request = Request(PREFIX + call.method, call.body, budget_until(call.deadline), call.trace_id)
        async with self._requests.post(batch.request) as reply:
            if reply.status != 200:
                batch.refuse(await refused(reply))
                return
            check_type(reply, MSGPACK)
            payload = await read_body(reply, self._size_max)
            if batch.open:
                batch.open.clear()
                call.payload = payload
                call.done.set()

    async def _ask_many(self, batch: CallBatch) -> None:
        batch.dropped.clear()  # those cancelled until now are not sent at all
        batch.id = f"{self._random.getrandbits(128):032x}"
        calls = tuple(
            BatchCall(
                id=call.id,
                method=call.method,
                budget_ms=budget_until(call.deadline),
                trace_id=call.trace_id,
                message=msgspec.Raw(call.body),
            )
            for call in batch.open.values()
        )
        batch.request = Request(PREFIX + BATCH, encode(BatchRequest(BATCH_VERSION, batch.id, calls)))
        async with self._requests.post(batch.request) as reply:
            batch.begun.set()
            if reply.status != 200:
                batch.refuse(await refused(reply))
                return
            check_type(reply, ITEMS)
            try:
                await self._take_replies(batch, reply, {call.id for call in calls})
            except RecordsEnded as ended:
                batch.refuse(ended.info)

    async def _take_replies(self, batch: CallBatch, reply: Reply, expected: set[int]) -> None:
        records = RecordReader(reply, self._size_max)
        while (payload := await records.next()) is not None:
            answer = decode(payload, CallReply)
            if answer.id not in expected:
                raise ProtocolError("a reply to a call that was not made, or a second one to the same call")
            expected.discard(answer.id)
            call = batch.open.pop(answer.id, None)
            if call is not None:  # else it was cancelled meanwhile
                call.refused = answer.error
                call.payload = b"" if isinstance(answer.ok, msgspec.UnsetType) else bytes(answer.ok)
                call.done.set()
            if not batch.open:
                batch.scope.deadline = trio.current_time() + LINGER_S
        await records.finish()

    async def _tell_cancelled(self, batch: CallBatch) -> None:
        """Have the handlers of cancelled calls stopped, while the rest of their batch goes on."""
        async with open_tasks() as nursery:

            async def until_over() -> None:
                await batch.over.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_over)
            await batch.begun.wait()  # a cancellation that overtakes its batch would find nothing to cancel
            while batch.dropped:
                body = encode(Cancel(batch.id, tuple(batch.dropped)))
                batch.dropped.clear()
                await self._post_cancel(body)
            batch.telling = False
            nursery.cancel_scope.cancel()

    async def _post_cancel(self, body: bytes) -> None:
        with trio.move_on_after(CANCEL_S):
            try:
                async with self._requests.post(Request(PREFIX + CANCEL, body)) as reply:
                    await read_body(reply, self._size_max)
            except AtomaError as error:  # then its budget stops it, or the end of the batch
                logger.debug("a cancellation was not delivered: %s", error)


@asynccontextmanager
async def open_engine(
    requests: Requests, *, rules: BatchRules, size_max: int, random: Random
) -> AsyncGenerator[BatchEngine]:
    """A running engine; leaving the block ends every call with ``ChannelBroken`` and leaves no task.

    Args:
        requests: Sends the requests.
        rules: Bounds of the lanes.
        size_max: Largest message in bytes.
        random: For the ids of batches.
    """
    async with open_tasks() as nursery:
        engine = BatchEngine(requests, rules, size_max, random, nursery)
        engine.start()
        try:
            yield engine
        finally:
            engine.close()
            nursery.cancel_scope.cancel()
