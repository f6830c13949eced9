"""Requests and replies as the client half sees them: the pool sends them, and so do scripts in tests."""

from __future__ import annotations

import email.utils
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import trio

from atoma.codes import BY_HTTP
from atoma.contracts.codec import decode, encode
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ChannelBroken, ProtocolError
from atoma_transports.http.envelope import CANCEL, JSON, MSGPACK, PREFIX, Cancel, Done, Failure


@dataclass(slots=True, eq=False)
class Request:
    """One ``POST``.

    Attributes:
        path: Path below the hub's address, such as ``/v1/query``.
        body: A message, or an envelope of several, as msgpack.
        budget_ms: Milliseconds until the caller's deadline, -1 without one.
        trace_id: The caller's trace.
        token: A token of its own; None takes that of the connection.
        sent: Set once a byte of the request may have reached the other side.
    """

    path: str
    body: bytes
    budget_ms: int = -1
    trace_id: str = ""
    token: str | None = None
    sent: trio.Event = field(default_factory=trio.Event)


class Reply(Protocol):
    """The head of a reply, and its body as it comes."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    def header(self, name: str) -> str:
        """The field of that lower-case name; empty when there is none."""
        ...

    async def receive(self) -> bytes:
        """The next part of the body, ``b""`` at its end.

        Raises:
            ChannelBroken: The connection was lost before the end.
            ProtocolError: What comes is not HTTP.
        """
        ...


class Requests(Protocol):
    """A sender of requests."""

    def post(self, request: Request) -> AbstractAsyncContextManager[Reply]:
        """Send ``request``; the block begins with the head of its reply.

        Leaving the block before the end of the body, or being cancelled, closes the connection, which cancels the
        handler at the other side.

        Raises:
            ChannelBroken: No connection, or it was lost; ``maybe_sent`` says whether the request may have been seen.
            ProtocolError: The other side does not speak HTTP.
        """
        ...


ERROR_BYTES_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 24 * 3600


async def read_body(reply: Reply, size_max: int) -> bytes:
    """The whole body.

    Raises:
        ProtocolError: It is larger than ``size_max``.
    """
    parts: list[bytes] = []
    size = 0
    while data := await reply.receive():
        size += len(data)
        if size > size_max:
            raise ProtocolError(f"the reply is larger than {size_max} bytes")
        parts.append(data)
    return b"".join(parts)


def check_type(reply: Reply, wanted: str) -> None:
    """Refuse what a hub would not have sent: a page that a portal or a proxy puts in its place.

    Raises:
        ProtocolError: The content is of another type.
    """
    if _type(reply) != wanted:
        raise ProtocolError(
            f"the reply is {_type(reply) or 'of no type'}, expected {wanted}: is this the address of an Atoma hub?"
        )


async def refused(reply: Reply) -> ErrorInfo:
    """The error in a reply whose status is not 200.

    Raises:
        ProtocolError: Nothing that a hub or a proxy in front of it would say.
    """
    content = _type(reply)
    if content in (MSGPACK, JSON):
        body = await read_body(reply, ERROR_BYTES_MAX)
        try:
            return (decode(body, Failure) if content == MSGPACK else msgspec.json.decode(body, type=Failure)).error
        except (ProtocolError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # JSON of somebody else
    code = BY_HTTP.get(reply.status)
    if code is not None:
        text = f"something on the way answered with HTTP status {reply.status}"
        return refusal(code, text, retry_after_ms=_retry_after_ms(reply))
    location = reply.header("location")
    hint = f"; it points to {location}" if 300 <= reply.status < 400 and location else ""
    raise ProtocolError(f"HTTP status {reply.status}{hint}: is this the address of an Atoma hub?")


def _type(reply: Reply) -> str:
    return reply.header("content-type").partition(";")[0].strip().lower()


def _retry_after_ms(reply: Reply) -> int:
    """Seconds, or a date, which is read by the clock of whoever wrote it; 0 when it says nothing."""
    text = reply.header("retry-after").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), RETRY_AFTER_MAX_S) * 1000  # the first digits of a longer one are too many already
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(reply.header("date"))
        return round(min(max((until - now).total_seconds(), 0), RETRY_AFTER_MAX_S) * 1000)
    except (ValueError, TypeError):  # TypeError: one of the dates names no time zone
        return 0


RECORD_HEAD = 5
RECORD_SLACK = 4096
"""What a record may hold beyond the largest message: the id of its call."""
KINDS = frozenset(b"iezp")


class RecordReader:
    """A reader that takes the body of a reply apart: one byte of kind, four of length, the payload.

    Args:
        reply: The reply that is read.
        size_max: Largest message.
    """

    def __init__(self, reply: Reply, size_max: int) -> None:
        self._reply = reply
        self._size_max = size_max + RECORD_SLACK
        self._data = bytearray()

    async def next(self) -> bytes | None:
        """The payload of the next item; None at the end.

        Raises:
            ChannelBroken: The body broke off.
            ProtocolError: It is none of records, or a record is too large.
            RecordsEnded: The other side says what went wrong, in place of the rest.
        """
        while True:
            await self._fill(RECORD_HEAD)
            kind, size = self._data[0], int.from_bytes(self._data[1:RECORD_HEAD], "big")
            if kind not in KINDS or size > self._size_max:
                raise ProtocolError("the reply is not made of records, or one is too large")
            await self._fill(RECORD_HEAD + size)
            payload = bytes(memoryview(self._data)[RECORD_HEAD : RECORD_HEAD + size])
            del self._data[: RECORD_HEAD + size]
            if kind == ord("i"):
                return payload
            if kind == ord("e"):
                raise RecordsEnded(decode(payload, ErrorInfo))
            if kind == ord("z"):
                return None

    async def finish(self) -> None:
        """Read to the end of the body, so that the connection can be used again."""
        while data := await self._reply.receive():
            self._data += data
            if len(self._data) > RECORD_SLACK:
                raise ProtocolError("bytes after the last record")

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:
            data = await self._reply.receive()
            if not data:
                raise ChannelBroken("the reply was cut short; the outcome of the call is unknown")
            self._data += data


class RecordsEnded(Exception):
    """A record of kind ``e``: the error that ended a stream or a batch."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.code)
        self.info = info


PROBE_BYTES_MAX = 64 * 1024
PROBE = encode(Cancel("0" * 32, ()))


def new_probe(token: str | None = None) -> Request:
    """A request that does nothing: whether the server is there, and takes the token.

    It cancels no calls of no batch, which every hub answers at once.
    """
    return Request(PREFIX + CANCEL, PROBE, token=token)


async def read_probe(reply: Reply) -> Done | ErrorInfo:
    """Who the token of a probe belongs to, and what the server understands; or what it refuses the probe with.

    Raises:
        ChannelBroken: The connection was lost.
        ProtocolError: It is not a hub.
    """
    if reply.status != 200:
        return await refused(reply)
    check_type(reply, MSGPACK)
    return decode(await read_body(reply, PROBE_BYTES_MAX), Done)
