"""Several calls in one request: ``POST /v1/batch``, and ``POST /v1/cancel`` for single ones of them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import msgspec
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.survey import UNCOUNTED_BYTES
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma.ports import SyncService
from atoma.ports.sessions import Session
from atoma.ports.tasks import open_tasks
from atoma_transports.adapters import METHODS
from atoma_transports.calls.call import BUDGET_MS_MAX, ID_MAX, TRACE_LENGTH_MAX, deadline_of
from atoma_transports.calls.errors import LATE, explain, large_answer
from atoma_transports.calls.fairness import Share
from atoma_transports.calls.requests import HeldAnswers, at_once, count_values, in_turns
from atoma_transports.http.answers import RefusedRequest, send_answer
from atoma_transports.http.envelope import (
    AS_JSON,
    AS_MSGPACK,
    BATCH_VERSION,
    BatchRequest,
    CallHead,
    CallReply,
    Cancel,
    Encoding,
    check_separators,
    pack_record,
)
from atoma_transports.http.streams import BodyWriter, Records, answer_in_parts
from atoma_transports.http.wire import Gone, ServerWire
from atoma_transports.protocol.json_mapping import as_object, from_json, to_json
from atoma_transports.protocol.json_text import parse_json
from atoma_transports.serving.handlers import Hosting

BATCH_ID = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)
ENVELOPE_BYTES = 30
"""What the envelope of answers in JSON takes, at most."""
CALLS_PER_BATCH_MAX = 1024
CALLS_MAX = 4096
"""Calls of batches in flight on one port, over all connections."""


@dataclass(slots=True, eq=False)
class BatchCall:
    """One call of a batch.

    Attributes:
        head: What the envelope says about it.
        read: The message as a struct of that type.
        deadline: The caller's, on this side's clock.
        scope: Ends it, while it runs.
        given_up: Whether the caller has cancelled it.
    """

    head: CallHead
    read: Callable[[type[msgspec.Struct]], msgspec.Struct]
    deadline: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Several:
    """The calls of a batch by their ids, and how their replies are encoded."""

    id: str
    calls: dict[int, BatchCall]
    encoding: Encoding


class RunningBatches:
    """The batches that are being answered on one port."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], dict[int, BatchCall]] = {}
        self._free = CALLS_MAX

    @contextmanager
    def open(self, subject: str, several: Several) -> Generator[None]:
        """Make the calls of a batch known while the block runs.

        Raises:
            Refused: It is running already, or the server has enough to do.
        """
        key = (subject, several.id)
        size = len(several.calls)
        if key in self._running:
            raise RefusedRequest(refusal("MALFORMED", "a batch with this id is running"))
        if size > CALLS_PER_BATCH_MAX:
            text = f"{size} calls in one batch, the limit is {CALLS_PER_BATCH_MAX}"
            raise RefusedRequest(refusal("TOO_LARGE", text))
        if size > self._free:
            raise RefusedRequest(refusal("OVERLOADED", "too many calls in flight on this server", retry_after_ms=100))
        self._running[key] = several.calls
        self._free -= size
        try:
            yield
        finally:
            del self._running[key]
            self._free += size

    def cancel(self, subject: str, wish: Cancel) -> None:
        """Cancel single calls; what is not running, or belongs to somebody else, is ignored."""
        running = self._running.get((subject, wish.batch), {})
        for id in wish.calls:
            call = running.get(id)
            if call is not None:
                call.given_up = True
                call.scope.cancel()


async def read_batch(encoding: Encoding, body: bytes, deadline: float, share: Share) -> Several:
    """The calls in ``body``; none may take longer than ``deadline``. A large one is read under the permit of ``share``.

    Raises:
        RemoteError: ``TOO_LARGE``: there is too much in it, over all calls.
        ProtocolError: It is not a batch.
    """
    steps = batch_in_steps(encoding, body, deadline)
    return at_once(steps) if len(body) <= UNCOUNTED_BYTES else await in_turns(steps, share)


def batch_in_steps(encoding: Encoding, body: bytes, deadline: float) -> Generator[None, None, Several]:
    """See :func:`read_batch`; others may run between two steps."""
    if encoding is AS_MSGPACK:
        if len(body) > UNCOUNTED_BYTES:
            yield from count_values(body)
        batch = decode(body, BatchRequest)
        version, id = batch.version, batch.id
        calls = [
            BatchCall(
                CallHead(call.id, call.method, call.budget_ms, call.trace_id), _from_msgpack(call.message), deadline
            )
            for call in batch.calls
        ]
    else:
        check_separators(body)
        envelope = parse_json(body)
        if len(body) > UNCOUNTED_BYTES:
            yield
        version, id, calls = _read_json(envelope, deadline)
    if version != BATCH_VERSION:
        raise ProtocolError(f"version {version} of batches is not spoken here; version {BATCH_VERSION} is")
    if not BATCH_ID.fullmatch(id):
        raise ProtocolError("the id of a batch has 8 to 64 letters and digits")
    by_id = {call.head.id: call for call in calls}
    if not calls or len(by_id) < len(calls):
        raise ProtocolError("the calls of a batch have ids of their own, and there is at least one")
    for call in calls:
        head = call.head
        within = (
            0 <= head.id <= ID_MAX and -1 <= head.budget_ms <= BUDGET_MS_MAX and len(head.trace_id) <= TRACE_LENGTH_MAX
        )
        if not within:
            raise ProtocolError("a field of a call is out of bounds")
        call.deadline = min(deadline, deadline_of(head.budget_ms))
    return Several(id, by_id, encoding)


def _from_msgpack(message: msgspec.Raw) -> Callable[[type[msgspec.Struct]], msgspec.Struct]:
    return lambda kind: decode(memoryview(message), kind)


def _from_json(message: object) -> Callable[[type[msgspec.Struct]], msgspec.Struct]:
    return lambda kind: from_json(message, kind)


class _JsonBatch(msgspec.Struct, frozen=True):
    version: int
    id: str
    calls: tuple[CallHead, ...]


def _read_json(envelope: object, deadline: float) -> tuple[int, str, list[BatchCall]]:
    messages: list[object] = []
    calls = (as_object(envelope) or {}).get("calls")
    for call in cast("list[object]", calls) if type(calls) is list else ():
        fields = as_object(call)
        if fields is None or "message" not in fields:
            raise ProtocolError("malformed BatchRequest: a call lacks its message")
        messages.append(fields.pop("message"))
    batch = from_json(envelope, _JsonBatch)
    both = zip(batch.calls, messages, strict=True)
    return batch.version, batch.id, [BatchCall(head, _from_json(message), deadline) for head, message in both]


async def answer_batch(
    wire: ServerWire,
    hosting: Hosting,
    batches: RunningBatches,
    admitted: Session,
    service: SyncService,
    several: Several,
) -> None:
    """Carry the calls out side by side: as JSON one answer when all are done, as msgpack each as soon as it is.

    Raises:
        Gone: The client has left, and all calls were cancelled.
        Refused: There are too many.
    """
    size_max = hosting.limits.frame_bytes
    held = HeldAnswers(hosting.limits.queue_bytes, wire.share)

    async def run(done: Callable[[int, bytes], Awaitable[None]]) -> None:
        async with open_tasks() as nursery:
            for index, call in enumerate(several.calls.values()):
                full = index >= hosting.limits.calls
                nursery.start_soon(_carry, call, admitted, service, several.encoding, size_max, held, full, done)

    with batches.open(admitted.principal.subject, several):
        if several.encoding is AS_JSON:
            await _answer_at_once(wire, several, run, size_max)
        else:
            await _answer_one_by_one(wire, hosting, run)


async def _answer_at_once(
    wire: ServerWire,
    several: Several,
    run: Callable[[Callable[[int, bytes], Awaitable[None]]], Awaitable[None]],
    size_max: int,
) -> None:
    replies: dict[int, bytes] = {}
    size = ENVELOPE_BYTES

    async def keep(id: int, reply: bytes) -> None:
        nonlocal size
        size += len(reply) + 1
        if size > size_max:  # none of them will be sent
            replies.clear()
        else:
            replies[id] = reply

    await wire.attended(lambda: run(keep))
    if size > size_max:
        raise RefusedRequest(refusal("TOO_LARGE", f"the answers take {size} bytes; the limit is {size_max}"))
    ordered: Sequence[bytes] = [replies[id] for id in several.calls]
    body = b'{"version":"%d","replies":[%b]}' % (BATCH_VERSION, b",".join(ordered))
    await send_answer(wire, AS_JSON, body)


async def _answer_one_by_one(
    wire: ServerWire, hosting: Hosting, run: Callable[[Callable[[int, bytes], Awaitable[None]]], Awaitable[None]]
) -> None:
    async def work(writer: BodyWriter) -> None:
        async def put(id: int, reply: bytes) -> None:
            if not await writer.put(pack_record("i", reply)):
                raise Gone

        await run(put)
        writer.put_now(pack_record("z"))

    await answer_in_parts(wire, hosting, Records(), work)


async def _carry(
    call: BatchCall,
    admitted: Session,
    service: SyncService,
    encoding: Encoding,
    size_max: int,
    held: HeldAnswers,
    full: bool,
    done: Callable[[int, bytes], Awaitable[None]],
) -> None:
    """Answer one call; whatever it raises goes to its caller and harms none of the others."""
    id = call.head.id

    def encoded(reply: msgspec.Struct | ErrorInfo) -> bytes:
        data = _encode(encoding, id, reply)
        return data if len(data) <= size_max else _encode(encoding, id, large_answer(len(data), size_max))

    answer: bytes | ErrorInfo
    if full:
        answer = refusal("OVERLOADED", "too many calls in one batch", retry_after_ms=100)
    else:
        answer = await _answer(call, admitted, service, held, encoded)
    if isinstance(answer, bytes):
        await done(id, answer)
        held.give(len(answer))
    else:
        await done(id, encoded(answer))


async def _answer(
    call: BatchCall,
    admitted: Session,
    service: SyncService,
    held: HeldAnswers,
    encoded: Callable[[msgspec.Struct], bytes],
) -> bytes | ErrorInfo:
    """The encoded answer, which ``held`` counts, or why there is none."""
    served = METHODS.get(call.head.method)
    if served is None or served.answer is None:
        return refusal("UNIMPLEMENTED", "no such method here")
    call.scope.deadline = call.deadline
    answer = served.answer
    try:
        with admitted.call(), call.scope:
            request = call.read(served.request)

            async def make() -> bytes:
                return encoded(await answer(service, request))

            return await held.take(make, reads=served.reads)
    except Exception as error:  # whatever a handler raises is answered, and logged when unexpected
        return explain(error, call.head.method, call.head.trace_id)
    if call.given_up:
        return refusal("CANCELLED", "the caller has given up")
    return LATE


def _encode(encoding: Encoding, id: int, reply: msgspec.Struct | ErrorInfo) -> bytes:
    if encoding is AS_JSON:
        return msgspec.json.encode({"id": str(id), "error" if isinstance(reply, ErrorInfo) else "ok": to_json(reply)})
    if isinstance(reply, ErrorInfo):
        return encode(CallReply(id, error=reply))
    return encode(CallReply(id, ok=msgspec.Raw(encode(reply))))
