"""A method of the service as one row: how it is called, and how it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, Literal, TypeAlias, TypeVar, cast

import msgspec
import trio

from atoma.errors import ProtocolError
from atoma.ports import SyncService

Q = TypeVar("Q")
R = TypeVar("R")
W = TypeVar("W", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)

AnswerCall: TypeAlias = Callable[[SyncService, msgspec.Struct], Awaitable[msgspec.Struct]]
OpenFeed: TypeAlias = Callable[
    [SyncService, msgspec.Struct], AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]
]
LaneName: TypeAlias = Literal["query", "write", "sync"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row, as transports read it.

    Attributes:
        name: Its name in the service and in every language.
        request: Type of the message that asks.
        reply: Type of the message that answers, or of each item of a stream.
        answer: Has a service make the reply; None for a stream.
        feed: Has a service make the items; None for a call.
        reads: ``answer`` changes nothing, so that an answer for which there is no room may be made again.
        carries_rows: Its requests may be as large as what they write; all others are small.
        lane: With which calls it may wait for a request of the HTTP client.
    """

    name: str
    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    answer: AnswerCall | None = None
    feed: OpenFeed | None = None
    reads: bool = False
    carries_rows: bool = False
    lane: LaneName = "sync"

    @property
    def streams(self) -> bool:
        """Whether it answers with a stream."""
        return self.feed is not None


MethodTable: TypeAlias = Mapping[str, Method]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryMethod(Method, Generic[Q, R]):
    """A call with one reply, as proxies read it.

    Attributes:
        of: The method of a service.
        message: The message that asks for a request.
        result: What a message answers to a request; raises ``ProtocolError`` when it does not fit.
    """

    of: Callable[[SyncService], Callable[[Q], Awaitable[R]]]
    message: Callable[[Q], msgspec.Struct]
    result: Callable[[Q, msgspec.Struct], R]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMethod(Method, Generic[W, V]):
    """A call with a stream of replies, whose messages are what the service takes and gives.

    Attributes:
        of: The method of a service.
        item: An item that came; raises ``ProtocolError`` when it is of another type.
    """

    of: Callable[[SyncService], Callable[[W], AbstractAsyncContextManager[AsyncIterator[V]]]]
    item: Callable[[msgspec.Struct], V]


@dataclass(frozen=True, slots=True)
class Translation(Generic[Q, R, W, V]):
    """The way in which a method's requests and results are written as messages.

    Attributes:
        call: Type of the message that asks.
        reply: Type of the message that answers.
        to_call: The message for a request.
        to_request: The request that a message stands for, with the caller's deadline on Trio's clock.
        to_reply: The message for the result of a request.
        to_result: The result of a request that a message stands for.
    """

    call: type[W]
    reply: type[V]
    to_call: Callable[[Q], W]
    to_request: Callable[[W, float], Q]
    to_reply: Callable[[Q, R], V]
    to_result: Callable[[Q, V], R]


def unary(
    method: Callable[[SyncService, W], Awaitable[V]],
    request: type[W],
    reply: type[V],
    *,
    reads: bool = False,
    carries_rows: bool = False,
    lane: LaneName = "sync",
) -> UnaryMethod[W, V]:
    """The row of a call whose request and reply are sent as they are."""
    of = cast("Callable[[SyncService], Callable[[W], Awaitable[V]]]", attrgetter(method.__name__))

    def answer(service: SyncService, message: msgspec.Struct) -> Awaitable[msgspec.Struct]:
        return of(service)(_expect(message, request))

    return UnaryMethod(
        name=method.__name__, request=request, reply=reply, answer=answer, reads=reads, carries_rows=carries_rows,
        lane=lane, of=of, message=lambda asked: asked, result=lambda asked, message: _expect(message, reply),
    )  # fmt: skip


def translated(
    method: Callable[[SyncService, Q], Awaitable[R]],
    by: Translation[Q, R, W, V],
    *,
    reads: bool = False,
    carries_rows: bool = False,
    lane: LaneName = "sync",
) -> UnaryMethod[Q, R]:
    """The row of a call whose request and result are written as other messages."""
    of = cast("Callable[[SyncService], Callable[[Q], Awaitable[R]]]", attrgetter(method.__name__))

    async def answer(service: SyncService, message: msgspec.Struct) -> msgspec.Struct:
        request = by.to_request(_expect(message, by.call), trio.current_effective_deadline())
        return by.to_reply(request, await of(service)(request))

    return UnaryMethod(
        name=method.__name__, request=by.call, reply=by.reply, answer=answer, reads=reads, carries_rows=carries_rows,
        lane=lane, of=of, message=by.to_call, result=lambda asked, message: by.to_result(asked, _expect(message, by.reply)),
    )  # fmt: skip


def stream(
    method: Callable[[SyncService, W], AbstractAsyncContextManager[AsyncIterator[V]]], request: type[W], item: type[V]
) -> StreamMethod[W, V]:
    """The row of a stream, whose request and items are sent as they are."""
    of = cast(
        "Callable[[SyncService], Callable[[W], AbstractAsyncContextManager[AsyncIterator[V]]]]",
        attrgetter(method.__name__),
    )

    def feed(service: SyncService, message: msgspec.Struct) -> AbstractAsyncContextManager[AsyncIterator[V]]:
        return of(service)(_expect(message, request))

    return StreamMethod(
        name=method.__name__, request=request, reply=item, feed=feed, of=of, item=lambda message: _expect(message, item)
    )


def _expect(message: msgspec.Struct, kind: type[W]) -> W:
    if not isinstance(message, kind):
        raise ProtocolError(f"expected {kind.__name__}, the channel gave {type(message).__name__}")
    return message


def table_of(port: type[object], *rows: Method) -> MethodTable:
    """``rows`` by their names.

    Raises:
        TypeError: They are not those of the methods that ``port`` has.
    """
    table = {row.name: row for row in rows}
    check_methods(port, table)
    return table


def check_methods(kind: type[object], table: MethodTable) -> None:
    """See that the public methods of ``kind`` are those of ``table``, so that none is forgotten.

    Raises:
        TypeError: They are not.
    """
    methods = {name for name in vars(kind) if not name.startswith("_")}
    if unlisted := sorted(methods - table.keys()):
        raise TypeError(f"{kind.__name__} has {', '.join(unlisted)}, for which the table of methods has no row")
    if missing := sorted(table.keys() - methods):
        raise TypeError(f"{kind.__name__} lacks {', '.join(missing)}, which the table of methods has")


def find_method(table: MethodTable, name: str, *, streams: bool) -> Method:
    """The row of the call or stream called ``name``.

    Raises:
        ProtocolError: There is none; nothing was sent.
    """
    found = table.get(name)
    if found is None or found.streams != streams:
        raise ProtocolError(f"the protocol has no {'stream' if streams else 'call'} {name!r}", maybe_sent=False)
    return found
